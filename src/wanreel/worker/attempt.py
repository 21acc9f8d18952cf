"""Attempt: one time that this worker holds one job, from claim to record. Knows nothing of queues or processes.

Whatever happens, exactly one end is recorded, and only the files of a completed attempt stay.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

from wanreel.core import events
from wanreel.core.drawing import Drawing
from wanreel.core.errors import (
    Cancelled,
    DeviceFault,
    GenerationError,
    InsufficientStorage,
    InvalidRequest,
    JobNotFound,
    JobTimeout,
    LeaseLost,
    OutOfMemory,
    StorageUnavailable,
    StoreError,
    WanreelError,
)
from wanreel.core.events import Event, Turn
from wanreel.core.job import ArtifactRef, Job, JobFailure
from wanreel.core.media_types import media_type_of
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.video import Video
from wanreel.core.work import Work
from wanreel.jobs import JobStore
from wanreel.service import checkpoints_of, remove_tree, same_generation, wants_less, work_of
from wanreel.storage.durable import write_durably
from wanreel.worker.courier import Courier
from wanreel.worker.extending import joined_to_source
from wanreel.worker.files import discard, keep_latents, stem_of
from wanreel.worker.keeper import Keeper
from wanreel.worker.report import Report
from wanreel.worker.task import Task
from wanreel.worker.weights import hashes_of_work
from wanreel.worker.workshop import Workshop

_log = logging.getLogger(__name__)


class Ending(enum.Enum):
    """What the worker does after an attempt."""

    GO_ON = enum.auto()
    IDLE = enum.auto()  #: there was no job
    WAIT = enum.auto()  #: the machine can't take this job now
    REPLACE = enum.auto()  #: this process may be damaged: leave, and let another one go on


#: An attempt that runs: the turns that it waits for, and None at each other event; at last how it ended.
Running = Generator[Turn | None, None, Ending]


class Attempt:
    """One claimed job. `perform` runs it to its recorded end; `running` does so as far as its caller goes on."""

    def __init__(self, shop: Workshop, job: Job) -> None:
        self.job = job
        self.keeper = Keeper(shop.store.leases, job, job.time_limit or math.inf, clock=shop.clock)
        self._shop = shop
        self._reserve = shop.reserve.of(job.id)
        self._leases = shop.store.leases
        self._hit = shop.failpoints.hit
        self._courier = Courier(shop.states, job.id)
        self._report = Report(shop, job, self.keeper, self._courier, self._reserve)

    @property
    def plan(self) -> str:
        """Under which it runs, as `str(Placement)`."""
        return self._report.plan

    def perform(self) -> Ending:
        """Render the job and record what became of it. Raises StoreError when that can't be recorded."""
        running = self.running()
        while True:
            try:
                next(running)
            except StopIteration as end:
                return end.value

    def wait(self, turn: Turn) -> None:
        """Others go first. To be called where `running` has yielded a turn, and then `go_on` before it is asked again."""
        self.keeper.rest()
        self._report.stopwatch.wait()
        self._recorded(lambda: self._leases.wait(self.job.id, self.job.attempt, turn.part))

    def go_on(self, turn: Turn) -> None:
        """It is this one's turn, or it is to stop."""
        self._report.stopwatch.go_on()
        self.keeper.go_on()
        stage = self.keeper.pace.stage
        self._recorded(lambda: self._leases.go_on(self.job.id, self.job.attempt, turn.part, stage))

    def _recorded(self, record: Callable[[], None]) -> None:
        """A lease that is lost stops the work; a full disk loses the word alone."""
        try:
            record()
        except LeaseLost:
            self.keeper.token.cancel("lease_lost")
        except InsufficientStorage as error:
            _log.warning("job %s: %s", self.job.id, error)

    def running(self) -> Running:
        """The same, standing still at each event."""
        _log.info("job %s: attempt %d begins", self.job.id, self.job.attempt)
        self._hit("attempt.claimed")
        for number in range(1, self.job.attempt):
            discard_attempt(self._shop.store, self._shop.results, self.job.evolve(attempt=number))
        try:
            with self._report.preview, self._courier:
                return (yield from self._perform())
        except LeaseLost as error:
            _log.warning("%s", error)
            self._discard()
            return Ending.GO_ON

    def _perform(self) -> Running:
        try:
            self._complete(*(yield from self._render()))
        except Cancelled:
            return self._stopped()
        except (InsufficientStorage, StorageUnavailable) as error:
            return self._wait(error)
        except (LeaseLost, StoreError):
            raise
        except WanreelError as error:
            return self._fail(error, retryable=error.retryable)
        except MemoryError:
            return self._fail(OutOfMemory("The machine ran out of memory."), retryable=True)
        except Exception as error:  # noqa: BLE001 - one job's fault must not end the others: it is recorded whole
            _log.exception("job %s: a fault in Wanreel", self.job.id)
            said = f"{type(error).__name__}: a fault in Wanreel; the worker's log has the details."
            self._fail(GenerationError(said), retryable=False)
            return Ending.REPLACE
        return Ending.GO_ON

    # Running

    def _render(self) -> Generator[Turn | None, None, tuple[Video | Drawing, tuple[ArtifactRef, ...]]]:
        reserve = self._reserve
        with self.keeper:
            try:
                self.job, notes = self._shop.taking.bound(self.job)
                self._report.note(notes)
                task = self._task()
                self._report.begin(task)
                again = self.job.attempt > 1
                self._report.note(self._courier.bring(task.checkpoints, again=again, cancel=self.keeper.token))
                reserve.hold(task.request, task.spec, self._shop.keep_free)
                result = yield from self._follow(task)
                return result, self._files(task, result)
            finally:
                reserve.release()

    def _task(self) -> Task:
        request = work_of(self.job)
        work = self.job.id
        saves = self._shop.checkpoints and isinstance(request, ResolvedRequest)
        if self.job.parent_id is not None and self._shares_latents(request, self.job.parent_id):
            work = self.job.parent_id
        return Task(
            work=work,
            request=request,
            spec=self._shop.spec_of(request.model),
            results=self._shop.results,
            stem=stem_of(self.job, request.prompt),
            checkpoints=checkpoints_of(self._shop.data, work) if saves else None,
            keeper=self.keeper,
            handoffs=self._shop.taking.wanted(self.job),
        )

    def _shares_latents(self, request: Work, parent_id: str) -> bool:
        try:
            return same_generation(request, work_of(self._shop.store.get(parent_id)))
        except (JobNotFound, InvalidRequest):
            return False

    def _follow(self, task: Task) -> Generator[Turn | None, None, Video | Drawing]:
        """Runs the generation, recording its events, until the result is there."""
        running = self._shop.render(task)
        with contextlib.closing(cast("Generator[Event]", running)):
            for event in running:
                if isinstance(event, events.Completed):
                    return event.video
                if isinstance(event, events.Drawn):
                    return event.drawing
                self._report.see(event)
                yield event if isinstance(event, Turn) else None
        raise GenerationError("The generation ended without a result.")

    # Ending

    def _files(self, task: Task, result: Video | Drawing) -> tuple[ArtifactRef, ...]:
        """The result as the record names it, with a manifest beside it. Everything is on disk when this returns."""
        self._hit("attempt.rendered")
        weights = hashes_of_work(task.request, lambda name: self._shop.weights_of(self._shop.spec_of(name)))
        manifest = self._report.findings.manifest(task.request, weights, result).to_json().encode()
        path = result.path.with_suffix(".json")
        write_durably(path, manifest)
        (main, _), *others = result.files().items()
        files = [ArtifactRef(main, result.path.name, result.sha256, result.size_bytes, media_type_of(result.path))]
        for kind, other in (*others, ("manifest", path)):
            data = other.read_bytes()
            files.append(
                ArtifactRef(kind, other.name, hashlib.sha256(data).hexdigest(), len(data), media_type_of(other))
            )
        if isinstance(result, Video):
            store, results = self._shop.store, self._shop.results
            more, notes = joined_to_source(store, results, self.job, result, self.keeper.token)
            self._report.note(notes)
            files += more
        self._shop.taking.leave(self.job, files)
        return tuple(files)

    def _complete(self, result: Video | Drawing, files: tuple[ArtifactRef, ...]) -> None:
        self._hit("attempt.before_complete")
        self._leases.complete(self.job.id, self.job.attempt, result.sha256, files, seconds=self.keeper.seconds)
        self._hit("attempt.after_complete")
        _log.info("job %s: completed in %.1f s, %s", self.job.id, self.keeper.seconds, result.path.name)
        keep_latents(checkpoints_of(self._shop.data, self.job.id))
        self._courier.forget()
        self._hit("attempt.cleaned")

    def _stopped(self) -> Ending:
        """The work stopped because somebody asked."""
        self._discard()
        reason = self.keeper.token.reason or self._report.left
        if reason == "drain":
            self._give_back("drain")
        elif reason == "timeout":
            return self._fail(JobTimeout(f"The job ran past its limit of {self.job.time_limit:g} s."), retryable=False)
        elif reason != "lease_lost":
            self._leases.confirm_cancel(self.job.id, self.job.attempt, seconds=self.keeper.seconds)
            self._courier.forget()
            remove_tree(checkpoints_of(self._shop.data, self.job.id))
        _log.info("job %s: stopped (%s)", self.job.id, reason or "cancelled")
        return Ending.GO_ON

    def _wait(self, error: WanreelError) -> Ending:
        """The disk is too full for this job now, or its pictures can't be fetched: it goes back blameless."""
        _log.warning("job %s: %s", self.job.id, error)
        self._discard()
        self._give_back(error.code)
        return Ending.WAIT

    def _give_back(self, reason: str) -> None:
        """Another worker may take it at once, so what this one saved is shared first."""
        self._courier.settle()
        self._report.note(self._courier.troubles())
        if self._leases.requeue(self.job.id, self.job.attempt, reason, seconds=self.keeper.seconds).ended:
            self._courier.forget()

    def _fail(self, error: WanreelError, *, retryable: bool) -> Ending:
        """Checkpoints stay, so that a retry goes on from them."""
        _log.warning("job %s: %s: %s", self.job.id, error.code, error)
        self._discard()
        failure, seconds = JobFailure.of(error), self.keeper.seconds
        # No plan was left, so the same again would fail again.
        reducing = isinstance(error, OutOfMemory) and wants_less(self.job)
        retryable = retryable and not reducing
        if retryable:
            self._courier.settle()
        failed = self._leases.fail(self.job.id, self.job.attempt, failure, retryable=retryable, seconds=seconds)
        if failed.ended:
            self._courier.forget()
        if reducing and not failed.cancel_requested:
            self._shop.reduce(self.job.id)
        return Ending.REPLACE if isinstance(error, DeviceFault) else Ending.GO_ON

    def _discard(self) -> None:
        discard_attempt(self._shop.store, self._shop.results, self.job)


def discard_attempt(store: JobStore, results: Path, job: Job) -> None:
    """Delete the files of an attempt that did not complete. A result that is on record is never touched."""
    try:
        stem = stem_of(job, work_of(job).prompt)
    except InvalidRequest:
        return  # an attempt at a request that can't be read wrote nothing
    discard(results, stem, (file.name for file in store.artifacts(job.id)))
