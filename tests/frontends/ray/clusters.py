"""`wanreel cluster` in processes of its own, as operators use it; more machines are more of Ray's nodes on this one."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

#: Small enough that a job takes about a second.
SMALL = {"num_frames": 5, "width": 64, "height": 64, "num_inference_steps": 4, "seed": 7}
PATIENCE = 240.0  # seconds: the machine may be busy with other tests


def needed() -> None:
    """Skips where Ray is not installed; in CI it fails, where never being run would look like passing."""
    if find_spec("ray") is None:
        if os.environ.get("CI"):
            pytest.fail("Ray is not installed")
        pytest.skip("Ray is not installed")


def wait_for(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it never came"
        time.sleep(0.1)
    return found


@dataclass
class Running:
    """A `wanreel cluster up` and the machines that joined it."""

    data: Path
    settings: dict[str, str] = field(default_factory=dict[str, str])
    process: subprocess.Popen[str] | None = None
    lines: list[str] = field(default_factory=list[str])

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "WANREEL_DATA_DIR": str(self.data),
            "WANREEL_MIN_FREE_GB": "0.05",
            "WANREEL_THREADS": "1",
            "WANREEL_CHECKPOINT_SHARE": "1000",  # after every step, though steps take no time here
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **self.settings,
        }

    def up(self, *options: str) -> None:
        command = [sys.executable, "-m", "wanreel", "cluster", "up", "--port", "0", "--quiet", *options]
        with (self.data.parent / f"{self.data.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if "Ctrl-C ends it" in line:
                return
        raise AssertionError(f"{self.lines}, {self.process.wait()}: {self.log()}")

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()[-3000:]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None and self.process.stdout is not None
        self.process.send_signal(how)
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()
            self.process.stdout.close()

    @property
    def url(self) -> str:
        return self._said(r"listens on (http://[\d.]+:\d+)")

    @property
    def ray(self) -> str:
        return self._said(r"Ray: ([\d.]+:\d+)")

    def _said(self, pattern: str) -> str:
        found = re.search(pattern, "".join(self.lines))
        assert found, self.lines
        return found[1]

    def command(self, *arguments: str) -> str:
        """`wanreel cluster …`; what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "wanreel", "cluster", *arguments],
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        return json.loads(self.command("status", "--json"))

    def make(self, **values: Any) -> dict[str, Any]:
        """What FastVideo's clients do."""
        body = {"prompt": "a red circle moves right", **SMALL, **values}
        answer = httpx.post(f"{self.url}/generate_video", json=body, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.contextmanager
def cluster(data: Path, *options: str, **settings: str) -> Generator[Running]:
    needed()
    running = Running(data, settings)
    try:
        running.up(*options)
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.end()


@dataclass
class Machine:
    """One more node of Ray's on this machine."""

    process: subprocess.Popen[str]

    def die(self) -> None:
        """All of it at once, as when the power goes."""
        found = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()


@contextlib.contextmanager
def machine(running: Running, data: Path, *options: str) -> Generator[Machine]:
    """A machine with a data directory of its own."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "ray.token").write_text((running.data / "ray.token").read_text())
    environment = running.environment | {"WANREEL_DATA_DIR": str(data)}
    command = [sys.executable, "-m", "wanreel", "cluster", "join", running.ray, "--ray-ip", "127.0.0.1", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        assert "has joined" in process.stdout.readline(), process.wait()
        yield Machine(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()
        process.stdout.close()
