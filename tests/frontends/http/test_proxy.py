"""Behind a reverse proxy: names, addresses, links, cookies and streams are those of the public URL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator

import httpx
import pytest

from frontends.http.places import Open, Place
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.server import build_server

PUBLIC = "https://example.com/video"


class Proxy:
    """As nginx with `proxy_pass`, `proxy_buffering off` and X-Forwarded headers, for one request a connection."""

    def __init__(self, port: int, *, strip: bool) -> None:
        self._upstream = port
        self._strip = strip
        self._connections: set[asyncio.Task[None]] = set()

    def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection begins. Its task is held here: a stream's own protocol lets go of it when the client leaves."""
        task = asyncio.get_running_loop().create_task(self._passed_on(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def serve(self, listener: socket.socket, stopped: asyncio.Event) -> None:
        """Pass connections on until stopped, then end those that are open."""
        front = await asyncio.start_server(self, sock=listener)
        await stopped.wait()
        front.close()
        await front.wait_closed()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _passed_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closed_at_the_end(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            async with _closed_at_the_end(up_writer):
                up_writer.write(self._rewritten(head).encode())
                sending = asyncio.create_task(_pump(reader, up_writer))
                try:
                    await _pump(up_reader, writer)
                finally:
                    sending.cancel()
                    await asyncio.wait([sending])

    def _rewritten(self, head: str) -> str:
        line, *headers = head.rstrip().split("\r\n")
        if self._strip:
            line = line.replace(" /video", " ", 1).replace("  ", " / ")
        dropped = ("host:", "connection:", "x-test-address:")
        kept = [header for header in headers if not header.lower().startswith(dropped)]
        address = next((h.partition(": ")[2] for h in headers if h.lower().startswith("x-test-address")), "203.0.113.7")
        kept += ["Host: example.com", "Connection: close", "X-Forwarded-Proto: https"]
        kept += [f"X-Forwarded-For: {address}", "X-Forwarded-Host: example.com"]
        return "\r\n".join([line, *kept, "", ""])


@contextlib.asynccontextmanager
async def _closed_at_the_end(writer: asyncio.StreamWriter) -> AsyncGenerator[None]:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        try:
            yield
        finally:
            writer.close()
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def behind(place: Place, *, strip: bool = True, trusted: tuple[str, ...] = ("127.0.0.1",)) -> Generator[httpx.Client]:
    """A client of a proxy in front of the place, both on real sockets."""
    server = build_server(place.app, place.app.begin_to_stop, trusted)
    loop, stopped = asyncio.new_event_loop(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as front:
        proxy = Proxy(listener.getsockname()[1], strip=strip)
        base = f"http://127.0.0.1:{front.getsockname()[1]}/video"
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        proxying = threading.Thread(target=loop.run_until_complete, args=(proxy.serve(front, stopped),))
        serving.start()
        proxying.start()
        try:
            while not server.started:
                time.sleep(0.01)
            with httpx.Client(base_url=base, timeout=30) as client:
                yield client
        finally:
            server.stop()
            serving.join()
            loop.call_soon_threadsafe(stopped.set)
            proxying.join()
            loop.close()


@pytest.fixture
def public(open_place: Open) -> Place:
    return open_place(Entrance(public_url=PUBLIC), keys={"boss": ("admin", "read", "submit")}, enter=False)


@pytest.mark.parametrize("strip", [True, False])
def test_the_api_works_whether_or_not_the_proxy_takes_the_path_off(public: Place, strip: bool) -> None:
    headers = public.as_key("user")
    with behind(public, strip=strip) as client:
        assert client.get("/live").json() == {"status": "live"}
        assert client.get("/v1/videos").status_code == 401
        posted = client.post(
            "/v1/videos", json={"prompt": "x", "model": "demo"}, headers=headers | {"Origin": "https://example.com"}
        )
        assert posted.status_code == 200, posted.text
        listed = client.get("/v1/videos", headers=headers).json()
        assert [video["id"] for video in listed["data"]] == [posted.json()["id"]]
        foreign = client.post("/v1/videos", json={}, headers=headers | {"Origin": "https://evil.example"})
        assert foreign.status_code == 403
        assert client.get("/openapi.json", headers=headers).json()["servers"] == [{"url": PUBLIC}]


@pytest.mark.parametrize("strip", [True, False])
def test_links_and_cookies_are_the_public_ones(public: Place, strip: bool) -> None:
    with behind(public, strip=strip) as client:
        redirected = client.get("/", headers={"Sec-Fetch-Dest": "document"})
        assert (redirected.status_code, redirected.headers["location"]) == (303, "/video/sign-in")
        link = public.app.links.create()
        assert f'action="/video{link}"' in client.get(link).text
        entered = client.post(link, headers={"Origin": "https://example.com"})
        assert entered.status_code == 303 and entered.headers["location"].startswith("/video")
        cookie = entered.headers["set-cookie"].lower()
        assert "path=/video" in cookie and "secure" in cookie and "httponly" in cookie
        session = entered.headers["set-cookie"].partition(";")[0]
        assert client.get("/v1/videos", headers={"Cookie": session}).status_code == 200


def test_events_stream_through_as_they_happen(public: Place) -> None:
    headers = public.as_key("user")
    with behind(public) as client:
        video = client.post("/v1/videos", json={"prompt": "x", "model": "demo"}, headers=headers).json()["id"]
        with client.stream("GET", f"/v1/videos/{video}/events", headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            kinds = (json.loads(line[6:])["kind"] for line in stream.iter_lines() if line.startswith("data: "))
            assert next(kinds) == "queued"
            job = public.hand.claim()
            assert next(kinds) == "claimed"
            public.hand.step(job, 3, 12)
            assert next(kinds) == "step"
            public.hand.fail(job)
            assert list(kinds) == ["failed"]


def tries(client: httpx.Client, address: str, times: int) -> list[int]:
    """Statuses of signing in with a wrong key, as somebody at this address."""
    headers = {"X-Test-Address": address, "Origin": "https://example.com"}
    return [client.post("/sign-in", data={"key": "wrong"}, headers=headers).status_code for _ in range(times)]


def test_a_trusted_proxy_tells_who_asks(public: Place) -> None:
    with behind(public) as client:
        assert tries(client, "203.0.113.1", 13) == [401] * 12 + [429]
        assert tries(client, "203.0.113.2", 1) == [401]


def test_what_another_proxy_tells_is_not_believed(public: Place) -> None:
    with behind(public, trusted=("192.0.2.1",)) as client:
        assert [tries(client, f"203.0.113.{number}", 1)[0] for number in range(13)] == [401] * 12 + [429]
