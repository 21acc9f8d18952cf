"""Companion: a context with a thread of its own, which ends with it. Knows nothing of what the thread does."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self


class Companion:
    """Runs `_run` in a daemon thread while the context is open; leaving it sets `_over` and waits for the thread.

    Whoever inherits ends `_run` soon after `_over` is set, or gives the `patience`, in seconds, that the thread is worth.
    A companion is entered once.
    """

    def __init__(self, name: str, patience: float | None = None) -> None:
        self._worth = patience
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(self._worth)

    def _run(self) -> None:
        raise NotImplementedError
