"""CancelToken: asking long work to stop. Knows nothing of what is being stopped."""

from __future__ import annotations

import threading

from wanreel.core.errors import Cancelled


class CancelToken:
    """Set from any thread or signal handler; long work calls `check` where stopping is safe."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""  #: why, for the record: "cancelled", "timeout", "drain", …

    def cancel(self, reason: str = "cancelled") -> None:
        """Ask to stop. The first reason given is kept."""
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled` if somebody asked to stop."""
        if self._event.is_set():
            raise Cancelled(f"The generation was stopped ({self.reason}).")

    def wait(self, seconds: float) -> bool:
        """Sleep up to `seconds`; True as soon as somebody asks to stop."""
        return self._event.wait(seconds)
