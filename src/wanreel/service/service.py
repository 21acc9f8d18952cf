"""Service: what every front door can ask of the queue. Knows nothing of who renders, and imports no torch.

What `submit` returned is on disk and will run, here or after a restart.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from wanreel.core.changes import changed_request
from wanreel.core.data_directory import DataDirectory
from wanreel.core.errors import IllegalTransition, InvalidRequest, JobNotFound, OutOfMemory
from wanreel.core.finishing import EXPORT_KNOBS
from wanreel.core.group import After
from wanreel.core.job import (
    ArtifactRef,
    Attempt,
    Job,
    JobEvent,
    JobStatus,
    NewJob,
    QueueState,
    Standing,
)
from wanreel.core.picture_request import PictureRequest
from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Adjustment, Resolution
from wanreel.core.smaller import changes_between, smaller
from wanreel.core.upload import UploadTo
from wanreel.core.work import AnyResolution, Work
from wanreel.jobs import JobStore
from wanreel.service.bell import ring
from wanreel.service.estimate import Estimator
from wanreel.service.stored import adapters_of, blobs_of, json_text, request_of, text_of, work_of
from wanreel.service.watching import Watching

if TYPE_CHECKING:
    from wanreel.storage.shared import Shared


def _no_pictures(request: PictureRequest) -> PictureResolution:
    raise InvalidRequest.of("mode", "unsupported", "no pictures are made here.")


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a job is accepted."""

    owner: str = ""  #: owners take turns
    priority: int = 0  #: higher goes first
    idempotency_key: str | None = None  #: the same key again means the same job, not another one
    time_limit: float | None = None  #: seconds one attempt may run; never more than the operator allows
    parent_id: str | None = None  #: the job whose latents it may use
    webhook_url: str = ""  #: who is told of its end; the operator's address by default
    upload_to: UploadTo | None = None  #: storage of the request's own, in the place of a profile
    notes: tuple[str, ...] = ()  #: that the job carries from the start
    after: tuple[After, ...] = ()  #: jobs that must have completed before, and what is taken of them


@dataclass
class Service:
    """The queue as front doors see it. Safe to use from several threads; close it to end its watchers."""

    store: JobStore
    resolve: Callable[[VideoRequest], Resolution]  #: raises InvalidRequest or ModelError
    data: DataDirectory
    results: Path  #: where videos lie
    time_limit: float  #: seconds one attempt may run, unless the job says less
    same_weights: Callable[[Path], bool]  #: whether the weights named in this manifest are the ones here now
    resolve_picture: Callable[[PictureRequest], PictureResolution] = _no_pictures  #: the same as `resolve` for pictures
    webhook_url: str = ""  #: told of every job whose terms name nobody
    gpu_price_per_hour: float | None = None  #: costs are told where it is set
    shared: Shared | None = None  #: where workers on other machines find pictures and saved states
    estimator: Estimator = field(init=False, repr=False)
    _watching: Watching = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.estimator = Estimator(self.store)
        self._watching = Watching(self.store)

    def close(self) -> None:
        self._watching.close()
        self.store.close()

    # Handing in

    def submit(self, request: VideoRequest, terms: Terms | None = None, *, reuse: bool = False) -> Job:
        """Resolve and accept a request. Raises InvalidRequest, ModelError, QueueFull, IdempotencyConflict.

        `reuse` gives the job of an equal request that completed already, if there is one: same resolved values, seed
        and weights.
        """
        resolution = self.resolve(request)
        if reuse and (done := self.equal_job(resolution)) is not None:
            return done
        return self.enqueue(resolution, terms, body=json_text(asdict(request)))

    def submit_picture(self, request: PictureRequest, terms: Terms | None = None) -> Job:
        """The same for pictures, which are never taken from an earlier job."""
        return self.enqueue(self.resolve_picture(request), terms, body=json_text(asdict(request)))

    def enqueue(self, resolution: AnyResolution, terms: Terms | None = None, *, body: str | None = None) -> Job:
        """Accept what was resolved already. `body` is what the client sent, for the idempotency key.

        Raises StorageUnavailable where its pictures can't be put where workers on other machines find them.
        """
        terms = terms or Terms()
        new = self.job_of(resolution, terms)
        new = replace(
            new,
            parent_id=terms.parent_id,
            webhook_url=terms.webhook_url or self.webhook_url,
            upload_to=terms.upload_to or new.upload_to,
            notes=terms.notes,
            after=terms.after,
        )
        job = self.store.enqueue(new, idempotency_key=terms.idempotency_key, body=body)
        if terms.upload_to is not None and terms.idempotency_key is not None:
            # The job may be an earlier one, whose keys are gone.
            self.store.uploads.hand_keys(job.id, terms.upload_to)
        ring(self.data.workers)
        return job

    def job_of(self, resolution: AnyResolution, terms: Terms) -> NewJob:
        """A job of what was resolved, with its pictures where workers find them. Raises StorageUnavailable."""
        request = resolution.request
        self._share(request)
        return NewJob(
            request=text_of(request),
            model=resolution.spec.name,
            owner=terms.owner,
            priority=terms.priority,
            time_limit=min(terms.time_limit or self.time_limit, self.time_limit),
            mode=request.mode,
            prompt=request.prompt,
            upload_to=_profile_of(resolution),
            adapters=adapters_of(request),
        )

    def _share(self, work: Work) -> None:
        """Before a worker may get it. Raises StorageUnavailable."""
        if self.shared is not None:
            for sha256 in blobs_of(work):
                self.shared.pictures.share(sha256)

    def equal_job(self, resolution: Resolution) -> Job | None:
        """A completed job of this very request whose video is still there and whose weights have not changed."""
        job = self.store.find_completed(text_of(resolution.request))
        if job is None:
            return None
        files = self.files(job.id)
        manifest = files.get("manifest")
        whole = all((self.results / file.name).is_file() for file in files.values())
        return job if whole and manifest is not None and self.same_weights(self.results / manifest.name) else None

    def reexport(self, job_id: str, changes: Mapping[str, object]) -> Job:
        """Queue a job that writes a finished one's video again, from its latents and without denoising.

        `changes` to EXPORT_KNOBS alone. Raises IllegalTransition where the job has not completed or its latents were
        deleted, and InvalidRequest.
        """
        other = sorted(set(changes) - set(EXPORT_KNOBS))
        if other:
            text = "changes what is generated, and not how it is written."
            raise InvalidRequest.of(other[0], "unsupported", text, f"Give {', '.join(EXPORT_KNOBS)}.")
        if wrong := VideoRequest(**cast("Any", {"prompt": "-", **changes})).problems():
            raise InvalidRequest(*wrong)
        job = self.store.get(job_id)
        if job.status is not JobStatus.COMPLETED:
            raise IllegalTransition(
                f"Job {job_id} is {job.status.replace('_', ' ')}, so there is nothing to export again."
            )
        # A video that was itself exported again has its latents where the first one has them.
        source = job.parent_id if job.parent_id and not self.checkpoints(job_id).is_dir() else job_id
        if not self.checkpoints(source).is_dir():
            raise IllegalTransition(
                f"The latents of job {job_id} were deleted.",
                hint="Submit it again: the same seed gives the same video.",
            )
        resolution = self.resolve(replace(request_of(job).as_request(), **cast("Any", dict(changes))))
        resolution = replace(resolution, storage=self.store.uploads.profile_of(job_id))
        return self.enqueue(resolution, Terms(owner=job.owner, priority=job.priority, parent_id=source))

    # Looking up

    def get(self, job_id: str) -> Job:
        """The job. Raises JobNotFound."""
        return self.store.get(job_id)

    def list(
        self, *, owner: str | None = None, status: JobStatus | None = None, after: str | None = None, limit: int = 20
    ) -> tuple[Job, ...]:
        """Jobs, newest first; `after` is the last id of the page before."""
        return self.store.list(owner=owner, status=status, after=after, limit=limit)

    def standing(self, job_id: str) -> Standing | None:
        """Place in line and predicted start; None when the job is not queued."""
        return self.estimator.standing(job_id)

    def attempts(self, job_id: str) -> tuple[Attempt, ...]:
        return self.store.attempts(job_id)

    def cost(self, seconds: float | None) -> float | None:
        """What so much of a worker's time costs; None without a price or without a time."""
        if seconds is None or self.gpu_price_per_hour is None:
            return None
        return round(seconds * self.gpu_price_per_hour / 3600.0, 6)

    def cost_of(self, job: Job) -> float | None:
        """What an ended job cost, by the measured seconds of all its attempts."""
        if self.gpu_price_per_hour is None or not job.ended:
            return None
        seconds = [attempt.seconds for attempt in self.attempts(job.id) if attempt.seconds is not None]
        return self.cost(sum(seconds)) if seconds else None

    def files(self, job_id: str) -> dict[str, ArtifactRef]:
        """A completed job's files by kind ("video", "last_frame", "poster", "manifest"), named within `results`."""
        return {file.kind: file for file in self.store.artifacts(job_id)}

    def checkpoints(self, job_id: str) -> Path:
        """Where the job's saved states and latents lie, if there are any."""
        return checkpoints_of(self.data, job_id)

    def preview(self, job_id: str) -> Path | None:
        """The running job's newest preview, a file that is replaced as it goes on."""
        path = self.data.previews / f"{job_id}.webp"
        return path if path.is_file() else None

    def open_video(self, job_id: str) -> BinaryIO:
        """The video of a completed job, to be read and closed. Raises IllegalTransition, JobNotFound."""
        job = self.store.get(job_id)
        video = self.files(job_id).get("video")
        if video is None:
            raise IllegalTransition(f"Job {job_id} is {job.status.replace('_', ' ')}, so it has no video.")
        try:
            return (self.results / video.name).open("rb")
        except FileNotFoundError as exc:
            raise JobNotFound(f"The video of job {job_id} was deleted.") from exc

    def watch(self, job_id: str, *, after: int = 0) -> Iterator[JobEvent]:
        """The job's events with a seq above `after`, then new ones as they come, until the job has ended.

        Step events stand for all before them, so seq has gaps. Raises JobNotFound, also when the job is deleted.
        """
        return self._watching.follow(job_id, after)

    # Changing

    def cancel(self, job_id: str) -> Job:
        """Stop a job: a queued one at once, a running one within a step. Raises IllegalTransition when it has ended."""
        job = self.store.cancel(job_id)
        if job.ended:
            self._remove_states(job)
        return job

    def retry(self, job_id: str, changes: Mapping[str, object] | None = None) -> Job:
        """Queue a failed or cancelled job again. It goes on from its last checkpoint if there is one.

        With `changes` to its knobs it begins anew as another request: what failed mostly fails again unchanged.
        """
        changed, storage = None, None
        if changes:
            resolution = self._changed(job_id, changes)
            request, storage = resolution.request, resolution.storage if "storage" in changes else None
            changed = NewJob(
                text_of(request),
                resolution.spec.name,
                mode=request.mode,
                prompt=request.prompt,
                adapters=adapters_of(request),
            )
            self._share(request)
        elif self.shared is not None:
            self._share(work_of(self.store.get(job_id)))
        job = self.store.retry(job_id, changed)
        if storage is not None:
            self.store.uploads.redirect(job_id, storage)
        ring(self.data.workers)
        return job

    def reduce(self, job_id: str) -> tuple[Job, tuple[Adjustment, ...]]:
        """Queue a smaller job in the place of one that ran out of memory, linked to it, and say all that differs.

        The failed job stays as it is. Raises IllegalTransition where memory was not why, or nothing smaller is left.
        """
        resolution, changes = self.reduced(job_id)
        job = self.store.get(job_id)
        notes = tuple(str(change) for change in changes)
        terms = Terms(
            job.owner,
            job.priority,
            time_limit=job.time_limit,
            parent_id=job_id,
            webhook_url=self.store.outbox.address_of(job_id),
            notes=notes,
        )
        return self.enqueue(resolution, terms), changes

    def reduced(self, job_id: str) -> tuple[Resolution, tuple[Adjustment, ...]]:
        """What `reduce` would queue, and all that differs. Queues nothing; raises as it does."""
        job = self.store.get(job_id)
        if job.status is not JobStatus.FAILED or job.error is None or job.error.code != OutOfMemory.code:
            raise IllegalTransition(f"Job {job_id} did not run out of memory, so it is not reduced.")
        before = request_of(job)
        knobs = smaller(before, self.resolve(before.as_request()).spec)
        if not knobs:
            raise IllegalTransition(
                f"Job {job_id} is as small as its model allows.",
                hint="Take a smaller model, or allow quantised weights.",
            )
        resolution = replace(self._changed(job_id, knobs), storage=self.store.uploads.profile_of(job_id))
        return resolution, changes_between(before, resolution.request, "memory ran out")

    def edit(self, job_id: str, changes: Mapping[str, object]) -> Resolution:
        """Change knobs of a queued job, which keeps its place. Raises InvalidRequest, IllegalTransition."""
        resolution = self._changed(job_id, changes)
        request = resolution.request
        self._share(request)
        changed = {"mode": request.mode, "prompt": request.prompt, "adapters": adapters_of(request)}
        self.store.edit(job_id, text_of(request), resolution.spec.name, **changed)
        if "storage" in changes:
            self.store.uploads.redirect(job_id, resolution.storage)
        return resolution

    def _changed(self, job_id: str, changes: Mapping[str, object]) -> Resolution:
        """The job's request with other knobs."""
        kept = request_of(self.store.get(job_id)).as_request()
        return self.resolve(changed_request(kept, changes))

    def move(self, job_id: str, *, before: str | None = None, priority: int | None = None) -> Job:
        """Put a queued job before another one, or at the end of the line, or give it another priority."""
        if priority is not None:
            return self.store.set_priority(job_id, priority)
        return self.store.move(job_id, before=before)

    def delete(self, job_id: str) -> None:
        """Forget a job that does not run, and delete its files."""
        job = self.store.get(job_id)
        files = self.store.delete(job_id)
        self._remove_states(job)
        self.forget_files(job_id, files)

    def forget_files(self, job_id: str, files: Iterable[ArtifactRef]) -> None:
        """Delete what a job that was forgotten left."""
        for file in files:
            (self.results / file.name).unlink(missing_ok=True)
        remove_tree(self.checkpoints(job_id))

    def _remove_states(self, job: Job) -> None:
        remove_tree(self.checkpoints(job.id))
        # Of one that a worker ended, nothing is left there.
        if self.shared is not None and job.attempt and job.status in (JobStatus.QUEUED, JobStatus.CANCELLED):
            self.shared.states.forget(job.id)

    # The queue

    def queue(self) -> QueueState:
        return self.store.queue()

    def pause(self, reason: str = "paused by hand") -> QueueState:
        """Let no worker take another job. Running ones go on, new ones are accepted."""
        return self.store.pause(reason)

    def resume(self) -> QueueState:
        """Undo any pause."""
        state = self.store.resume()
        ring(self.data.workers)
        return state


def _profile_of(resolution: AnyResolution) -> UploadTo | None:
    """Where the result goes. Pictures stay here: they are steps on the way to a video."""
    storage = resolution.storage if isinstance(resolution, Resolution) else ""
    return UploadTo(storage) if storage else None


def checkpoints_of(data: DataDirectory, job_id: str) -> Path:
    """The folder of a job's saved states."""
    return data.checkpoints / job_id


def remove_tree(folder: Path) -> None:
    """Delete a folder that may not be there. What is in use elsewhere stays for the next sweep."""
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
