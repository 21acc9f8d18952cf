"""Bombs are refused soon and cost little memory (T17); no name in a request makes the server open anything (T19)."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest

from frontends.audit import Watch, watching
from frontends.http.hostile import BODIES, MARK, PICTURES, clear, names
from frontends.http.places import Open, Place
from frontends.http.started import Served, serve

# Together, as they share a server.
pytestmark = [pytest.mark.xdist_group("bombs"), pytest.mark.timeout(300)]

_MOST_MEMORY = 150e6  #: that what is refused may cost
_MOST_FOR_A_PICTURE = 400e6  #: the largest that is accepted: 132 MB of pixels with transparency, 99 MB without
_LONGEST = 10.0  #: seconds of work, which a busy machine does not lengthen
_INTERNALS = re.compile(r"0x[0-9a-f]{6,}|Traceback|site-packages|/home/|\.py\b")


class Peak:
    """The most memory that a process held within the block, beyond what it held before. Bytes."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.grown = 0
        self.seconds = 0.0  #: of the processor

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self.grown = max(self.grown, self._process.memory_info().rss - self._before)

    def __enter__(self) -> Peak:
        self._before, self._worked = self._process.memory_info().rss, self._work()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.seconds = self._work() - self._worked

    def _work(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("bombs"), "--api-only") as running:
        warm = httpx.post(f"{running.url}/v1/plan", json={"prompt": "x", "model": "demo"})
        assert warm.status_code == 200
        yield running


def check(bare: Served, answer: httpx.Response, peak: Peak, most: float = _MOST_MEMORY) -> None:
    print(f"{answer.status_code} after {peak.seconds:.2f} s of work, {peak.grown / 1e6:.0f} MB")
    assert peak.seconds < _LONGEST
    assert peak.grown < most
    assert not _INTERNALS.search(answer.text)
    assert bare.process.poll() is None


@pytest.mark.parametrize(("name", "make", "is_picture"), PICTURES, ids=[name for name, *_ in PICTURES])
def test_pictures_that_grow(bare: Served, name: str, make: Any, is_picture: bool) -> None:
    data = make()
    with Peak(psutil.Process(bare.process.pid)) as peak:
        answer = httpx.post(f"{bare.url}/v1/files", files={"file": (f"{name}.png", data, "image/png")}, timeout=60)
    check(bare, answer, peak, _MOST_FOR_A_PICTURE if is_picture else _MOST_MEMORY)
    assert answer.status_code == (200 if is_picture else 400), answer.text


def test_a_crowd_of_the_largest_pictures(bare: Served) -> None:
    """Two are read at a time; the others wait as the bytes they came as."""
    data = clear(8192, 4028)

    def send(_: int) -> int:
        answer = httpx.post(f"{bare.url}/v1/files", files={"file": ("x.png", data)}, timeout=120)
        return answer.status_code

    with Peak(psutil.Process(bare.process.pid)) as peak, ThreadPoolExecutor(8) as crowd:
        statuses = list(crowd.map(send, range(8)))
    print(f"{peak.grown / 1e6:.0f} MB")
    assert set(statuses) <= {200, 503} and 200 in statuses
    assert peak.grown < 600e6


@pytest.mark.parametrize(("name", "kind", "make"), BODIES, ids=[name for name, *_ in BODIES])
def test_bodies_that_grow(bare: Served, name: str, kind: str, make: Any) -> None:
    data = make()
    with Peak(psutil.Process(bare.process.pid)) as peak:
        try:
            answer = httpx.post(f"{bare.url}/v1/videos", content=data, headers={"Content-Type": kind}, timeout=60)
        except httpx.TransportError:  # it was refused, and the connection closed, before all was sent
            answer = httpx.Response(413)
    check(bare, answer, peak)
    assert answer.status_code in (400, 413), answer.text


# Names


async def ask(app: Any, method: str, target: bytes, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """One request to the app itself: no client, which would tidy the path up."""
    path, _, query = target.partition(b"?")
    sent = [(b"host", b"127.0.0.1:7860"), *((name.encode(), text.encode("latin-1")) for name, text in headers.items())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path.decode("utf-8", "surrogateescape"), "raw_path": path, "query_string": query, "root_path": "",
        "headers": sent, "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 7860),
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    status, data = 0, bytearray()

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        data.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, bytes(data)


_PATHS = (
    "GET /v1/videos/{}", "GET /v1/videos/{}/content", "GET /v1/videos/{}/preview", "GET /v1/videos/{}/manifest",
    "DELETE /v1/videos/{}", "GET /v1/files/{}", "DELETE /v1/files/{}", "GET /v1/models/{}", "GET /v1/tasks/{}/result",
    "GET /v1/tasks/{}/status", "GET /{}", "GET /v1/videos?after={}", "GET /v1/{}",
)  # fmt: skip
_FIELDS = ("image", "last_image", "image_path", "model", "output_path", "save_result_path", "loras", "input_reference",
           "image_url", "size", "preset", "quality")  # fmt: skip


def requests(count: int, outside: Path) -> Iterator[tuple[int, str, bytes, dict[str, str], bytes]]:
    """Requests with `count` names in them, and how many each has."""
    source = names(str(outside))
    for number, name in enumerate(itertools.islice(source, count)):
        if number % 4 == 0:
            method, _, path = _PATHS[number // 4 % len(_PATHS)].partition(" ")
            yield 1, method, path.format(name).encode("utf-8", "surrogatepass"), {}, b""
        elif number % 4 == 1:
            method, _, path = _PATHS[number // 4 % len(_PATHS)].partition(" ")
            yield (
                1,
                method,
                path.format(quote(name, safe="")).encode(),
                {"Range": "bytes=0-9", "Cookie": f"a={MARK}"},
                b"",
            )
        elif number % 4 == 2:
            taken = [name, *itertools.islice(source, 5)]
            values: dict[str, object] = {**dict(zip(_FIELDS[number % 7 :], taken)), "prompt": "x"}
            if "loras" in values:
                values["loras"] = [{"name": values["loras"]}]
            yield (
                min(len(taken), len(_FIELDS) - number % 7),
                "POST",
                b"/v1/plan",
                {"content-type": "application/json"},
                json.dumps(values).encode(),
            )
        else:
            shown = name.encode("utf-8", "replace").replace(b'"', b"%22").replace(b"\r", b"").replace(b"\n", b"")
            field = b"file" if number % 8 == 3 else b"input_reference"
            body = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n\x89PNG\r\n--b--\r\n' % (
                field,
                shown,
            )
            target = b"/v1/files" if number % 8 == 3 else b"/v1/videos"
            yield 1, "POST", target, {"content-type": "multipart/form-data; boundary=b"}, body


def fuzz_names(place: Place, outside: Path, count: int) -> tuple[int, Watch]:
    """Sends them all; how many names there were, and what was opened."""

    async def send_all() -> int:
        sent = 0
        for held, method, target, headers, body in requests(count, outside):
            status, data = await ask(place.app, method, target, headers, body)
            assert status < 500 and b"outside the roots" not in data, (method, target, status)
            sent += held
        return sent

    with watching() as watch:
        sent = asyncio.run(send_all())
    return sent, watch


def strangers(watch: Watch, place: Place) -> list[str]:
    """What was opened that is neither the data directory's nor Python's own."""
    roots = [place.folder, *map(Path, sys.path), Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[3]]
    known = [str(root.resolve()) for root in roots if root.parts]
    known += ["/dev/null", "/dev/urandom", "/proc", "/sys"]  # what psutil looks at; a name would be known by its mark
    found: list[str] = []
    for text in watch.opens:
        path = str(Path(text).absolute())
        inside = any(path == root or path.startswith(f"{root}/") for root in known)
        if MARK in text or ".." in Path(text).parts or not inside:
            found.append(text)
    return found


def outside_file(tmp_path: Path, place: Place) -> Path:
    """A file beside the data directory, and a link to it from within."""
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"outside the roots")
    (place.folder / "uploads").mkdir(exist_ok=True)
    (place.folder / "uploads" / "link").symlink_to(outside)
    (place.folder / "outputs").mkdir(exist_ok=True)
    (place.folder / "outputs" / "link").symlink_to(outside)
    return outside


@pytest.mark.skipif(sys.platform == "win32", reason="its roots look otherwise")
def test_no_name_opens_a_file(open_place: Open, tmp_path: Path) -> None:
    place = open_place(max_queue_size=100_000)
    sent, watch = fuzz_names(place, outside_file(tmp_path, place), 5000)
    assert sent >= 10_000 and strangers(watch, place) == []
    assert any(text.startswith(str(place.folder)) for text in watch.opens), "the watch sees what is opened"


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform == "win32", reason="its roots look otherwise")
def test_no_name_of_two_hundred_thousand_opens_a_file(open_place: Open, tmp_path: Path) -> None:
    place = open_place(max_queue_size=100_000)
    sent, watch = fuzz_names(place, outside_file(tmp_path, place), 100_000)
    print(f"{sent} names, {len(watch.opens)} files opened")
    assert sent >= 200_000 and strangers(watch, place) == []


def test_the_watch_sees_a_path_that_is_followed(place: Place, tmp_path: Path) -> None:
    """The positive control."""
    outside = outside_file(tmp_path, place)
    with watching() as watch:
        (place.folder / "uploads" / ".." / ".." / outside.name).exists()
        outside.read_bytes()
        with pytest.raises(OSError, match=MARK):
            Path(f"/etc/{MARK}").read_bytes()
    assert set(strangers(watch, place)) == {str(outside), f"/etc/{MARK}"}
