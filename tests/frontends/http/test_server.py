"""Clients that send or read too slowly, or come in crowds, cost nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest
from starlette.types import Receive, Scope, Send

from frontends.http.places import Open, Place, serving
from wanreel.core.request import VideoRequest
from wanreel.frontends.http import guard, server
from wanreel.frontends.http.server import Patience


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers "ok" to everything, and reads no body."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def connect(port: int, data: bytes = b"") -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port), timeout=20)
    opened.sendall(data)
    return opened


def ends(opened: socket.socket) -> bool:
    """Whether the server closes the connection, waiting for it."""
    with contextlib.suppress(ConnectionResetError):
        while opened.recv(4096):
            pass
    return True


ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def served(open_place: Open) -> Place:
    """An API whose event loop is the server's."""
    return open_place(enter=False)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience of a moment, so that no test waits for long."""
    monkeypatch.setattr(server, "HEADER_TIME", 0.5)
    monkeypatch.setattr(server, "IDLE_TIME", 1)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("start", [b"", b"G", ASK[:-2], ASK + b"GET /second HTTP/1.1\r\nX-Slow: "])
def test_headers_that_do_not_come_close_the_connection(start: bytes) -> None:
    with serving(plain) as port, connect(port, start) as slow:
        assert ends(slow)


@pytest.mark.usefixtures("hurried")
def test_a_header_that_drips_is_not_waited_for() -> None:
    with serving(plain) as port, connect(port, b"GET / HTTP/1.1\r\n") as slow:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 15:
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.1)
        assert time.monotonic() - began < 15


@pytest.mark.usefixtures("hurried")
def test_a_slow_answer_is_not_cut_off() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(1.5)
        await plain(scope, receive, send)

    with serving(slow) as port, connect(port, ASK) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_slow_headers_by_the_hundred_disturb_nobody() -> None:
    with serving(plain) as port, contextlib.ExitStack() as held:
        for _ in range(300):
            held.enter_context(connect(port, ASK[:-2]))
        with connect(port, ASK) as client:
            assert client.recv(4096).startswith(b"HTTP/1.1 200")


def test_headers_without_end_are_refused() -> None:
    with serving(plain) as port, connect(port, b"GET / HTTP/1.1\r\n" + b"X-A: " + b"b" * 100_000) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 4")


def test_crowds_of_one_address_wait_outside() -> None:
    patience = Patience(most=server.PER_ADDRESS + 10, proxies=frozenset({"192.0.2.9"}))
    assert all(patience.admit("192.0.2.1") for _ in range(server.PER_ADDRESS))
    assert not patience.admit("192.0.2.1") and patience.admit("192.0.2.2")
    patience.leave("192.0.2.1")
    assert patience.admit("192.0.2.1")
    assert sum(patience.admit("192.0.2.9") for _ in range(20)) == 9
    patience.leave("192.0.2.2")
    assert patience.admit("127.0.0.1") and not patience.admit("127.0.0.1")


def post(length: int, data: bytes) -> bytes:
    head = f"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + data


def test_a_body_that_stops_coming_is_given_up(served: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_IDLE", 0.3)
    with serving(served.app) as port, connect(port, post(100, b"{")) as slow:
        assert b"408" in slow.recv(4096)


def test_a_body_that_drips_is_given_up(served: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_GRACE", 0.2)
    with serving(served.app) as port, connect(port, post(100_000, b"{")) as slow:
        with contextlib.suppress(OSError):
            for _ in range(50):
                slow.sendall(b" ")
                time.sleep(0.02)
        assert b"408" in slow.recv(4096)


def test_a_client_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "READ_PATIENCE", 0.3)
    seen = threading.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await plain(scope, receive, send)
            return
        answer = guard._Answer(send, "id")
        await answer({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await answer({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
        finally:
            seen.set()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(guard._SlowReader):
            await endless(scope, receive, send)

    with serving(guarded) as port, connect(port, ASK):
        assert seen.wait(20)


def test_the_app_hears_of_the_stop_before_connections_are_waited_for(served: Place) -> None:
    video = served.service.submit(VideoRequest(prompt="x", model="demo")).id
    with serving(served.app, served.app.begin_to_stop) as port:
        path = f"/v1/videos/{video}/events"
        stream = connect(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"event-stream" in stream.recv(4096)
    with stream:
        assert ends(stream)
    assert served.app.house.stopping
