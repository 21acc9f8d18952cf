"""Calls: what an idle worker hears of the line, and when it is to look there. Knows nothing of databases and bells.

Each job is called out to all workers, and again when one of them has taken it. Each waits for a time of its own, those that
hold what the job needs the shortest; who hears meanwhile that it was taken does not look. So a job costs a few looks,
however many are idle.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable

from wanreel.jobs.policy import patience

#: Whether a worker holds what jobs with this model and these LoRAs need; None where it does not make them.
Suits = Callable[[str, str], bool | None]


class Calls:
    """For one worker. `heard` is called from another thread."""

    def __init__(
        self, suits: Suits, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._suits = suits
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._idle = False
        self._news = False
        self._due: dict[str, float] = {}

    def listen(self) -> None:
        """Before a look at the line: what was heard till now, it will see itself."""
        with self._lock:
            self._idle, self._news = True, False
            self._due.clear()

    def stop(self) -> None:
        """The worker is busy; when it is done it looks anyhow."""
        with self._lock:
            self._idle = False
            self._due.clear()

    def heard(self, word: str) -> bool:
        """What was said of the line; see `signals`. Whether the time at which to look has changed by it."""
        with self._lock:
            if not self._idle:
                return False
            before = min(self._due.values(), default=math.inf)
            self._note(word)
            changed = min(self._due.values(), default=math.inf) < before
            self._news = self._news or changed
            return changed

    def _note(self, word: str) -> None:
        if not word:
            self._due[""] = self._clock()
            return
        job_id, *more = json.loads(word)
        if not more:
            self._due.pop(job_id, None)
            return
        idle, model, adapters = more
        suits = self._suits(model, adapters)
        if suits is not None:
            self._due[job_id] = self._clock() + patience(suits, idle, self._chance())

    def left(self) -> float:
        """Seconds until the worker is to look; infinity where nothing was heard."""
        with self._lock:
            return max(0.0, min(self._due.values(), default=math.inf) - self._clock())

    def had_news(self) -> bool:
        """Whether the time at which to look has changed since this was last asked."""
        with self._lock:
            news, self._news = self._news, False
            return news
