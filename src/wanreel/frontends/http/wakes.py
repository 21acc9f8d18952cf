"""Wakes: who reads the event log is woken when something was recorded, where the store announces it.

PostgreSQL does (LISTEN and NOTIFY): what begins, ends or is asked of a job, but not its steps, of which there are many. With
SQLite nothing is announced, and readers look by themselves. Knows nothing of what they read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.concurrency import run_in_threadpool

from wanreel.jobs import JobStore, signals

LOOK = 0.2  #: seconds between looks while somebody follows a job that may step, or something happens
_LOOK_STEPS = 0.5  # between looks for steps alone, where all else is announced: workers write no more often
_LOOK_ANNOUNCED = 5.0  # and while nobody follows a job, in case that an announcement was lost
_SOON = 3  # looks at the usual pace after an announcement: other transactions may hold its event back


class Wakes:
    """One per app; everything but `_heard` belongs to its event loop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._bells: list[Bell] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def announced(self) -> bool:
        """Whether the store says when something was recorded."""
        return self._store.shared

    def bell(self) -> Bell:
        """One for a reader of its own."""
        bell = Bell(self)
        self._bells.append(bell)
        return bell

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """While it is open, announcements are heard."""
        self._loop = asyncio.get_running_loop()
        listener = self._store.listening({signals.NEWS: self._heard})
        await run_in_threadpool(listener.__enter__)
        try:
            yield
        finally:
            await run_in_threadpool(listener.__exit__, None, None, None)

    def _heard(self, _word: str) -> None:
        """On the listener's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for bell in self._bells:
            bell.ring()


class Bell:
    """What one reader waits at between two looks."""

    def __init__(self, wakes: Wakes) -> None:
        self._wakes = wakes
        self._rung = asyncio.Event()
        self._soon = 0

    def ring(self) -> None:
        """There may be events."""
        self._rung.set()

    async def until(self, seconds: float) -> bool:
        """Until it is rung, `seconds` at most. Whether it was rung."""
        rung = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                rung = await self._rung.wait()
        self._rung.clear()
        return rung

    async def next_look(self, seconds: float, *, steps: bool) -> None:
        """Until the log is to be looked at: after `seconds`; where events are announced, then, or when there may be `steps`
        that are of interest."""
        if self._wakes.announced:
            seconds = _LOOK_STEPS if steps else _LOOK_ANNOUNCED
            if self._soon:
                self._soon, seconds = self._soon - 1, LOOK
        if await self.until(seconds):
            self._soon = _SOON
