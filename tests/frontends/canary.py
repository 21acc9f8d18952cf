"""Servers of this machine that the product may or may not call, and what they were asked."""

from __future__ import annotations

import contextlib
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAME = "canary.test"  # what the certificate is for


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Canary:
    """A server on loopback. `pages` answer by path; what is not there is 404."""

    port: int
    pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)  # asked for in TLS

    def answers(
        self, path: str, body: bytes = b"", status: int = 200, *, headers: dict[str, str] | None = None, **more: str
    ) -> None:
        def answer(to: BaseHTTPRequestHandler) -> None:
            to.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {}), **more}.items():
                to.send_header(name.replace("_", "-"), value)
            to.end_headers()
            to.wfile.write(body)

        self.pages[path] = answer

    def streams(self, path: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        """An answer without a length, for as long as somebody reads it."""

        def answer(to: BaseHTTPRequestHandler) -> None:
            to.send_response(200)
            to.end_headers()
            with contextlib.suppress(OSError):
                for chunk in chunks():
                    to.wfile.write(chunk)

        self.pages[path] = answer


def _handler(canary: Canary) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            canary.asked.append(Asked(self.command, self.path, dict(self.headers), self.rfile.read(length)))
            page = canary.pages.get(self.path.partition("?")[0])
            with contextlib.suppress(OSError):
                if page is None:
                    self.send_error(404)
                else:
                    page(self)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextlib.contextmanager
def canary(trust: ssl.SSLContext | None = None, address: str = "127.0.0.1") -> Generator[Canary]:
    """A Canary, with TLS where a server's `trust` is given."""
    made = Canary(0)
    server = ThreadingHTTPServer((address, 0), _handler(made))
    server.daemon_threads = True
    made.port = server.server_address[1]
    if trust is not None:
        trust.sni_callback = lambda _socket, name, _context: made.names.append(name)
        server.socket = trust.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def certificates(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server for NAME shows, and a client's trust in it."""
    program = shutil.which("openssl")
    assert program is not None, "openssl is needed to make a certificate"
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


def drip(piece: bytes, seconds: float) -> Callable[[], Iterator[bytes]]:
    """One piece at a time, for ever."""

    def chunks() -> Iterator[bytes]:
        while True:
            yield piece
            time.sleep(seconds)

    return chunks
