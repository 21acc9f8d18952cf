"""Worker: claim, render, record, until somebody asks to stop. Knows nothing of models.

One process, one device, one job at a time, or several in turn (see `batch`). Its life is a lock that the kernel releases
when it dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import InsufficientStorage, InvalidRequest, WanreelError
from wanreel.core.job import Job, JobFailure, QueueState, Warm
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.upload import UNFINISHED
from wanreel.core.workload import Workload
from wanreel.host import FileLock
from wanreel.jobs import JobStore, Liveness, signals
from wanreel.jobs.policy import COURTESY
from wanreel.service import adapters_of, work_of
from wanreel.service.bell import Bell, sweep_bells
from wanreel.worker.attempt import Ending
from wanreel.worker.batch import Batch, Trace
from wanreel.worker.calls import Calls
from wanreel.worker.orders import Orders
from wanreel.worker.recovery import take_back
from wanreel.worker.retention import Retention
from wanreel.worker.sampling import Probe, Sampler
from wanreel.worker.space import needed_bytes, sweep
from wanreel.worker.workshop import Workshop

_log = logging.getLogger(__name__)

REPLACE = 85  #: exit code: this process may be damaged, start another one
_REST = {
    Ending.IDLE: 1.0,  # seconds between looks for work, in case that a ring was lost
    Ending.WAIT: 30.0,  # seconds before a job that the disk could not take is tried again
}
_IDLE_SHARED = 5.0  # the same where the store announces jobs: many workers that look would cost it more than the jobs
_POLL_DEVICE = 1.0  # seconds between looks whether the GPU is free
_SEE_OFF, _POLL_UPLOADS = 300.0, 0.5  # seconds that retiring waits for uploads, and between looks at them
_NEWEST = 50
_HOUSEKEEPING = 2.0  # seconds between looks for dead workers and at the disk


_nothing = contextlib.nullcontext[None]


def _untraced(_job: Job, _store: JobStore) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Life:
    """A worker's name and the lock that shows it lives."""

    name: str
    lock: FileLock
    folder: Path  #: of locks and bells
    liveness: Liveness
    gpus: tuple[FileLock, ...] = ()  #: each of which one worker has for itself

    @classmethod
    def begin(cls, folder: Path, labels: Sequence[str], liveness: Liveness | None = None) -> Life:
        """`labels`: "cpu", "cuda-0", one for each device; the worker is named after the first."""
        liveness = liveness or Liveness(folder)
        name, lock = liveness.new_worker(labels[0])
        gpus = sorted({label for label in labels if label.startswith("cuda-")})
        return cls(name, lock, folder, liveness, tuple(FileLock(folder / f"{label}.device") for label in gpus))

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.lock.path.unlink(missing_ok=True)
        self.lock.release()


class Worker:
    """Runs jobs of one store on one device. `stop` may be called from a signal handler."""

    def __init__(
        self,
        life: Life,
        shop: Workshop,
        retention: Retention,
        *,
        description: str = "",
        supervised: bool = False,
        abandon: Callable[[int], object] = os._exit,
    ) -> None:
        self.name = life.name
        self._life = life
        self._shop = shop
        self._retention = retention
        self._description = description
        self._abandon = abandon
        self.trace: Trace = _untraced
        self._asked_to_stop = 0
        self._retiring = False
        self._made: list[str] = []  # the newest jobs, whose results may still be on their way
        self._batch: Batch | None = None
        self._bell: Bell | None = None
        self._calls = Calls(self._suits)
        self._was_called = False  # for a job for which it has waited its time
        self._adapters = ""  # of the last job
        self._in_company = False  # whether other workers are on the list
        self._looked = -_HOUSEKEEPING
        self._orders = Orders(life.folder)
        newest = self._orders.newest()
        self._obeyed = newest.number if newest is not None else 0
        # A supervisor that was killed can't stop its workers, so they look whether it is still there.
        self._supervisor = os.getppid() if supervised else None

    def run(self, *, once: bool = False) -> int:
        """Work until asked to stop, or with `once` until the queue is empty. Returns the exit code of the process.

        Raises StoreError when the database can't be used.
        """
        with self._alone_on_device(), self._alive():
            self._warm_up()
            while not self._asked_to_stop and not self._retiring:
                self._keep_house()
                ending = self._next()
                if ending is Ending.REPLACE:
                    return REPLACE
                if once and ending in _REST:
                    break
                self._rest(self._pause_after(ending))
            if once and self._shop.uploader is not None:
                self._shop.uploader.finish()
            if self._retiring:
                self._see_off()
        return 0

    def _warm_up(self) -> None:
        """A model that can't be loaded ahead is no reason not to work: its jobs will say why."""
        try:
            self._shop.warm_up()
        except WanreelError as error:
            _log.warning("no model was loaded ahead: %s", error)

    def _see_off(self) -> None:
        """Whoever retires may be the last on its machine, so results that lie there alone still go to storage."""
        until = time.monotonic() + _SEE_OFF
        while self._made and time.monotonic() < until and not self._asked_to_stop:
            reports = self._shop.store.uploads.reports(self._made)
            self._made = [job_id for job_id, report in reports.items() if report.state in UNFINISHED]
            if self._made:
                time.sleep(_POLL_UPLOADS)

    def _next(self) -> Ending:
        """Make what groups are waiting for, and run the next job if there is one."""
        gatherer = self._shop.gatherer
        gathered = gatherer is not None and not self._asked_to_stop and gatherer.gather(self.name)
        job = self._take()
        if gathered and job is None:
            return Ending.GO_ON  # there may be more of it
        return Ending.IDLE if job is None else self._perform(job)

    def stop(self, signal_name: str = "") -> None:
        """Finish the step, save it, give the job back and leave. Asked again: leave at once."""
        self._asked_to_stop += 1
        if self._asked_to_stop > 1:
            self._abandon(128 + 15)
        if self._shop.gatherer is not None:
            self._shop.gatherer.stop()
        if self._batch is not None:
            self._batch.drain()
        if self._bell is not None:
            self._bell.wake()

    def retire(self) -> None:
        """Take no further job, and leave when the running one is done."""
        self._retiring = True
        if self._bell is not None:
            self._bell.wake()

    @property
    def job(self) -> Job | None:
        """What it runs now."""
        batch = self._batch
        return None if batch is None else batch.job

    @contextlib.contextmanager
    def _alone_on_device(self) -> Generator[None]:
        """While its GPUs are this worker's. Waits for one that is just leaving; a CPU is shared."""
        for lock in self._life.gpus:
            while not lock.acquire() and not self._asked_to_stop:
                _log.info("waiting for another worker to leave the device")
                time.sleep(_POLL_DEVICE)
        try:
            yield
        finally:
            for lock in self._life.gpus:
                lock.release()

    def _pause_after(self, ending: Ending) -> float:
        if ending is Ending.IDLE and self._shop.store.shared:
            return _IDLE_SHARED
        return _REST.get(ending, 0.0)

    def _rest(self, seconds: float) -> None:
        """Until the time is over, somebody rings, or it is this worker's time to look for a job that was called out."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and (bell := self._bell) is not None:
            if self._asked_to_stop or self._retiring:
                return
            rung = bell.wait(min(left, self._calls.left()))
            self._was_called = self._calls.left() <= 0.0
            if self._was_called or (rung and not self._calls.had_news()):
                return

    @contextlib.contextmanager
    def _alive(self) -> Generator[None]:
        """On the list of workers, while the lock is held."""
        leases = self._shop.store.leases
        try:
            leases.register(self.name, self._description)
            uploader = self._shop.uploader or _nothing()
            with Bell(self._life.folder, self.name) as self._bell, self._sampler(), uploader, self._heard():
                yield
            leases.unregister(self.name)
        finally:
            self._bell = None
            self._life.end()

    @contextlib.contextmanager
    def _heard(self) -> Generator[None]:
        """Where the store is shared: others hear that this worker lives, and it hears of jobs and orders."""
        calls = {signals.LINE: self._ring, signals.ORDERS: self._told}
        with self._life.liveness.keeping(self.name, self._description), self._shop.store.listening(calls):
            yield

    def _ring(self, word: str) -> None:
        if self._calls.heard(word) and (bell := self._bell) is not None:
            bell.wake()

    def _suits(self, model: str, adapters: str) -> bool | None:
        """Whether it holds what a job needs; None where it does not make such jobs."""
        if self._shop.only and model not in self._shop.only:
            return None
        return model in self._shop.all_held() and adapters == self._adapters

    def _told(self, name: str) -> None:
        if name in ("", self.name) and (batch := self._batch) is not None:
            batch.hurry()

    def _sampler(self) -> Sampler:
        shop = self._shop
        probe = Probe(shop.data.root, self._description, shop.held)
        return Sampler(probe, lambda sample: shop.store.leases.report(self.name, sample), shop.sample_seconds)

    def _take(self) -> Job | None:
        """The next job. Where there are other workers, those that hold its model have a moment to take it: loading takes
        longer."""
        called, self._was_called = self._was_called, False
        self._calls.listen()
        leases = self._shop.store.leases
        if self._shop.store.shared and not leases.may_claim(self.name, self._shop.only):
            return None  # most looks end here, of many workers
        if called or not self._in_company:
            return self._claim(self._shop.all_held())
        job = self._claim(self._shop.all_held(), lambda job: True)
        if job is None and leases.may_claim(self.name, self._shop.only) and not self._asked_to_stop:
            self._rest(COURTESY)
            job = self._claim(self._shop.all_held())
        return job

    def _claim(self, held: tuple[str, ...], alike: Callable[[Job], bool] | None = None) -> Job | None:
        """The next job by what is held, or one that fits it exactly and is `alike`."""
        if self._orphaned():
            _log.warning("the supervisor is gone; leaving")
            self._asked_to_stop += 1
            return None
        try:
            if self._watch_disk().paused:
                return None
            job = self._shop.store.leases.claim(self.name, Warm(held, self._adapters), self._shop.only, alike)
            if job is not None:
                self._made = [*self._made, job.id][-_NEWEST:]
            return job
        except InsufficientStorage as error:
            _log.warning("%s", error)
            return None

    def _more(self, first: Job) -> Job | None:
        """Another job of the kind of the first one."""
        if self._asked_to_stop or self._retiring or (kind := self._workload(first)) is None:
            return None
        return self._claim((first.model,), lambda job: self._workload(job) == kind)

    def _workload(self, job: Job) -> Workload | None:
        """What a video asks of the machine; None for pictures, and where the attempt will say that it can't be told."""
        try:
            request = work_of(job)
            spec = self._shop.spec_of(request.model)
        except InvalidRequest:
            return None
        if isinstance(request, ResolvedRequest) and isinstance(spec, ModelSpec):
            return Workload.of(spec, request)
        return None

    def _perform(self, job: Job) -> Ending:
        self._calls.stop()
        self._batch = Batch(self._shop, self.trace, self._more)
        self._adapters = _adapters_of(job)
        if self._asked_to_stop:
            self._batch.drain()
        try:
            return self._batch.perform(job)
        finally:
            self._batch = None

    def lost(self, fault: WanreelError) -> None:
        """This process ends though its work does not come back: record why. From any thread."""
        job = self._batch.job if self._batch is not None else None
        if job is None:
            return
        try:
            self._shop.store.leases.fail(job.id, job.attempt, JobFailure.of(fault), retryable=True)
        except WanreelError as error:
            _log.warning("job %s: its end could not be recorded: %s", job.id, error)

    def _orphaned(self) -> bool:
        """Whether the supervisor has ended. Never on Windows, where a process keeps its parent's number."""
        return self._supervisor is not None and os.getppid() != self._supervisor

    # Housekeeping

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._looked < _HOUSEKEEPING:
            return
        self._looked = now
        self.recover()
        self._in_company = self._shop.store.leases.count() > 1
        self._retention.apply()
        self._obey()

    def _obey(self) -> None:
        """Load or unload what an operator asked for since this worker last looked."""
        order = self._orders.newest()
        if order is None or order.number == self._obeyed:
            return
        self._obeyed = order.number
        try:
            self._shop.obey(order)
        except WanreelError as error:
            _log.warning("%s %s: %s", order.verb, order.model, error)

    def recover(self) -> None:
        """Put the jobs of dead workers back in line, and clear up what they left."""
        liveness = self._life.liveness
        take_back(self._shop.store, liveness, self._shop.results, self._shop.states)
        is_alive = liveness.lives_here
        for folder in (self._shop.data.checkpoints, self._shop.results):
            sweep(folder, is_alive)
        sweep_bells(self._life.folder, is_alive)

    def _watch_disk(self) -> QueueState:
        """Pause the queue while the disk can't take the job that is next in line."""
        store, keep_free = self._shop.store, self._shop.keep_free
        return store.watch_disk(keep_free + self._needed(store.queued(limit=1)))

    def _needed(self, queued: tuple[Job, ...]) -> int:
        for job in queued:
            try:
                request = work_of(job)
                return needed_bytes(request, self._shop.spec_of(request.model))
            except InvalidRequest:
                return 0  # the attempt will say so
        return 0


def _adapters_of(job: Job) -> str:
    try:
        return adapters_of(work_of(job))
    except InvalidRequest:
        return ""  # the attempt will say so
