"""Group: jobs that belong together, and what is made of their results. Knows nothing of what any of them makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

#: Of which of its jobs' results a group's own result is made, and when: of those at its beginning each time one more has
#: completed; of all, once all have completed; or of those that completed, once all have ended in whatever way.
Gathering = Literal["leading", "completed", "ended"]


@dataclass(frozen=True, slots=True)
class After:
    """One job that another waits for, and what it takes of it."""

    job_id: str
    takes: str = ""  #: what for: a knob of its request, or a word of its worker's; empty where only the order counts
    file: str = ""  #: kind of the file that is taken: "last_frame", …
    detail: str = ""  #: what its worker must know to take it, JSON text


@dataclass(frozen=True, slots=True)
class NewGroup:
    """What is handed in to be kept together."""

    id: str  #: 128 random bits, hexadecimal; its jobs name it
    kind: str  #: "storyboard", "sweep", …: which worker's finisher makes its result
    spec: str  #: what was asked, as JSON text; only its kind knows what is in it
    owner: str = ""
    title: str = ""
    gathering: Gathering = "completed"
    webhook: str = ""  #: who is told when its result is there, or will not be; "" for nobody
    storage: str = ""  #: the operator's profile that its result is copied to; empty where it stays here


@dataclass(frozen=True, slots=True)
class GroupFile:
    """One file of a group's result in object storage."""

    kind: str  #: "film", "sheet", …
    name: str  #: of the local file
    media_type: str
    bucket: str
    key: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GroupCopy:
    """A result that was taken to be copied."""

    group_id: str
    kind: str  #: of the group
    storage: str  #: the profile
    result: str  #: what its finisher recorded
    attempts: int  #: begun so far, this one with it


@dataclass(frozen=True, slots=True)
class GroupUpload:
    """How the copy of a group's result fares, for its owner."""

    storage: str  #: the profile
    state: str = ""  #: an `UploadState`; empty before the first result
    attempts: int = 0
    outcome: str = ""  #: how the newest attempt that failed went, in words
    files: tuple[GroupFile, ...] = ()  #: those that are there


@dataclass(frozen=True, slots=True)
class Group:
    """A group as it stood when it was read."""

    id: str
    kind: str
    spec: str
    owner: str
    title: str
    gathering: Gathering
    created_at: float  #: wall clock, seconds since 1970; for display only
    worker: str | None  #: who is making its result now
    pending: bool  #: whether a worker has yet to look what is to be made
    failures: int  #: of the finisher since a job of it last ended
    made_of: tuple[str, ...]  #: ids of the jobs whose results are in its own
    result: str  #: what its finisher recorded, JSON text; empty before the first time
    error: tuple[str, str, str] | None  #: code, message and hint, where its finisher gave up
    webhook: str = ""  #: as `NewGroup` has it
    upload: GroupUpload | None = None  #: None where it stays here

    @property
    def resting(self) -> bool:
        """Whether nothing is being made of it, nor about to be."""
        return self.worker is None and not self.pending


def due(gathering: Gathering, jobs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Ids of the jobs of which the result is to be made now, of (id, status) in order; empty for none yet."""
    completed = tuple(job_id for job_id, status in jobs if status == "completed")
    if gathering == "leading":
        first = next((place for place, (_, status) in enumerate(jobs) if status != "completed"), len(jobs))
        return tuple(job_id for job_id, _ in jobs[:first])
    running = any(status in ("queued", "in_progress") for _, status in jobs)
    whole = not running if gathering == "ended" else len(completed) == len(jobs)
    return completed if whole else ()
