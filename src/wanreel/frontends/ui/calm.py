"""Calm: long work in a thread of the server that stands back while there are requests. Knows neither the work nor them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from anyio.to_thread import current_default_thread_limiter

#: An event loop that goes round in less has little to do. Seconds.
_ROUND = 0.003
#: Work between two looks. Seconds.
_UNASKED = 0.005
#: The longest wait for one round of it. Seconds.
_LONGEST_ROUND = 1.0


class Calm:
    """Waits while a server answers requests, in all no longer than `patience` seconds. Made in its event loop, for a
    thread that the loop lent."""

    def __init__(self, patience: float = 30.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = current_default_thread_limiter()
        self._left = patience
        self._looked = 0.0

    def wait(self) -> None:
        if time.monotonic() - self._looked < _UNASKED:
            return
        self._stand_back()
        self._looked = time.monotonic()

    def _stand_back(self) -> None:
        while self._left > 0:
            began = time.monotonic()
            self._turn()
            took = time.monotonic() - began
            if took < _ROUND and self._threads.borrowed_tokens <= 1:
                return
            time.sleep(_ROUND)
            self._left -= took + _ROUND

    def _turn(self) -> None:
        """Returns when the loop has done all that had come to it by now."""
        done = threading.Event()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            # Twice: in the first round it only learns what its connections have brought.
            self._loop.call_soon_threadsafe(self._loop.call_soon, done.set)
            done.wait(_LONGEST_ROUND)
