"""Doorway: which requests are the page's and which the API's. Knows neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Intake


class Page(Protocol):
    """A web page served beside the API."""

    def takes(self, path: str) -> bool:
        """Whether a path, without the public URL's, is the page's."""
        ...

    async def run(self) -> None:
        """Keeps the page until cancelled."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


MakePage = Callable[[House, Intake], Page]


@dataclass(frozen=True)
class Doorway:
    """An ASGI app of two."""

    api: ASGIApp
    page: Page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and self.page.takes(path):
            await self.page(scope, receive, send)
        else:
            await self.api(scope, receive, send)
