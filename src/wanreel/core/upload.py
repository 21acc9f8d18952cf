"""Upload: a job's file on its way to object storage. Knows nothing of how it gets there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wanreel.core.job import ArtifactRef

#: Kinds of files that go to storage; the poster and the manifest stay here.
KINDS = ("video", "last_frame")


class UploadState(StrEnum):
    """Where a file, or all of a job's together, stands."""

    WAITING = "waiting"  #: for the job to complete, or for the next attempt
    UPLOADING = "uploading"  #: it is being put there now
    DONE = "done"  #: it is there, and was looked at
    FAILED = "failed"  #: every attempt failed; the file is here
    CREDENTIALS_LOST = "credentials_lost"  #: the process that had the request's keys is gone; the file is here


#: States in which something is still to be done.
UNFINISHED = frozenset({UploadState.WAITING, UploadState.UPLOADING})


@dataclass(frozen=True, slots=True)
class UploadTo:
    """Where a job's files go: a profile of the operator's, or storage whose keys one process holds in memory."""

    profile: str = ""  #: the profile's name; empty for keys that came with the request
    holder: str = ""  #: the process that has the keys
    token: str = ""  #: by which it finds them


@dataclass(frozen=True, slots=True)
class Upload:
    """One file that was taken to be put."""

    seq: int
    job_id: str
    to: UploadTo
    file: ArtifactRef
    attempts: int  #: begun so far, this one with it


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """How one file of a job fares."""

    kind: str
    name: str  #: of the local file
    media_type: str
    state: UploadState
    bucket: str  #: empty until it is there, as is the key
    key: str


@dataclass(frozen=True, slots=True)
class UploadReport:
    """How the copy of a job's result fares, for its owner."""

    state: UploadState
    storage: str  #: the profile; empty where the request brought its own
    attempts: int  #: of the file that needed most
    outcome: str  #: how the newest attempt that failed went, in words; empty where none did
    files: tuple[UploadedFile, ...] = ()
