"""Keeper: watches over one attempt while it runs, from a thread beside it. Knows nothing of rendering.

It hears orders (cancel, drain), measures the time limit on the monotonic clock, and ends the process where the
work does not come back by itself: a hung kernel never does.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from wanreel.core.cancel import CancelToken
from wanreel.core.companion import Companion
from wanreel.core.errors import JobTimeout, LeaseLost, WanreelError
from wanreel.core.job import Job, JobFailure
from wanreel.jobs import Leases

_log = logging.getLogger(__name__)

HUNG = 86  #: exit code of a process whose work could not be stopped
_LOOK = 0.5  # seconds between looks at clock and orders
_LOOK_SHARED = 5.0  # seconds between looks at the orders of a shared store, which announces them as well
_GRACE = 10.0  # seconds between asking the work to stop and ending the process
_LAST_RESORT = 5.0  # seconds more until the process is ended by a timer that needs no Python at all
_UNKNOWN_STEP = 60.0  # seconds granted to a step before any was measured


@dataclass
class Pace:
    """Where the attempt is, written by its own thread and read by the keeper's."""

    stage: str = "load"
    step_seconds: float = _UNKNOWN_STEP


class Keeper(Companion):
    """A context for one attempt: the token is set with the reason when the work is to stop.

    Reasons: "cancelled", "drain", "timeout", "lease_lost". While denoising, "drain" waits for the step to end; the
    work asks `draining` after each.
    """

    def __init__(
        self,
        leases: Leases,
        job: Job,
        time_limit: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(f"keeper of {job.id}")
        self.token = CancelToken()
        self.pace = Pace()
        self._leases = leases
        self._job = job
        self._limit = time_limit
        self._clock = clock
        self._leave = leave
        self._began = clock()
        self._drain = threading.Event()
        self._hear_at = -math.inf  # when to look for orders again
        self._stop_asked: float | None = None  # when the work was first asked to stop
        self._resting: tuple[float, str] | None = None  # since when the work waits for its turn, and the stage before
        self._rested = 0.0  # seconds of earlier rests

    @property
    def seconds(self) -> float:
        """Run time of the attempt, without its rests."""
        resting, now = self._resting, self._clock()
        return (resting[0] if resting else now) - self._began - self._rested

    @property
    def draining(self) -> bool:
        """Whether the work should stop after this step, with its state saved."""
        return self._drain.is_set()

    def drain(self) -> None:
        """Ask for that. Safe in a signal handler, as the thread of the work itself sets neither flag."""
        self._drain.set()
        if self.pace.stage != "denoise":
            self.token.cancel("drain")

    def rest(self) -> None:
        """The work waits for its turn: time does not count, and who can't answer is not asked to."""
        self._resting = (self._clock(), self.pace.stage)
        self.pace.stage = "waiting"
        faulthandler.cancel_dump_traceback_later()

    def go_on(self) -> None:
        """The work has its turn, or its time to end, in the stage it was in."""
        if self._resting is None:
            return
        since, self.pace.stage = self._resting
        self._rested += self._clock() - since
        self._resting = None
        if self._stop_asked is not None:
            self._stop_asked = self._clock()
        self.watch()

    def watch(self) -> None:
        """Have the process end should the work hang past its limit. There is one such timer, for the work that runs."""
        if math.isfinite(self._limit):
            left = max(0.0, self._limit - self.seconds) + _GRACE + _LAST_RESORT
            faulthandler.dump_traceback_later(left, exit=True, file=sys.__stderr__ or sys.stderr)

    def hurry(self) -> None:
        """Look for orders at the next look: there may be one."""
        self._hear_at = -math.inf

    def __enter__(self) -> Self:
        self.watch()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self._over.wait(_LOOK):
            self.look()

    def look(self) -> None:
        """Look once at orders and clock."""
        if self._clock() >= self._hear_at:
            self._hear_at = self._clock() + (_LOOK_SHARED if self._leases.shared else 0.0)
            self._hear_orders()
        if self.seconds > self._limit:
            self.token.cancel("timeout")
        if self._drain.is_set() and self.pace.stage != "denoise":
            self.token.cancel("drain")
        if self._stop_asked is None and (self.token.cancelled or self._drain.is_set()):
            self._stop_asked = self._clock()
        if self._resting is not None or self._stop_asked is None:
            return
        if self._clock() - self._stop_asked > self._patience():
            self._end_process()

    def _hear_orders(self) -> None:
        try:
            orders = self._leases.heartbeat(self._job.id, self._job.attempt)
        except LeaseLost:
            self.token.cancel("lease_lost")
            return
        except WanreelError as error:
            # The work itself will meet the same fault when it records something.
            _log.warning("Job %s: no word from the job database: %s", self._job.id, error)
            return
        if orders.cancel:
            self.token.cancel("cancelled")
        if orders.drain:
            self._drain.set()

    def _patience(self) -> float:
        """Seconds the work may take to stop: it checks between blocks, or after a step when it drains."""
        waits_for_step = self.pace.stage == "denoise" and not self.token.cancelled
        return _GRACE + (2 * self.pace.step_seconds if waits_for_step else 0.0)

    def _end_process(self) -> None:
        """The work does not come back. Settle the job, then leave without waiting for anything."""
        job, reason = self._job, self.token.reason or "drain"
        _log.error("Job %s: the work did not stop (%s); the process ends.", job.id, reason)
        try:
            if reason == "timeout":
                error = JobTimeout(f"The job ran past its limit of {self._limit:g} s and did not stop.")
                self._leases.fail(job.id, job.attempt, JobFailure.of(error), seconds=self.seconds)
            elif reason == "drain":
                self._leases.requeue(job.id, job.attempt, "drain", seconds=self.seconds)
            elif reason == "cancelled":
                self._leases.confirm_cancel(job.id, job.attempt, seconds=self.seconds)
        except WanreelError as error:
            _log.error("Job %s: its end could not be recorded: %s", job.id, error)
        self._leave(0 if reason == "drain" else HUNG)
