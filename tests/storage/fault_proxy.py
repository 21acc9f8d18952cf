"""A proxy in front of an S3 server that does it harm: one fault for each request that is due one, then it behaves."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})
Harm = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request, and ways to spoil it."""

    handler: BaseHTTPRequestHandler
    upstream: str
    method: str
    path: str

    def body(self) -> bytes:
        return self.handler.rfile.read(int(self.handler.headers.get("Content-Length") or 0))

    def answer(self, status: int, headers: dict[str, str], body: bytes, announced: int | None = None) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            if name.lower() not in (*_HOP, "content-length"):
                self.handler.send_header(name, value)
        self.handler.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.handler.end_headers()
        self.handler.wfile.write(body)
        self.handler.wfile.flush()

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes, int]:
        """What the server says: status, headers, body and announced length."""
        parts = urlsplit(self.upstream)
        assert parts.hostname is not None
        there = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=30)
        try:
            there.putrequest(self.method, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.handler.headers.items():
                if name.lower() not in (*_HOP, "expect"):
                    there.putheader(name, value)
            there.endheaders(body or None)
            got = there.getresponse()
            data = got.read()
            length = int(got.headers.get("Content-Length") or len(data))
            return got.status, dict(got.headers.items()), data, length
        finally:
            there.close()

    def reset(self) -> None:
        """The connection breaks as if the server had died."""
        connection = self.handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self.handler.wfile.flush()
        self.handler.rfile.close()
        connection.close()
        self.handler.close_connection = True


@dataclass
class FaultProxy:
    """`harms` are done one after the other, each to the next request that its rule is for."""

    url: str
    harms: list[tuple[Callable[[str, str], bool], Harm]] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)  #: method and path of every request
    lock: threading.Lock = field(default_factory=threading.Lock)

    def harm(self, harm: Harm, *, method: str = "", part: str = "", times: int = 1) -> None:
        """Do `harm` to the next requests of this method whose path holds `part`."""
        for _ in range(times):
            self.harms.append((lambda asked, path: asked.startswith(method) and part in path, harm))

    def next_harm(self, method: str, path: str) -> Harm | None:
        with self.lock:
            self.seen.append((method, path))
            for number, (fits, harm) in enumerate(self.harms):
                if fits(method, path):
                    del self.harms[number]
                    return harm
        return None

    def puts(self) -> list[str]:
        """Paths of the requests that brought bytes."""
        return [path for method, path in self.seen if method == "PUT"]


def pass_on(exchange: Exchange) -> None:
    status, headers, body, length = exchange.ask(exchange.body())
    exchange.answer(status, headers, body, length)


def refuse(status: int, code: str) -> Harm:
    """An answer of the server's own, as `503 SlowDown`."""

    def harm(exchange: Exchange) -> None:
        exchange.body()
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>canary-message</Message></Error>"
        exchange.answer(
            status, {"Content-Type": "application/xml"}, text.encode() if exchange.method != "HEAD" else b""
        )

    return harm


def reset_in_body(exchange: Exchange) -> None:
    exchange.handler.rfile.read(int(exchange.handler.headers.get("Content-Length") or 0) // 2)
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """The server has done it, and nobody hears."""
    exchange.ask(exchange.body())
    exchange.reset()


def truncate(exchange: Exchange) -> None:
    """An answer that ends early."""
    status, headers, body, length = exchange.ask(exchange.body())
    exchange.answer(status, headers, body[: len(body) // 2], max(length, 10))
    exchange.reset()


def damage(exchange: Exchange) -> None:
    """A byte changes on the way."""
    body = bytearray(exchange.body())
    body[len(body) // 2] ^= 1
    status, headers, answer, length = exchange.ask(bytes(body))
    exchange.answer(status, headers, answer, length)


def with_headers(**changed: str) -> Harm:
    """The server's answer with other headers."""

    def harm(exchange: Exchange) -> None:
        status, headers, body, length = exchange.ask(exchange.body())
        named = {name.replace("_", "-").lower(): value for name, value in changed.items()}
        kept = {name: value for name, value in headers.items() if name.lower() not in named}
        exchange.answer(status, kept | named, body, length)

    return harm


def redirect(to: str) -> Harm:
    def harm(exchange: Exchange) -> None:
        exchange.body()
        exchange.answer(307, {"Location": to}, b"")

    return harm


def hold(gate: threading.Event, began: threading.Event | None = None) -> Harm:
    """No answer until the gate opens."""

    def harm(exchange: Exchange) -> None:
        body = exchange.body()
        if began is not None:
            began.set()
        gate.wait(30)
        with contextlib.suppress(OSError):
            status, headers, answer, length = exchange.ask(body)
            exchange.answer(status, headers, answer, length)

    return harm


@contextlib.contextmanager
def fault_proxy(upstream: str) -> Generator[FaultProxy]:
    """A proxy in front of `upstream`."""
    proxy = FaultProxy("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            harm = proxy.next_harm(self.command, self.path) or pass_on
            with contextlib.suppress(OSError):
                harm(Exchange(self, upstream, self.command, self.path))

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
