"""Deadline: when RunPod ends a job, and what must be safe before. Knows nothing of RunPod's SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from wanreel.core.cancel import CancelToken
from wanreel.core.events import Event, StepCompleted

SAFE = 30.0  #: seconds before the limit at which the last state that can be is on disk
LAST = 5.0  #: seconds before the limit at which the work stops by itself, so that its client is told why
SAVE = 3.0  #: seconds granted to writing a state
TIMEOUT = "timeout"  #: reason of the cancel then


class Deadline:
    """Of one job. `limit` in seconds from its begin."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.step = 0  #: denoise steps done
        self._clock = clock
        self._began = clock()
        self._longest: float | None = None  # seconds of a step
        self._hurry = False

    @property
    def seconds(self) -> float:
        """Run time so far."""
        return self._clock() - self._began

    def see(self, event: Event) -> None:
        """Learn from an event how long a step takes."""
        if isinstance(event, StepCompleted):
            self.step = event.step
            self._longest = max(self._longest or 0.0, event.seconds)

    def hurry(self) -> None:
        """This process was asked to end: from now on every step is saved. Safe in a signal handler."""
        self._hurry = True

    def urgent(self) -> bool:
        """Whether the state must be saved now, because the one after the next step would be saved too late."""
        step = self.seconds if self._longest is None else self._longest
        return self._hurry or self.limit - self.seconds < SAFE + SAVE + step

    @contextmanager
    def stopping(self, token: CancelToken) -> Generator[None]:
        """Within the block the work is stopped shortly before the limit."""
        timer = threading.Timer(max(0.0, self.limit - LAST - self.seconds), token.cancel, (TIMEOUT,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
