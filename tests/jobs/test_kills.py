"""T1: SIGKILL at every failpoint of the store and at random moments. The loop itself is kill_loop.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.kill_loop import History, check, open_store
from jobs.places import fast_folder, new_database, posix_only
from jobs.postgres_server import Server
from wanreel.core.job import NewJob

LOOP = Path(__file__).with_name("kill_loop.py")


def loop(kills: int, seed: int, place: str = "") -> dict[str, object]:
    # A killed process leaves what it gave to the kernel, so memory serves as well as a disk, and faster.
    folder = Path(tempfile.mkdtemp(dir=fast_folder()))
    try:
        command = [sys.executable, str(LOOP), place or str(folder / "wanreel.db"), str(kills), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(folder)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@posix_only
def test_100_kills_lose_and_double_nothing() -> None:
    """Each failpoint twice, and a few at random moments."""
    figures = loop(kills=100, seed=1)
    assert figures["faults"] == []
    assert figures["failpoints_missed"] == []


@posix_only
@pytest.mark.deep
@pytest.mark.timeout(3600)
@posix_only
def test_5000_kills_lose_and_double_nothing() -> None:
    figures = loop(kills=5000, seed=2)
    assert figures["faults"] == []


@posix_only
def test_50_kills_on_postgres_lose_and_double_nothing(postgres: Server) -> None:
    """Each failpoint once, and a few at random moments."""
    figures = loop(52, 3, postgres.new_database("wanreel_template"))
    assert figures["faults"] == []
    assert figures["failpoints_missed"] == []


@posix_only
@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_2000_kills_on_postgres_lose_and_double_nothing(postgres: Server) -> None:
    figures = loop(2000, 4, postgres.new_database("wanreel_template"))
    assert figures["faults"] == []


def test_the_history_finds_what_is_lost_and_doubled(tmp_path: Path) -> None:
    path = str(new_database(tmp_path))
    store = open_store(path)
    kept = store.enqueue(NewJob("{}", "demo"))
    gone = store.enqueue(NewJob("{}", "demo"))
    store.enqueue(NewJob("{}", "demo"))
    store.delete(gone.id)
    store.close()
    history = History()
    for line in (f"try a\nack a {kept.id}\ntry b\nack b {gone.id}\ndone {kept.id} 00").splitlines():
        history.hear(line)
    history.tried.discard("b")
    check(path, history)
    assert [fault.split(":")[0] for fault in history.faults] == ["lost", "lost"]
    lying = History(acked={"a": kept.id})
    check(path, lying)
    assert [fault.split(":")[0] for fault in lying.faults] == ["doubled"]
