"""The supervisor on real processes that do what their command says."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from wanreel.worker.supervisor import Process, Supervisor, start_detached, worker_commands

SLEEP = "import time; time.sleep(60)"
#: Obeys the first request to stop after a moment, and writes that it did.
POLITE = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(0.2)
    pathlib.Path(sys.argv[1]).write_text("stopped in order")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).write_text("ready")
time.sleep(60)
"""
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
pathlib.Path(sys.argv[1]).write_text("ready")
while True:
    time.sleep(1)
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", code, *arguments]


def wait_for(path: Path, text: str) -> None:
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text() == text):
        assert time.monotonic() < until
        time.sleep(0.01)


def run(supervisor: Supervisor) -> tuple[threading.Thread, list[int]]:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()))
    thread.start()
    return thread, codes


def test_a_stop_waits_for_the_worker(tmp_path: Path) -> None:
    said = tmp_path / "said"
    supervisor = Supervisor({"cpu": python(POLITE, str(said))})
    thread, codes = run(supervisor)
    wait_for(said, "ready")
    supervisor.stop("SIGTERM")
    thread.join(60)
    assert codes == [0] and said.read_text() == "stopped in order"


def test_a_second_stop_ends_it_at_once(tmp_path: Path) -> None:
    said = tmp_path / "said"
    supervisor = Supervisor({"cpu": python(STUBBORN, str(said))})
    thread, codes = run(supervisor)
    wait_for(said, "ready")
    supervisor.stop("SIGINT")
    time.sleep(0.3)
    assert thread.is_alive()
    supervisor.stop("SIGINT")
    thread.join(60)
    assert codes == [0] and not supervisor.pids


def test_the_dead_are_replaced_each_in_its_place(tmp_path: Path) -> None:
    supervisor = Supervisor({"cuda:0": python(SLEEP), "cuda:1": python(SLEEP)})
    thread, codes = run(supervisor)
    while len(supervisor.pids) < 2:
        time.sleep(0.01)
    first, other = supervisor.pids
    os.kill(first, 9)
    while first in supervisor.pids or len(supervisor.pids) < 2:
        time.sleep(0.01)
    assert supervisor.pids[1] == other
    supervisor.stop("SIGTERM")
    thread.join(60)
    assert codes == [0]


def test_a_worker_that_was_told_something_impossible_is_not_tried_again() -> None:
    supervisor = Supervisor({"cpu": python("import sys; sys.exit(2)")})
    assert supervisor.run() == 2


def test_tries_come_further_and_further_apart() -> None:
    """A worker that dies at once is started again after 0, 1, 2, 4, … seconds, one that asks for it at once."""
    now, starts = [0.0], []
    code = ["import sys; sys.exit(1)"]

    def start(command: Sequence[str]) -> Process:
        starts.append(now[0])
        process = start_detached(python(code[0]))
        process.wait()
        return process

    supervisor = Supervisor({"cpu": []}, start=start, clock=lambda: now[0])
    while len(starts) < 6:
        supervisor._tend()
        now[0] += 0.05
    assert [round(after - before) for before, after in zip(starts, starts[1:], strict=False)] == [0, 1, 2, 4, 8]
    code[0] = "import sys; sys.exit(85)"
    while len(starts) < 9:
        supervisor._tend()
        now[0] += 0.05
    assert starts[8] - starts[7] <= 1.0


def test_a_command_for_each_device_named() -> None:
    commands = worker_commands("cuda:1", ["--quiet"])
    assert list(commands) == ["cuda:1"]
    assert commands["cuda:1"][1:] == ["-m", "wanreel", "worker", "--supervised", "--quiet", "--device", "cuda:1"]
