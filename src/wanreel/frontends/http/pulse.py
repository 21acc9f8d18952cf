"""Pulse: looks at this host, the workers and the event log every few seconds, and remembers the last minutes. Where the store
announces what happens, the log is read at once.

In memory, since it is for charts: a restart begins anew. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import WanreelError
from wanreel.core.job import TERMINAL, JobEvent, JobStatus
from wanreel.core.sample import Sample, WorkerRecord
from wanreel.frontends.http.wakes import Wakes
from wanreel.service import Service
from wanreel.worker.sampling import Probe

#: Moments that are remembered: ten minutes at the default of five seconds.
REMEMBERED = 120
_PAGE = 1000
_RUNNING = 10_000  # jobs whose steps are followed
#: Looks that a worker may miss before its figures are called old.
_MISSED = 3
_REST = 1.0  # seconds between two readings of the log, however much is announced
_log = logging.getLogger("wanreel.http")


@dataclass(frozen=True, slots=True)
class Moment:
    """How things stood at one look, and what had happened since the look before."""

    host: Sample
    workers: tuple[WorkerRecord, ...]
    queued: int
    in_progress: int
    steps: int  #: denoise steps done
    ended: dict[str, int]  #: jobs by how they ended
    seconds: float  #: since the look before

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds if self.seconds > 0.0 else 0.0


class Pulse:
    """One per app. `look` belongs to one thread at a time; what it finds may be read from any."""

    def __init__(
        self, service: Service, probe: Probe, seconds: float, wakes: Wakes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._service = service
        self._probe = probe
        self.seconds = seconds
        self._bell = wakes.bell()
        self._clock = clock
        self._moments: deque[Moment] = deque(maxlen=REMEMBERED)
        self._observers: list[Callable[[JobEvent], None]] = []
        self._position: int | None = None  # in the event log
        self._steps_of: dict[str, int] = {}
        self._steps = 0  # since the last moment
        self._ended = _none_ended()
        self._looked = clock()

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The last ones, oldest first."""
        return tuple(self._moments)

    def observe(self, observer: Callable[[JobEvent], None]) -> None:
        """Call `observer` with every event from now on, some seconds late. Step events stand for those before them."""
        self._observers.append(observer)

    async def run(self) -> None:
        """Look every few seconds until cancelled, and at the log when there is word of it."""
        while True:
            await self._try(self.look)
            due = self._clock() + self.seconds
            while (left := due - self._clock()) > 0.0:
                if await self._bell.until(left) and due - self._clock() > _REST:
                    await self._try(self.catch_up)
                    await asyncio.sleep(_REST)

    async def _try(self, look: Callable[[], None]) -> None:
        try:
            await run_in_threadpool(look)
        except (WanreelError, OSError) as error:
            _log.warning("Figures can't be taken now: %s", error)

    def look(self) -> None:
        """Blocks. Raises StoreError, and OSError where the data directory is gone."""
        self.catch_up()
        queue = self._service.queue()
        now = self._clock()
        moment = Moment(
            host=self._probe.sample(),
            workers=self._service.store.worker_records(),
            queued=queue.queued,
            in_progress=queue.in_progress,
            steps=self._steps,
            ended=self._ended,
            seconds=now - self._looked,
        )
        self._looked, self._steps, self._ended = now, 0, _none_ended()
        self._moments.append(moment)

    def catch_up(self) -> None:
        """Read the log, for the next moment and for observers. Blocks. Raises StoreError."""
        store = self._service.store
        if self._position is None:
            self._position = store.last_event_number()
            running = store.list(status=JobStatus.IN_PROGRESS, limit=_RUNNING)
            self._steps_of = {job.id: job.progress.step for job in running}
        while page := store.tail(after=self._position, limit=_PAGE):
            for event in page:
                self._position = event.number
                self._steps += self._stepped(event)
                if event.kind in TERMINAL:
                    self._ended[event.kind] += 1
                for observer in self._observers:
                    observer(event)

    def _stepped(self, event: JobEvent) -> int:
        """Denoise steps that this event tells of, beyond those told before."""
        if event.kind == "step":
            before, now = self._steps_of.get(event.job_id, 0), int(event.data.get("step", 0))
            if len(self._steps_of) < _RUNNING:
                self._steps_of[event.job_id] = now
            return max(0, now - before)
        if event.kind == "resumed":
            self._steps_of[event.job_id] = int(event.data.get("step", 0))
        elif event.kind == "claimed" or event.kind in TERMINAL:
            self._steps_of.pop(event.job_id, None)
        return 0

    def warnings_of(self, worker: WorkerRecord) -> tuple[str, ...]:
        """What a worker's machine runs short of, or that it has not been heard of."""
        if worker.sample is None:
            return ()
        age = time.time() - worker.sample.at
        if age > _MISSED * self.seconds:
            return (f"its figures are {age:.0f} s old", *worker.sample.warnings)
        return worker.sample.warnings


def _none_ended() -> dict[str, int]:
    return {str(status): 0 for status in sorted(TERMINAL)}
