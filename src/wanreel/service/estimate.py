"""Estimator: how long a request takes and when a queued job starts, from finished jobs alone. Says what it goes by.

A step's time grows with the tokens of the latents; so does that of decoding. From one size to another both are scaled in
proportion, which is too little for much larger ones, as attention grows faster: the basis then says so.
"""

from __future__ import annotations

import heapq
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job, JobStatus, LineMark, Standing
from wanreel.core.measures import Measures
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.sample import WorkerRecord
from wanreel.core.work import Work
from wanreel.jobs import JobStore
from wanreel.service.stored import work_in

_REMEMBER = 5.0  # seconds that history is taken to be unchanged
_LINE = 1000  # queued jobs whose start is predicted
_RUNNING = 100
_NEWEST = 20  # runs of one size that count: software and drivers change
_CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of work, None where nothing is known, and what that goes by."""

    basis: str
    load: float = 0.0  #: 0.0 when a worker holds the model
    denoise: float | None = None
    rest: float = 0.0  #: encode, decode and export

    @property
    def seconds(self) -> float | None:
        return None if self.denoise is None else self.load + self.denoise + self.rest

    def left(self, job: Job) -> float | None:
        """Seconds until a running job is done, by the steps and frames that it has behind it."""
        done = job.progress
        if self.denoise is None:
            return None
        if done.stage in ("decode", "export"):
            return self.rest * (1.0 - done.share if done.stage == "decode" else 0.0)
        share = done.step / done.total_steps if done.total_steps else 0.0
        return (self.load if done.stage == "load" else 0.0) + self.denoise * (1.0 - share) + self.rest


@dataclass(frozen=True, slots=True)
class Run:
    """One finished attempt."""

    request: Work
    measures: Measures


class Estimator:
    """Predicts from one store. Safe to use from several threads."""

    def __init__(self, store: JobStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._history: dict[str, tuple[float, tuple[Run, ...]]] = {}
        self._known: dict[str, Estimate] = {}  # by request
        self._known_of: object = None  # what these estimates were made from
        self._mark: LineMark | None = None
        self._starts: Mapping[str, float | None] = {}  # by job; "" is one that would come last

    def work(self, request: Work) -> Estimate:
        """How long a request takes on the workers that are there."""
        workers = self._store.worker_records()
        with self._lock:
            return self._work(request, workers)

    def standing(self, job_id: str) -> Standing | None:
        """Place in line and predicted start; None when the job is not queued. Raises JobNotFound."""
        place, mark = self._store.place(job_id)
        return None if place is None else Standing(place, self._predicted(mark).get(job_id))

    def next_start(self) -> float | None:
        """Seconds until a job that is handed in now would start; None while that is unknown."""
        return self._predicted(self._store.line_mark()).get("")

    def waiting(self, limit: int) -> tuple[tuple[str, float | None], ...]:
        """Model and seconds of work of the queued jobs, next one first; None where the length is unknown."""
        workers, line = self._store.worker_records(), self._store.requests_in_line(limit)
        with self._lock:
            return tuple((_model_of(request), self._of(request, workers).seconds) for _, request in line)

    def _predicted(self, mark: LineMark) -> Mapping[str, float | None]:
        """When each job starts. Made anew only when something has changed."""
        if mark.paused or not mark.workers:
            return {}
        with self._lock:
            if mark != self._mark:
                self._starts, self._mark = self._made(), mark
            return self._starts

    def _made(self) -> Mapping[str, float | None]:
        workers = self._store.worker_records()
        running = self._store.list(status=JobStatus.IN_PROGRESS, limit=_RUNNING)
        free: list[float] = [0.0] * max(0, len(workers) - len(running))
        for job in running:
            left = self._of(job.request, workers).left(job)
            if left is not None:
                free.append(left)
        heapq.heapify(free)
        line = self._store.requests_in_line(_LINE)
        starts = {job_id: self._next(request, workers, free) for job_id, request in line}
        return starts | {"": free[0] if free and len(line) < _LINE else None}

    def _next(self, request: str, workers: Sequence[WorkerRecord], free: list[float]) -> float | None:
        """When the worker that gets free first does, who takes this. One whose work is of unknown length never does."""
        if not free:
            return None
        start, seconds = free[0], self._of(request, workers).seconds
        if seconds is None:
            heapq.heappop(free)
        else:
            heapq.heapreplace(free, start + seconds)
        return start

    def _of(self, request: str, workers: Sequence[WorkerRecord]) -> Estimate:
        """Remembered as long as nothing that it goes by has changed."""
        source = ([then for then, _ in self._history.values()], [worker_facts(worker) for worker in workers])
        if source != self._known_of or len(self._known) > _LINE:
            self._known, self._known_of = {}, source
        if request not in self._known:
            try:
                self._known[request] = self._work(work_in(request), workers)
            except InvalidRequest:
                self._known[request] = Estimate("a request of another version")
        return self._known[request]

    def _work(self, request: Work, workers: Sequence[WorkerRecord]) -> Estimate:
        runs = self._runs(request.model)
        machines = {machine_of(worker) for worker in workers} - {""}
        here = [run for run in runs if run.measures.machine in machines] if machines else list(runs)
        if not here:
            where = " and ".join(sorted(machines))
            return Estimate(f"no finished run of {request.model}" + (f" on {where}" if runs and where else "") + " yet")
        here = [run for run in here if run.measures.machine == here[0].measures.machine]
        held = any(worker.sample is not None and worker.sample.model == request.model for worker in workers)
        return _scaled(request, here, held=held)

    def _runs(self, model: str) -> tuple[Run, ...]:
        """Whole runs of a model, newest first."""
        then, runs = self._history.get(model, (-_REMEMBER, ()))
        if self._clock() - then < _REMEMBER:
            return runs
        runs = tuple(_whole(self._store.measured(model)))
        self._history[model] = (self._clock(), runs)
        return runs


def _model_of(request: str) -> str:
    """Empty where it can't be read: nobody makes that."""
    try:
        return work_in(request).model
    except InvalidRequest:
        return ""


def worker_facts(worker: WorkerRecord) -> tuple[str, str]:
    """What an estimate goes by: the machine, and the model that it holds."""
    return machine_of(worker), worker.sample.model if worker.sample is not None else ""


def machine_of(worker: WorkerRecord) -> str:
    """As `Measures.machine` names it; "" while unknown."""
    if worker.sample is None:
        return ""
    return worker.sample.gpu.name if worker.sample.gpu is not None else _CPU


def _whole(rows: Iterable[tuple[str, Measures]]) -> Iterable[Run]:
    """Those that did all steps: resumed ones and second exports tell less."""
    for text, measures in rows:
        try:
            request = work_in(text)
        except InvalidRequest:
            continue
        # Pictures are never resumed, and take other numbers of steps from a picture and with a refiner.
        if isinstance(request, ResolvedPicture) or measures.steps == request.num_inference_steps:
            yield Run(request, measures)


def _scaled(request: Work, runs: Sequence[Run], *, held: bool) -> Estimate:
    """By the median of the runs of this size, else of the nearest size."""
    volume = volume_of(request)
    nearest = min((volume_of(run.request) for run in runs), key=lambda other: abs(other - volume))
    alike = [run for run in runs if volume_of(run.request) == nearest][:_NEWEST]
    loads = [run.measures.load for run in runs if run.measures.load > 0.0]
    count = f"{len(alike)} run{'s' if len(alike) > 1 else ''}"
    size = "of this size" if nearest == volume else "of another size, scaled,"
    return Estimate(
        basis=f"{count} {size} on {alike[0].measures.machine}",
        load=statistics.median(loads) if loads and not held else 0.0,
        denoise=statistics.median(run.measures.denoise / passes_of(run.request) for run in alike)
        * passes_of(request)
        * (volume / nearest),
        rest=statistics.median(_rest(run.measures) for run in alike) * (volume / nearest),
    )


def volume_of(request: Work) -> int:
    """In proportion to the tokens of the latents, for one model: all compress time by 4 after the first frame."""
    return request.width * request.height * (1 + (request.num_frames - 1) // 4)


def passes_of(request: Work) -> float:
    """Passes through the transformer: two a step with guidance, one without. The experts are taken for half each."""
    if isinstance(request, ResolvedPicture):
        return request.total_steps * (2.0 if request.guidance_scale > 1.0 else 1.0)
    guided = ((request.guidance_high > 1.0) + (request.guidance_low > 1.0)) / 2
    return request.num_inference_steps * (1.0 + guided) + request.guided_steps * (1.0 - guided)


def _rest(measures: Measures) -> float:
    return measures.encode + measures.decode + measures.export
