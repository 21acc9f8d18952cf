"""Studio: the page as an ASGI app beside the API. Knows no model, no queue and no widget.

Gradio takes seconds to import, so the page is built in a thread after the server is up; until then its place shows that it
is starting. Of Gradio's many routes only those are reachable that the page, gradio_client and MCP need: no upload, no file
cache, no proxy, no monitoring.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wanreel.core.settings import Settings
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Intake
from wanreel.frontends.ui import html
from wanreel.frontends.ui.desk import Desk, HouseDesk
from wanreel.frontends.ui.facts import Facts

STATIC = Path(__file__).with_name("static")
STATIC_PATH = "/studio/static/"
#: What is reachable of Gradio. Everything else of it (uploads, files, proxy, sharing, monitoring …) is no route here.
_GRADIO = ("/assets/", "/static/", "/gradio_api/queue/", "/gradio_api/call/", "/gradio_api/run/", "/gradio_api/mcp")
_GRADIO_EXACT = frozenset(
    {
        "/config",
        "/theme.css",
        "/gradio_api/api_info",
        "/gradio_api/app_id",
        "/gradio_api/cancel",
        "/gradio_api/info",
        "/gradio_api/startup-events",
    }
)
_TYPES = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml"}
_log = logging.getLogger("wanreel.http")


class _Static(StaticFiles):
    """Our own files. Asked for again each time, and answered 304 when unchanged."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            return Refused(error.status_code, "not_found", "There is no such file.").response()
        kind = _TYPES.get(Path(path).suffix)
        if kind is not None and "content-type" in response.headers:
            response.headers["content-type"] = f"{kind}; charset=utf-8"  # Windows may know others
        response.headers["cache-control"] = "no-cache"
        return response


@dataclass
class Shell:
    """The page without what it asks for. `run` it as a task; before it is ready, and where Gradio is missing, it says so."""

    desk: Desk
    settings: Callable[[], Settings]  #: those in force
    _gradio: ASGIApp | None = None
    _fault: str = ""
    _routes: Router = field(init=False)

    def __post_init__(self) -> None:
        self._routes = Router(
            [
                Route("/", self._page, methods=["GET"]),
                Route("/favicon.ico", self._icon, methods=["GET"]),
                Mount(STATIC_PATH.rstrip("/"), _Static(directory=STATIC)),
            ]
        )

    def takes(self, path: str) -> bool:
        """Whether a path is the shell's."""
        return path in ("/", "/favicon.ico") or path.startswith(STATIC_PATH) or _is_gradio(path)

    async def run(self) -> None:
        """Build the page and keep it until cancelled."""
        if find_spec("gradio") is None:
            self._fault = "not_installed"
            return
        from wanreel.frontends.ui.page import open_page

        try:
            async with open_page(self.desk, self.settings()) as app:
                self._gradio = app
                await asyncio.Event().wait()
        except ImportError as error:
            _log.warning("The page can't be shown: %s", error)
            self._fault = "not_installed"
        finally:
            self._gradio = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not _is_gradio(path):
            await self._routes(scope, receive, send)
        elif self._gradio is None:
            await JSONResponse({"error": "The page is starting."}, 503, {"retry-after": "1"})(scope, receive, send)
        elif path.startswith("/assets/") and path.endswith(".css"):
            await html.yielding(await html.collected(self._gradio, scope))(scope, receive, send)
        else:
            await self._gradio(scope, receive, _kept(send) if path.startswith("/assets/") else send)

    async def _page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        if self._gradio is None:
            return html.waiting(self._fault, request.scope.get("root_path", ""))
        page = await html.collected(self._gradio, request.scope)
        return HTMLResponse(html.tightened(page, nonce), headers={"content-security-policy": html.policy(nonce)})

    async def _icon(self, request: Request) -> Response:
        return RedirectResponse(f"{request.scope.get('root_path', '')}{STATIC_PATH}images/icon.svg")


@dataclass
class Studio:
    """The page beside its API: the shell, and the facts that its scripts ask for."""

    house: House
    intake: Intake
    settings: Callable[[], Settings]  #: those in force
    pictures: Callable[[str], bytes]  #: PNG of the picture with this SHA-256; raises InvalidRequest
    _shell: Shell = field(init=False)
    _facts: Facts = field(init=False)

    def __post_init__(self) -> None:
        self._shell = Shell(HouseDesk(self.house, self.intake), self.settings)
        self._facts = Facts(self.house, self.settings, self.pictures)

    def takes(self, path: str) -> bool:
        """Whether a path is the page's."""
        return self._shell.takes(path) or path.startswith("/studio/")

    async def run(self) -> None:
        """Build the page and keep it until cancelled."""
        await self._shell.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        await (self._facts if self._facts.takes(path) else self._shell)(scope, receive, send)


def _kept(send: Send) -> Send:
    """Says that an answer need not be asked for again."""

    async def kept(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)["cache-control"] = html.KEEP
        await send(message)

    return kept


def _is_gradio(path: str) -> bool:
    return path in _GRADIO_EXACT or path.startswith(_GRADIO)
