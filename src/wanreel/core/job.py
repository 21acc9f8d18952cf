"""Job: a generation that was accepted. Knows nothing of where jobs are kept or who runs them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from wanreel.core.errors import WanreelError
from wanreel.core.group import After
from wanreel.core.upload import UploadState, UploadTo


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  #: waiting for a worker, for the first time or again
    IN_PROGRESS = "in_progress"  #: a worker holds it
    COMPLETED = "completed"  #: its video is stored
    FAILED = "failed"  #: `Job.error` says why; `retry` puts it back
    CANCELLED = "cancelled"  #: somebody asked to stop


#: States that a job does not leave by itself.
TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class Outcome(StrEnum):
    """How one attempt ended."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"  #: the worker died
    DRAINED = "drained"  #: the worker gave the job back on purpose; not held against the job


@dataclass(frozen=True, slots=True)
class JobFailure:
    """An error as it is kept in the record."""

    code: str  #: stable, for programs: a WanreelError's code
    message: str  #: what was wrong
    hint: str = ""  #: what to do

    @classmethod
    def of(cls, error: WanreelError) -> Self:
        return cls(error.code, error.message, error.hint)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the running attempt has come."""

    stage: str = ""  #: "load", "encode", "denoise", "decode", "export", …
    step: int = 0  #: denoise steps done
    total_steps: int = 0  #: denoise steps to do; 0 while unknown
    share: float = 0.0  #: 0 to 1, of a stage that has no steps: decoding


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """A file that belongs to a job. Names it, does not hold or locate it: storage does."""

    kind: str  #: "video", "manifest", "latents", "thumbnail", …; one of each a job
    name: str  #: the name in the output storage
    sha256: str  #: of the bytes, hexadecimal
    size: int  #: bytes
    media_type: str  #: "video/mp4", …


@dataclass(frozen=True, slots=True)
class Attempt:
    """One time that a worker held the job."""

    number: int  #: the fencing token: 1 for the first claim, never used twice for a job
    worker: str
    outcome: Outcome
    started_at: float  #: wall clock, seconds since 1970; for display only
    ended_at: float | None
    seconds: float | None  #: run time on the worker's monotonic clock
    error: JobFailure | None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job, in the order in which it was recorded."""

    number: int  #: rises over all jobs of the store; for a tailer
    job_id: str
    seq: int  #: rises within the job, with gaps where step events were compacted
    kind: str  #: "queued", "claimed", "step", "completed", …
    data: Mapping[str, Any]
    at: float  #: wall clock, seconds since 1970; for display only


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is handed in to be queued."""

    request: str  #: the resolved request as JSON text, kept to the letter
    model: str
    owner: str = ""  #: whose turn it takes; "" is one owner too
    priority: int = 0  #: higher goes first
    parent_id: str | None = None  #: the job this one was made from
    time_limit: float | None = None  #: seconds of run time one attempt may take
    mode: str = ""  #: "text", "picture", "first_last" for videos, "image" for pictures: what the library filters by
    prompt: str = ""  #: what the library searches
    webhook_url: str = ""  #: who is told of its end; "" for nobody
    upload_to: UploadTo | None = None  #: where its files are copied when it completes; None for nowhere
    notes: tuple[str, ...] = ()  #: what its makers are to know of it
    adapters: str = ""  #: names of its LoRAs, by which a worker that has them applied is preferred
    id: str = ""  #: drawn already, where other jobs are to name it before it is accepted; see `jobs.groups.new_id`
    group_id: str | None = None  #: of the group it belongs to
    cell: int | None = None  #: its place there
    after: tuple[After, ...] = ()  #: jobs that must have completed before it is claimed


@dataclass(frozen=True, slots=True)
class Warm:
    """What a worker holds in memory, so that some jobs cost it less to begin than others."""

    models: tuple[str, ...] = ()
    adapters: str = ""  #: of its last job, as in `NewJob`


@dataclass(frozen=True, slots=True)
class Job:
    """A durable unit of work as it stood when it was read."""

    id: str  #: 128 random bits, hexadecimal
    status: JobStatus
    request: str  #: the resolved request as JSON text
    model: str
    owner: str
    priority: int
    parent_id: str | None
    time_limit: float | None  #: seconds
    created_at: float  #: wall clock, seconds since 1970; for display only, as the next two
    started_at: float | None  #: of the newest attempt
    ended_at: float | None
    attempt: int  #: fencing token of the newest attempt; 0 before the first claim
    attempts_charged: int  #: attempts held against the job; see `Leases.claim`
    worker: str | None  #: who holds it while in progress
    progress: Progress
    cancel_requested: bool
    result_sha256: str | None  #: of the video's bytes
    error: JobFailure | None
    notes: tuple[str, ...]  #: "resumed_inexact: …", "plan_changed: …"
    upload: UploadState | None  #: of the copy elsewhere, once it has completed; None where there is to be none
    favourite: bool = False  #: marked by its owner
    group_id: str | None = None  #: of the group it belongs to
    cell: int | None = None  #: its place there
    waits: int = 0  #: how many things it waits for that other jobs have yet to make; see `jobs.groups`

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def evolve(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Standing:
    """A queued job's place in the line."""

    position: int  #: 1 is claimed next
    starts_in: float | None  #: seconds, predicted from finished jobs; None while unknown or paused


@dataclass(frozen=True, slots=True)
class LineMark:
    """By which a change of the line is seen."""

    event: int  #: number of the newest event of all jobs
    queued: int
    workers: int  #: that announced themselves and were not yet found dead
    paused: bool


@dataclass(frozen=True, slots=True)
class QueueState:
    """The line as a whole."""

    paused: bool
    reason: str  #: why it is paused, in words
    automatic: bool  #: paused by the disk watch, which also resumes it
    queued: int
    in_progress: int
    capacity: int  #: queued jobs accepted before QueueFull


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Which jobs are wanted. What is not given does not narrow."""

    owner: str | None = None
    status: JobStatus | None = None
    model: str | None = None
    mode: str | None = None
    pictures: bool | None = None  #: True: those that make pictures alone, False: those that make videos
    favourite: bool | None = None
    text: str = ""  #: every word of it must occur in the prompt, in any case
    since: float | None = None  #: accepted at this time or later, seconds since 1970
    until: float | None = None  #: accepted before this time


@dataclass(frozen=True, slots=True)
class Overview:
    """What a search finds, without the jobs themselves."""

    total: int
    cursors: tuple[str, ...]  #: the last id of each page but the last one: what the next page comes after
    models: Mapping[str, int]  #: jobs by model, whatever model was searched for
    favourites: int  #: how many of those found are marked


def folded(text: str) -> str:
    """Text as it is searched: without case, width and surplus space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class Orders:
    """What a heartbeat tells the worker."""

    cancel: bool = False  #: stop this job and confirm with `confirm_cancel`
    drain: bool = False  #: save a checkpoint, `requeue` and leave
