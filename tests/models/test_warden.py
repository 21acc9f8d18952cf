"""The warden: whatever a worker is stuck in, it and its ranks are ended from outside. No tensors, so nothing to import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest

from wanreel.host import OtherProcess
from wanreel.models.parallel.warden import Warden

#: A worker with a guard and two ranks, one of which is stopped and would outlive anybody. What happens then is `deed`.
WORKER = """
import ctypes, os, signal, subprocess, sys, time
from wanreel.models.parallel.guard import Guard
null = subprocess.DEVNULL
ranks = [subprocess.Popen(["sleep", "600"], stdin=null, stdout=null, stderr=null) for _ in range(2)]
os.kill(ranks[1].pid, signal.SIGSTOP)
guard = Guard([rank.pid for rank in ranks])
guard.beat(1.0)
print(guard.pid, *(rank.pid for rank in ranks), flush=True)
sys.stdin.readline()
{deed}
print("here", flush=True)
"""
DEEDS = {
    "holds Python's lock": "ctypes.PyDLL(None).pause()",
    "is stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "does not end in time": "guard.end_within(0.4)\nwhile True:\n    guard.beat(30.0)\n    time.sleep(0.1)",
    "lets go of its warden": "guard.beat(60.0)\nguard._wire.close()\ntime.sleep(600)",
    "loses its warden": (
        "os.kill(guard.pid, signal.SIGKILL)\nguard._process.wait()\nguard.beat(0.9)\nctypes.PyDLL(None).pause()"
    ),
    "lives": "for _ in range(12):\n    guard.beat(1.0 + _ % 2)\n    time.sleep(0.1)\nguard.leave()",
}


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Alive:
    """A process that does not end by itself."""

    pid: int = 1
    gone: bool = False
    stopped: bool = False
    killed: list[int] = field(default_factory=list[int])

    def kill(self) -> None:
        self.killed.append(self.pid)


def test_what_follows_from_what_is_known() -> None:
    clock, worker = Clock(), Alive()
    warden = Warden(worker, (), clock)  # type: ignore[arg-type]
    clock.now += 59
    assert warden.verdict == ""
    warden.hear({"patience": 9.0})
    clock.now += 8.9
    assert warden.verdict == ""
    clock.now += 0.2
    assert "no sign of life for 9 s" in warden.verdict
    warden.hear({"patience": 60.0})
    assert warden.verdict == "", "it was only late"
    clock.now += 9.1
    assert warden.verdict == "", "it may be busy"
    worker.stopped = True
    assert "no sign of life for 9 s" in warden.verdict, "but not stopped"
    worker.stopped = False
    warden.hear({"within": 4.0})
    warden.hear({"within": 40.0})
    clock.now += 4.1
    assert "lost a rank" in warden.verdict, "the first word counts"
    assert not warden.left
    warden.hear({"leave": True})
    assert warden.left
    worker.gone = True
    assert warden.verdict == "it has ended"


def test_a_process_by_its_number() -> None:
    child = subprocess.Popen(["sleep", "600"])
    other = OtherProcess(child.pid)
    assert not other.gone and not other.stopped and other.pid == child.pid
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert other.stopped and not other.gone
    other.kill()
    child.wait()
    assert other.gone
    other.kill()  # nobody is hit
    assert OtherProcess(child.pid).gone


@pytest.fixture(scope="module")
def ended() -> dict[str, tuple[int, str, str, list[int]]]:
    """Exit code, stdout, stderr and the numbers of warden and ranks of a worker to which each deed happens; all at once."""
    pipe = subprocess.PIPE
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-c", WORKER.format(deed=deed)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        for name, deed in DEEDS.items()
    }
    pids: dict[str, list[int]] = {}
    for name, worker in workers.items():
        assert worker.stdin is not None and worker.stdout is not None
        pids[name] = [int(word) for word in worker.stdout.readline().split()]
        worker.stdin.write("go\n")
        worker.stdin.flush()
    try:
        said = {name: worker.communicate(timeout=30) for name, worker in workers.items()}
    except subprocess.TimeoutExpired:
        for pid in (
            *(worker.pid for worker in workers.values()),
            *(pid for all_of_them in pids.values() for pid in all_of_them),
        ):
            OtherProcess(pid).kill()
        raise
    return {name: (worker.returncode, *said[name], pids[name]) for name, worker in workers.items()}


@pytest.mark.parametrize("deed", [name for name in DEEDS if name != "lives"])
def test_nobody_is_left(ended: dict[str, tuple[int, str, str, list[int]]], deed: str) -> None:
    code, said, errors, pids = ended[deed]
    assert code == -signal.SIGKILL and "here" not in said
    assert ("were ended" in errors) == (deed != "is killed"), errors
    end = time.monotonic() + 20
    while any(not OtherProcess(pid).gone for pid in pids):
        assert time.monotonic() < end, "the warden and every rank end, a stopped one too"
        time.sleep(0.05)


def test_nothing_happens_to_who_lives(ended: dict[str, tuple[int, str, str, list[int]]]) -> None:
    code, said, errors, (warden, *ranks) = ended["lives"]
    assert (code, said.strip(), errors) == (0, "here", "")
    assert OtherProcess(warden).gone
    for rank in ranks:
        assert not OtherProcess(rank).gone
        os.kill(rank, signal.SIGKILL)
