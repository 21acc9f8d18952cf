"""HubServer: a model hub on this machine, with the HTTP contract that hub clients use, and with faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

Mode = Literal[
    "ok",
    "truncate",
    "stall",
    "unavailable",
    "busy",
    "flip",
    "longer",
    "etag",
    "circle",
    "ignore-range",
    "forbidden",
    "slow",
]
LARGE = 4096  #: bytes from which a file counts as LFS


@dataclass
class Fault:
    """What goes wrong with files whose path contains `path`."""

    path: str
    mode: Mode
    times: float = 1  #: how often; inf for always


@dataclass
class HubServer:
    """Repositories of files in memory. `requests` counts what was asked for."""

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commit: str = "c" * 40
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""
    listing: Callable[[dict[str, Any]], dict[str, Any]] = lambda body: body
    released: threading.Event = field(default_factory=threading.Event)  #: ends every stall

    def add_folder(self, repo: str, folder: Path) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.repos[repo] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def fault(self, path: str) -> Mode:
        """The fault that this request meets; counted down."""
        for fault in self.faults:
            if fault.path in path and fault.times > 0:
                fault.times -= 1
                return fault.mode
        return "ok"


@contextmanager
def hub_server(**repos: dict[str, bytes]) -> Generator[HubServer]:
    """A hub on a free port of loopback."""
    state = HubServer(dict(repos))

    class Handler(_Handler):
        hub = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests[path] += 1
        if authorization := self.headers.get("Authorization"):
            self.hub.tokens.append(authorization)
        if path.startswith("/api/models/"):
            self._list(path)
        elif path.startswith("/cdn/"):
            self._send_file(path.removeprefix("/cdn/"))
        else:
            self._resolve(path)

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, path: str) -> None:
        repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        mode = self.hub.fault("LISTING")
        if mode == "unavailable":
            self._answer(503)
        elif mode == "busy":
            self._answer(429, Retry_After="0.05")
        elif mode == "forbidden":
            self._answer(401)
        elif repo not in self.hub.repos or revision not in ("main", self.hub.commit):
            self._answer(404)
        else:
            siblings = [_sibling(name, data) for name, data in self.hub.repos[repo].items()]
            body = self.hub.listing({"id": repo, "sha": self.hub.commit, "siblings": siblings})
            self._answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _resolve(self, path: str) -> None:
        """As the hub: a large file is elsewhere, on a content network."""
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        commit, _, name = rest.partition("/")
        data = self.hub.repos.get(repo, {}).get(name)
        if data is None or commit != self.hub.commit:
            self._answer(404)
        elif len(data) >= LARGE:
            self._answer(302, Location=f"{self.hub.url}/cdn/{repo}/{name}", X_Repo_Commit=commit)
        else:
            self._send_file(f"{repo}/{name}")

    def _send_file(self, path: str) -> None:
        owner, name, file = path.split("/", 2)
        data = self.hub.repos[f"{owner}/{name}"][file]
        mode = self.hub.fault(path)
        if mode in ("unavailable", "busy", "forbidden"):
            status = {"unavailable": 503, "busy": 429, "forbidden": 403}[mode]
            headers = {"Retry_After": "0.05"} if mode == "busy" else {}
            self._answer(status, b"", **headers)
        elif mode == "circle":
            self._answer(302, Location=self.hub.url + self.path)
        else:
            self._send_bytes(data, mode)

    def _send_bytes(self, data: bytes, mode: Mode) -> None:
        start = 0
        asked = self.headers.get("Range")
        if asked:
            self.hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(data) and asked:
            self._answer(416)
            return
        if mode == "ignore-range":
            start, asked = 0, None
        etag = hashlib.sha256(data).hexdigest()
        if mode in ("flip", "etag"):  # other bytes: by damage, or because the file was replaced meanwhile
            place = start + (len(data) - start) // 2
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            etag = hashlib.sha256(data).hexdigest() if mode == "etag" else etag
        body = data[start:] + (b"more" if mode == "longer" else b"")
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{etag}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._write(body, mode)

    def _write(self, body: bytes, mode: Mode) -> None:
        try:
            if mode in ("truncate", "stall"):
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                if mode == "stall":
                    self.hub.released.wait(30)
                self.close_connection = True
            elif mode == "slow":
                for start in range(0, len(body), 65536):
                    self.wfile.write(body[start : start + 65536])
                    time.sleep(0.02)
            else:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    row: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": blob}
    if len(data) >= LARGE:
        row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return row
