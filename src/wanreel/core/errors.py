"""Every error Wanreel raises on purpose. Knows nothing of HTTP statuses or exit codes: front doors map them.

WanreelError
├── InvalidRequest            the request can't run as asked; lists every Problem at once
│   ├── UnreadablePicture     the bytes are not a picture we accept
│   ├── UnknownModel          no such model, or one we name as unsupported
│   └── UnreadableRecipe      a file carries no recipe, or one we can't read
├── SettingsError             a setting or the configuration file is wrong
├── ModelError
│   ├── ModelNotInstalled     the weights are not on this machine
│   ├── BrokenWeights         the folder is incomplete, foreign or damaged
│   ├── HubUnavailable        the model hub can't be reached, or does not give what it should
│   └── MissingDependency     an optional package is needed and absent
├── MachineError
│   ├── OutOfMemory           GPU or host memory ran out
│   ├── DeviceFault           the GPU failed; the process should be replaced
│   └── InsufficientStorage   the disk is full, or would be
├── GenerationError
│   ├── Cancelled             somebody asked to stop
│   ├── NumericalFault        NaN or infinity in the latents
│   └── ExportFailed          frames could not be written as a video
├── CheckpointError           a checkpoint is corrupt, foreign or newer
├── RemoteError               another server can't be reached, or answers nonsense
│   ├── StorageUnavailable    object storage can't be reached, or is too busy
│   ├── StorageRefused        object storage refuses the keys, the bucket or the request
│   └── StorageDamaged        what lies in object storage is not what was put there
└── JobError
    ├── JobNotFound           no such job
    ├── GroupNotFound         no such storyboard, sweep or other group of jobs
    ├── IllegalTransition     the job's state does not allow this
    ├── QueueFull             the queue is at its limit; says when to come back
    ├── IdempotencyConflict   the key was used before, with another request
    ├── LeaseLost             another worker owns the job now
    ├── PoisonJob             the job failed on every attempt it was allowed
    ├── JobTimeout            the job ran past its time limit
    └── StoreError            the job database can't be used as it is
        └── StoreUnavailable  its server can't be reached now
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self


class WanreelError(Exception):
    """Base of all of them.

    `message` says what was wrong and names the value, `hint` what to do about it. `code` is stable and meant for
    programs; `retryable` says whether the same call may succeed later unchanged.
    """

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request."""

    field: str  #: the knob's name, as in VideoRequest
    code: str  #: stable, for programs: "required", "out_of_range", "unknown_value", …
    message: str  #: what was wrong, with the value
    hint: str = ""  #: what to do

    def __str__(self) -> str:
        return f"{self.field}: {self.message} {self.hint}".strip()


class InvalidRequest(WanreelError):
    """The request can't run as asked. `problems` names every fault, not just the first."""

    code = "invalid_request"

    def __init__(self, *problems: Problem, hint: str = "") -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.field}: {p.message}" for p in problems), hint=hint)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    @classmethod
    def of(cls, field: str, code: str, message: str, hint: str = "") -> Self:
        """The same for a single problem."""
        return cls(Problem(field, code, message, hint))


class UnreadablePicture(InvalidRequest):
    """The bytes are not a picture we accept (PNG, JPEG, WebP within the limits)."""

    code = "unreadable_picture"


class UnknownModel(InvalidRequest):
    """No model has this name, or Wanreel does not run that family."""

    code = "unknown_model"


class UnreadableRecipe(InvalidRequest):
    """The file carries no recipe of ours, or one that this version can't read."""

    code = "unreadable_recipe"


class SettingsError(WanreelError):
    """A setting, environment variable or configuration file is wrong."""

    code = "bad_settings"


class ModelError(WanreelError):
    """Something about the weights."""

    code = "model_error"


class ModelNotInstalled(ModelError):
    """The weights are not on this machine."""

    code = "model_not_installed"


class BrokenWeights(ModelError):
    """The folder of weights is incomplete, of another kind, or damaged."""

    code = "broken_weights"


class HubUnavailable(ModelError):
    """The model hub can't be reached, refuses, or gives something else than it said."""

    code = "hub_unavailable"
    retryable = True
    default_hint = "What was received is kept: the same command goes on from there."


class MissingDependency(ModelError):
    """An optional package is needed and absent."""

    code = "missing_dependency"


class MachineError(WanreelError):
    """The machine gave up, not the request."""

    code = "machine_error"
    retryable = True


class OutOfMemory(MachineError):
    """GPU or host memory ran out."""

    code = "out_of_memory"
    default_hint = "Choose a lower resolution or fewer frames, or stop other programs that use the GPU."


class DeviceFault(MachineError):
    """The GPU reported a fault that is not about memory; the process that saw it must be replaced."""

    code = "device_fault"


class InsufficientStorage(MachineError):
    """The disk is full, or would be before the result is safe."""

    code = "insufficient_storage"
    default_hint = "Free some disk space; work goes on by itself."


class GenerationError(WanreelError):
    """Something went wrong between encode and export."""

    code = "generation_failed"


class Cancelled(GenerationError):
    """Somebody asked to stop. Not a failure."""

    code = "cancelled"


class NumericalFault(GenerationError):
    """The latents hold NaN or infinity, so every further step would be wasted."""

    code = "numerical_fault"
    default_hint = "This is usually a broken weight file or a dtype the GPU handles badly; run `wanreel doctor`."


class ExportFailed(GenerationError):
    """The frames exist but could not be written as a video."""

    code = "export_failed"
    retryable = True


class CheckpointError(WanreelError):
    """A checkpoint is corrupt, truncated, of another job, or of a newer format."""

    code = "bad_checkpoint"


class RemoteError(WanreelError):
    """Another server can't be reached, or answers what it should not."""

    code = "remote_error"
    retryable = True


class StorageUnavailable(RemoteError):
    """Object storage can't be reached, answers with a fault of its own, or asks to come back later."""

    code = "storage_unavailable"


class StorageRefused(RemoteError):
    """Object storage does not know the keys or the bucket, or does not allow the request."""

    code = "storage_refused"
    retryable = False


class StorageDamaged(RemoteError):
    """What lies in object storage, or came from there, is not what was put there."""

    code = "storage_damaged"


class JobError(WanreelError):
    """Something about the queue."""

    code = "job_error"


class JobNotFound(JobError):
    """No job has this id."""

    code = "job_not_found"


class GroupNotFound(JobError):
    """No group of jobs has this id: no storyboard, no sweep."""

    code = "group_not_found"


class IllegalTransition(JobError):
    """The state the job is in does not allow what was asked."""

    code = "illegal_transition"


class QueueFull(JobError):
    """The queue is at its limit. `retry_after` is in seconds, from the speed measured."""

    code = "queue_full"
    retryable = True

    def __init__(self, message: str, *, retry_after: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class IdempotencyConflict(JobError):
    """The idempotency key was used before, with another request."""

    code = "idempotency_conflict"
    default_hint = "Use a new key for a new request."


class LeaseLost(JobError):
    """Another worker owns the job now, or the job ended meanwhile: this worker's result must not count."""

    code = "lease_lost"


class PoisonJob(JobError):
    """The job failed on every attempt it was allowed."""

    code = "poison"


class JobTimeout(JobError):
    """The job ran past its time limit."""

    code = "timeout"


class StoreError(JobError):
    """The job database can't be used as it is: corrupt, newer than this program, or on an unfit file system."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The server of the job database can't be reached now, or is held by others; what is accepted stays accepted."""

    code = "store_unavailable"
    retryable = True
    default_hint = "Look whether the database server runs; work goes on by itself when it is back."


def error_of_code(code: str) -> type[WanreelError] | None:
    """The class whose `code` this is; None for a code that is none of ours."""
    waiting: list[type[WanreelError]] = [WanreelError]
    while waiting:
        kind = waiting.pop()
        if kind.code == code:
            return kind
        waiting.extend(kind.__subclasses__())
    return None
