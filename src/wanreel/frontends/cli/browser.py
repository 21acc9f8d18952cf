"""Opener: opens the page in a browser once the server answers, where there is a desktop to show it."""

from __future__ import annotations

import threading
import webbrowser
from collections.abc import Callable
from types import TracebackType
from typing import Self

from wanreel.core.settings import has_desktop

_LOOK = 0.1  # seconds


class Opener:
    """A context beside the server."""

    def __init__(
        self,
        ready: Callable[[], bool],
        address: Callable[[], str],
        show: Callable[[str], object] = webbrowser.open,
        desktop: Callable[[], bool] = has_desktop,
    ) -> None:
        self._ready = ready
        self._address = address
        self._show = show
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="browser", daemon=True)
        self._desktop = desktop

    def __enter__(self) -> Self:
        if self._desktop():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def _run(self) -> None:
        while not self._ready():
            if self._over.wait(_LOOK):
                return
        self._show(self._address())
