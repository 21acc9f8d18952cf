"""Apart: the page as a process of its own, before a server elsewhere that does all the work.

Two ways: with a key of the server's, kept here and never shown, behind this page's own keys; or without one, and each
visitor signs in at the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

import httpx
from starlette.types import Receive, Scope, Send

from wanreel.core.errors import RemoteError, SettingsError
from wanreel.core.settings import Settings
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.guard import Exchange, Guard
from wanreel.frontends.http.keys import LOCAL, Caller, KeyRing
from wanreel.frontends.http.rates import Rates
from wanreel.frontends.http.sessions import Links, Sessions
from wanreel.frontends.http.signin import ATTEMPTS, SignIn
from wanreel.frontends.ui.relay import Relay, open_backend
from wanreel.frontends.ui.studio import Shell


class Passing(Guard):
    """A guard that judges where requests come from, and leaves who sends them to the server behind."""

    def _admit(self, scope: Scope) -> Caller:
        self.judge(scope)
        return LOCAL


class _NoSignIn(SignIn):
    def takes(self, path: str) -> bool:
        return False


@dataclass
class Apart:
    """The page's ASGI app."""

    backend: str
    key: str
    entrance: Entrance
    settings: Settings
    keys: KeyRing
    links: Links = field(init=False)
    _guard: Guard = field(init=False)
    _shell: Shell = field(init=False)
    _relay: Relay = field(init=False)

    def __post_init__(self) -> None:
        self._relay = Relay(open_backend(self.backend), self.key)
        self._shell = Shell(self._relay, lambda: self.settings)
        self.links = Links(self.keys, time.monotonic)
        kinds: tuple[type[Guard], type[SignIn]] = (Guard, SignIn) if self.key else (Passing, _NoSignIn)
        sessions = Sessions(self.settings.data.session_secret, time.time)
        sign_in = kinds[1](self.entrance, self.keys, sessions, self.links, Rates(time.monotonic, ATTEMPTS))
        self._guard = kinds[0](self._route, self.entrance, self.keys, _unseen, time.monotonic, sign_in)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(self._running, receive, send)
        else:
            await self._guard(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = str(scope.get("path", "")).removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif self._shell.takes(path) and await self._may_see(scope, path, send):
            await self._shell(scope, receive, send)
        elif not self._shell.takes(path):
            await self._relay(scope, receive, send)

    async def _may_see(self, scope: Scope, path: str, send: Send) -> bool:
        """Whether the server behind would let this visitor in; he is sent to its sign-in screen otherwise."""
        if self.key or path != "/":
            return True
        status = await self._relay.status_of(scope, "/studio/setup")
        if status == 401:
            where = f"{self.entrance.root_path}/sign-in".encode()
            await send({"type": "http.response.start", "status": 303, "headers": [(b"location", where)]})
            await send({"type": "http.response.body", "body": b""})
        return status != 401

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        building = asyncio.create_task(self._shell.run())
        try:
            yield
        finally:
            building.cancel()
            await asyncio.gather(building, return_exceptions=True)
            await self._relay.backend.aclose()


def check_backend(url: str, key: str, entrance: Entrance, *, have_keys: bool) -> None:
    """That the server is there, takes the key, and is not opened to more than who reaches it by itself.

    Raises RemoteError, SettingsError.
    """
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{url}/studio/setup", headers=headers, timeout=10.0, trust_env=False)
    except (httpx.TransportError, httpx.InvalidURL) as exc:
        raise RemoteError(
            f"{url} can't be reached: {exc}.", hint="Check --backend-url, and that the API runs there."
        ) from exc
    if key and answer.status_code in (401, 403):
        raise SettingsError(f"{url} does not take this key.", hint="Make one there with `wanreel keys create NAME`.")
    if answer.status_code not in (200, 401):
        raise RemoteError(f"{url} answers {answer.status_code}, as no Wanreel does.", hint="Check --backend-url.")
    if key:
        entrance.require_key(have=have_keys)
    elif entrance.needs_key and answer.status_code == 200:
        raise SettingsError(
            f"{url} asks for no key, so this page would let everybody in who reaches {entrance.host}.",
            hint="Make a key there with `wanreel keys create NAME`, or listen on 127.0.0.1.",
        )


async def _lifespan(
    running: Callable[[], contextlib.AbstractAsyncContextManager[None]], receive: Receive, send: Send
) -> None:
    """The server's start and stop around `running`."""
    await receive()
    async with running():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _unseen(exchange: Exchange) -> None:
    """The server behind counts and logs."""
