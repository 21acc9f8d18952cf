"""A thousand slow clients of slowhttptest: others are answered, and the slow ones are closed (T15)."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from frontends.http.started import serve
from jobs.places import needs
from wanreel.host import open_file_limit

#: slowhttptest's ways: headers, bodies and answers that come, or are read, a little at a time.
MODES = {
    "headers": ["-H", "-i", "5", "-t", "GET"],
    "bodies": ["-B", "-i", "5", "-t", "POST", "-s", "8192", "-f", "application/json"],
    "answers": ["-X", "-n", "5", "-w", "1", "-y", "2", "-z", "32", "-k", "3"],
}
CONNECTIONS = 1000
SECONDS = 40  #: that slowhttptest holds on


class Probe:
    """How long /live takes, asked again and again on connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []

    def _ask(self) -> None:
        while not self._done.wait(0.05):
            began = time.monotonic()
            with httpx.Client() as client:
                assert client.get(f"{self._url}/live", timeout=30).status_code == 200
            self.seconds.append(time.monotonic() - began)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * share)]


class Held:
    """How many files a process holds beyond those it held at first."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._first = process.num_fds()

    def now(self) -> int:
        return self._process.num_fds() - self._first


def attack(mode: str, url: str, held: Held) -> tuple[int, float]:
    """Runs slowhttptest; the most connections there were, and for how many seconds there were many."""
    target = f"{url}/v1/models" if mode == "answers" else f"{url}/v1/videos"
    command = ["slowhttptest", *MODES[mode], "-c", str(CONNECTIONS), "-r", "500", "-l", str(SECONDS), "-p", "20"]
    slow = subprocess.Popen([*command, "-u", target], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began, most, until = time.monotonic(), 0, 0.0
    while slow.poll() is None:
        now = held.now()
        most = max(most, now)
        if now > CONNECTIONS / 10:
            until = time.monotonic() - began
        time.sleep(0.2)
    return most, until


@pytest.mark.deep
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_slow_clients(mode: str, tmp_path: Path) -> None:
    needs("slowhttptest")
    open_file_limit()
    with serve(tmp_path / "data", "--api-only") as running:
        with Probe(running.url) as calm:
            time.sleep(3)
        held = Held(psutil.Process(running.process.pid))
        with Probe(running.url) as probe:
            most, until = attack(mode, running.url, held)
        end = time.monotonic() + 60
        while held.now() > 5 and time.monotonic() < end:
            time.sleep(0.2)
        print(
            f"{mode}: {most} connections, held for {until:.0f} s, {held.now()} files more afterwards; /live p99 "
            f"{probe.percentile(0.99) * 1000:.0f} ms, before {calm.percentile(0.99) * 1000:.0f} ms"
        )
        assert most > CONNECTIONS / 2, "the slow clients did connect"
        assert len(probe.seconds) > 5 and held.now() <= 5
        # slowhttptest opens each connection but once: those that the server gave up stay closed.
        assert until < SECONDS - 5 or mode == "answers", "answers that are read slowly are waited for longer"
