"""Guard: the one outer layer that every request passes, whatever is mounted behind it. Knows no route.

Host, Origin and key are checked before a byte of the body is read; bodies are counted as they stream in; whoever sends
or reads too slowly is dropped; every answer carries the security headers.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wanreel.core.errors import SettingsError
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.keys import LOCAL, SCOPES, Caller, KeyRing
from wanreel.frontends.http.signin import COOKIE, SignIn

MIB = 1024 * 1024
#: Largest bodies by kind. JSON carries pictures as base64, which takes a third more.
MULTIPART_LIMIT = 32 * MIB
JSON_LIMIT = 45 * MIB
#: The one larger kind: LoRA files that the operator takes in, streamed to disk.
LORA_PATH = "/v1/loras"
LORA_LIMIT = 4 * 1024 * MIB + MIB
OTHER_LIMIT = 1 * MIB
#: Seconds without a byte of a body before it is given up.
BODY_IDLE = 15.0
#: Bytes a second that a body must bring on average, once it had BODY_GRACE seconds.
BODY_FLOOR = 4096
BODY_GRACE = 10.0
#: Seconds that a client may take to read what was sent before it is given up.
READ_PATIENCE = 60.0
#: Answered without a key, because probes have none. They tell next to nothing.
OPEN_PATHS = frozenset({"/live", "/ready", "/health"})
#: The page's own scripts and styles, which are the same for everybody and hold nothing of anybody.
STATIC_PATH = "/studio/static/"
#: Who signs in, or asks for what everybody may see. Has nothing and may do nothing.
NOBODY = Caller(owner="", scopes=frozenset())
#: A server in front says what its visitor may do, who acts with that server's key. It never widens anything.
NARROW = "x-wanreel-scopes"
_CALLER = "wanreel.caller"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "SAMEORIGIN",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and how it was answered."""

    method: str
    route: str  #: the route's template, so that there are few of them; "other" where none fitted
    path: str
    status: int  #: 0 when the client left before an answer
    seconds: float
    request_id: str
    owner: str


class Observer(Protocol):
    """Whoever wants to know of every exchange."""

    def __call__(self, exchange: Exchange) -> None: ...


def caller_of(connection: HTTPConnection) -> Caller:
    """Who makes this request, as the guard found."""
    caller: Caller = connection.scope[_CALLER]
    return caller


@dataclass
class Guard:
    """An ASGI app around another one."""

    app: ASGIApp
    entrance: Entrance
    keys: KeyRing
    observe: Observer
    clock: Callable[[], float]
    sign_in: SignIn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        # For links. A proxy may take the public URL's path off or leave it on: routing knows both.
        scope["root_path"] = self.entrance.root_path
        answer = _Answer(send, secrets.token_hex(8))
        began = self.clock()
        try:
            scope[_CALLER] = self._admit(scope)
            app = self.sign_in if self.sign_in.takes(self._path(scope)) else self.app
            await app(scope, _Body(receive, Headers(scope=scope), self.clock, loras=self._takes_lora(scope)), answer)
        except Refused as refusal:
            if answer.status:
                raise
            wants_page = refusal.status == 401 and scope["method"] == "GET" and self._path(scope) == "/"
            await (self.sign_in.redirection() if wants_page else refusal.response())(scope, receive, answer)
        except _SlowReader:
            return
        finally:
            route = getattr(scope.get("route"), "path", "other")
            owner = scope[_CALLER].owner if _CALLER in scope else ""
            seconds = self.clock() - began
            self.observe(
                Exchange(scope["method"], route, scope["path"], answer.status, seconds, answer.request_id, owner)
            )

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope[_CALLER] = self._admit(scope)
        except Refused:
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def judge(self, scope: Scope) -> str:
        """By which name it was called, and from which site. Returns the method; raises Refused."""
        headers = Headers(scope=scope)
        self.entrance.refuse_host(headers)
        # What a WebSocket carries is unknown, so it counts as a change.
        method = str(scope.get("method", "WEBSOCKET"))
        scheme = str(scope["scheme"]).replace("ws", "http")
        self.entrance.refuse_site(method, headers, scheme)
        return method

    def _admit(self, scope: Scope) -> Caller:
        """Who may come in. Raises Refused."""
        method, headers = self.judge(scope), Headers(scope=scope)
        path = self._path(scope)
        if self.sign_in.takes(path) or (method in ("GET", "HEAD") and path.startswith(STATIC_PATH)):
            return NOBODY
        caller = _narrowed(self._identify(path, headers), headers)
        if not caller.may("read" if method in ("GET", "HEAD") else "submit"):
            raise Refused(403, "missing_scope", "This key may not do that.")
        return caller

    def _path(self, scope: Scope) -> str:
        return str(scope["path"]).removeprefix(self.entrance.root_path)

    def _takes_lora(self, scope: Scope) -> bool:
        caller: Caller = scope[_CALLER]
        path = str(scope["path"]).removeprefix(self.entrance.root_path)
        return path == LORA_PATH and scope["method"] == "POST" and caller.is_admin

    def _identify(self, path: str, headers: Headers) -> Caller:
        key = _key_in(headers)
        if key is None and path in OPEN_PATHS:
            return LOCAL
        try:
            if not (self.entrance.needs_key or self.keys):
                return LOCAL
            found = None if key is None else self._find(key)
        except SettingsError as error:
            raise Refused(503, error.code, "The file of API keys can't be read.") from error
        if found is None:
            message = "An API key is needed: Authorization: Bearer …" if key is None else "This API key is not known."
            raise Refused(401, "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})
        return found

    def _find(self, key: str) -> Caller | None:
        """Whose key or session this is."""
        digest = self.sign_in.sessions.digest_in(key)
        return self.keys.find(key) if digest is None else self.keys.of_digest(digest)


def _narrowed(caller: Caller, headers: Headers) -> Caller:
    """The same with no more than what a server in front left him."""
    if NARROW not in headers:
        return caller
    left = frozenset(scope for scope in SCOPES if caller.may(scope) and scope in headers[NARROW].split())
    return replace(caller, scopes=left)


def _key_in(headers: Headers) -> str | None:
    """The key sent, from a header or a cookie and never from the URL, which ends up in logs and histories."""
    kind, _, key = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and key.strip():
        return key.strip()
    if headers.get("x-api-key"):
        return headers["x-api-key"]
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie is not None else None


def body_limit(content_type: str, *, loras: bool = False) -> int:
    """The largest body of this kind, in bytes; `loras`: the operator takes in a LoRA."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return LORA_LIMIT if loras else MULTIPART_LIMIT
    return JSON_LIMIT if kind == "application/json" else OTHER_LIMIT


class _Body:
    """Receives a body, counts it and gives up on a slow one."""

    def __init__(self, receive: Receive, headers: Headers, clock: Callable[[], float], *, loras: bool = False) -> None:
        self._receive = receive
        self._clock = clock
        self._limit = body_limit(headers.get("content-type", ""), loras=loras)
        self._began = 0.0
        self._received = 0
        self._complete = False
        announced = headers.get("content-length", "0")
        self._too_large = announced.isdecimal() and int(announced[:20]) > self._limit

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._too_large:
            raise self._refusal()
        self._began = self._began or self._clock()
        try:
            async with asyncio.timeout(BODY_IDLE):
                message = await self._receive()
        except TimeoutError as exc:
            raise Refused(408, "too_slow", "The body stopped coming.", headers={"Connection": "close"}) from exc
        if message["type"] == "http.request":
            self._count(len(message.get("body", b"")))
            self._complete = not message.get("more_body", False)
        return message

    def _count(self, size: int) -> None:
        self._received += size
        if self._received > self._limit:
            raise self._refusal()
        seconds = self._clock() - self._began
        if seconds > BODY_GRACE and self._received < seconds * BODY_FLOOR:
            raise Refused(408, "too_slow", "The body came too slowly.", headers={"Connection": "close"})

    def _refusal(self) -> Refused:
        text = f"The body is larger than {self._limit // MIB} MiB."
        return Refused(413, "too_large", text, headers={"Connection": "close"})


class _Answer:
    """Sends an answer with the security headers, and gives up on a client that does not read it."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self.request_id
        try:
            async with asyncio.timeout(READ_PATIENCE):
                await self._send(message)
        except TimeoutError as exc:
            raise _SlowReader from exc


class _SlowReader(Exception):
    """The client does not take what is sent. The server closes the connection of an answer that was not finished."""
