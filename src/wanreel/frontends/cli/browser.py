"""Opener: opens the page in a browser once the server answers, where there is a desktop to show it."""

from __future__ import annotations

import webbrowser
from collections.abc import Callable

from wanreel.core.companion import Companion
from wanreel.core.settings import has_desktop

_LOOK = 0.1  # seconds


class Opener(Companion):
    """A context beside the server."""

    def __init__(
        self,
        ready: Callable[[], bool],
        address: Callable[[], str],
        show: Callable[[str], object] = webbrowser.open,
        desktop: Callable[[], bool] = has_desktop,
    ) -> None:
        super().__init__("browser", patience=0.0)  # whatever shows the page is not waited for
        self._ready = ready
        self._address = address
        self._show = show
        self._desktop = desktop

    def _run(self) -> None:
        if not self._desktop():
            return
        while not self._ready():
            if self._over.wait(_LOOK):
                return
        self._show(self._address())
