"""Relay: passes requests on to a server elsewhere, and its answers back as they come. Knows neither page nor API.

With a key of its own every visitor acts as that key's owner, within what his own key here lets him do; without one each
visitor brings the key himself, which only the server elsewhere judges.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from wanreel.core.errors import JobNotFound
from wanreel.core.job import TERMINAL
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.guard import NARROW, caller_of

#: Of one connection, and for the next (RFC 9110, 7.6.1); and what says where a request came from, which the guard judged.
_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_ORIGIN = frozenset({"host", "origin", "referer", "sec-fetch-site", "sec-fetch-mode", "expect"})
_FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"})
_CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})
_DROPPED = _HOP | _ORIGIN | _FORWARDED | _CREDENTIALS | {NARROW}
_CONNECT = 10.0  # seconds


def open_backend(url: str) -> httpx.AsyncClient:
    """A client for a server; answers may take as long as they like, as event streams do."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
    return httpx.AsyncClient(
        base_url=url,
        timeout=httpx.Timeout(None, connect=_CONNECT),
        limits=limits,
        follow_redirects=False,
        trust_env=False,
    )


@dataclass(frozen=True)
class Relay:
    """An ASGI app, and the desk of a page whose server is elsewhere."""

    backend: httpx.AsyncClient
    key: str = ""  #: what the server elsewhere is asked with; empty: visitors bring their own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        query = scope.get("query_string", b"")
        # As it was sent: what is decoded and encoded again may mean another place.
        raw = scope.get("raw_path") or path.encode()
        target = self.backend.base_url.copy_with(raw_path=raw + (b"?" + query if query else b""))
        kept = {name: value for name, value in request.headers.items() if name not in _DROPPED}
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        content = request.stream() if has_body else None
        headers = kept | self._credentials(request)
        with _told():
            passed = self.backend.build_request(request.method, target, headers=headers, content=content)
            answer = await self.backend.send(passed, stream=True)
        try:
            await _pass_back(answer, send)
        finally:
            await answer.aclose()

    async def status_of(self, scope: Scope, path: str) -> int:
        """How the server would answer this visitor there."""
        with _told():
            answer = await self.backend.get(path, headers=self._credentials(Request(scope)))
        return answer.status_code

    # The desk

    async def generate(self, request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
        return await self._json(request, "POST", "/v1/videos", json=dict(values))

    async def status(self, request: Request, job_id: str) -> dict[str, Any]:
        if not job_id.isalnum():
            raise JobNotFound("There is no such video.")
        return await self._json(request, "GET", f"/v1/videos/{job_id}")

    async def wait(self, request: Request, job_id: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(seconds):
                await self._end_of(request, f"/v1/videos/{job_id}/events")

    async def _end_of(self, request: Request, path: str) -> None:
        """Reads a stream of events until the one that ends the video."""
        async with self.backend.stream("GET", path, headers=self._credentials(request)) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("event:") and line.partition(":")[2].strip() in TERMINAL:
                    return

    async def _json(self, request: Request, method: str, path: str, **more: Any) -> dict[str, Any]:
        with _told():
            answer = await self.backend.request(method, path, headers=self._credentials(request), **more)
        try:
            body = answer.json()
        except ValueError as exc:
            raise Refused(502, "bad_backend", "The server behind this page answers what no Wanreel answers.") from exc
        if answer.is_success:
            return {"job_id": body["id"], **body}
        error = body.get("error") or {}
        raise Refused(
            answer.status_code, str(error.get("code", "refused")), str(error.get("message", "It was refused."))
        )

    def _credentials(self, request: Request) -> dict[str, str]:
        """Who asks: the visitor himself, or this page for a visitor who may do so much."""
        if not self.key:
            return {name: value for name, value in request.headers.items() if name in _CREDENTIALS}
        return {"authorization": f"Bearer {self.key}", NARROW: " ".join(sorted(caller_of(request).scopes))}


@contextlib.contextmanager
def _told() -> Generator[None]:
    """Raises Refused where the server elsewhere can't be reached."""
    try:
        yield
    except httpx.TransportError as exc:
        raise Refused(
            503, "backend_unavailable", "The server behind this page can't be reached.", headers={"Retry-After": "5"}
        ) from exc


async def _pass_back(answer: httpx.Response, send: Send) -> None:
    headers = [
        (name, value)
        for name, value in answer.headers.raw
        if name.lower().decode("latin-1") not in _HOP | {"date", "server"}
    ]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
    try:
        # Still compressed where it is.
        async for chunk in answer.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except httpx.TransportError as exc:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise ConnectionAbortedError("the server behind this page broke off") from exc  # what came is not all
    await send({"type": "http.response.body", "body": b"", "more_body": False})
