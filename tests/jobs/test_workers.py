"""T8: each job is claimed once however many work; a stopped worker that wakes up late is fenced off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from jobs.places import fast_folder, new_database, open_place, posix_only
from jobs.postgres_server import Server
from wanreel.core.job import JobStatus, NewJob
from wanreel.jobs import JobStore, Liveness

RACE = Path(__file__).with_name("worker_race.py")

ZOMBIE = """
import sys
sys.path.insert(0, sys.argv[2])
from jobs.places import open_place
from wanreel.core.errors import LeaseLost
from wanreel.jobs import JobStore
store = JobStore(open_place(sys.argv[1]))
job = store.leases.claim("zombie")
print("claimed", flush=True)
sys.stdin.readline()
try:
    store.leases.complete(job.id, job.attempt, "from the dead")
except LeaseLost:
    print("fenced", flush=True)
"""

HOLDER = """
import pathlib, sys
from wanreel.jobs import JobStore, Liveness
name, lock = Liveness(pathlib.Path(sys.argv[2])).new_worker("cuda-0")
store = JobStore.open(pathlib.Path(sys.argv[1]))
store.leases.register(name)
store.leases.claim(name)
print(name, flush=True)
sys.stdin.readline()
"""


def race(jobs: int, processes: int, place: str = "") -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(dir=fast_folder()))
    try:
        command = [sys.executable, str(RACE), place or str(new_database(folder)), str(jobs), str(processes)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(folder)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def hold(figures: dict[str, object]) -> None:
    assert figures["claimed_once"], figures
    assert figures["completed_once"], figures
    assert figures["attempts_agree"], figures
    assert set(figures["children"]) == {0}, figures  # type: ignore[call-overload]


@posix_only
def test_eight_processes_claim_each_job_once() -> None:
    hold(race(200, 8))


@posix_only
def test_eight_processes_claim_each_job_once_on_postgres(postgres: Server) -> None:
    hold(race(80, 8, postgres.new_database("wanreel_template")))


@posix_only
@pytest.mark.deep
def test_eight_processes_claim_each_of_1000_jobs_once_on_postgres(postgres: Server) -> None:
    hold(race(1000, 8, postgres.new_database("wanreel_template")))


@posix_only
@pytest.mark.deep
def test_eight_processes_claim_each_of_10000_jobs_once() -> None:
    hold(race(10_000, 8))


@posix_only
def test_a_stopped_worker_that_wakes_up_is_fenced(place: str) -> None:
    store = JobStore(open_place(place))
    job = store.enqueue(NewJob("{}", "demo"))
    command = [sys.executable, "-c", ZOMBIE, place, str(RACE.parents[1])]
    zombie = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert zombie.stdin is not None
    assert zombie.stdout is not None
    assert zombie.stdout.readline() == "claimed\n"
    os.kill(zombie.pid, signal.SIGSTOP)
    assert [lost.id for lost in store.leases.recover(lambda name: name != "zombie")] == [job.id]
    again = store.leases.claim("living")
    assert again is not None
    assert again.attempt == 2
    store.leases.complete(job.id, again.attempt, "from the living")
    os.kill(zombie.pid, signal.SIGCONT)
    out, _ = zombie.communicate("go on\n", timeout=60)
    assert out == "fenced\n"
    assert store.get(job.id).result_sha256 == "from the living"
    store.close()


@posix_only
@pytest.mark.parametrize("end", ["SIGKILL", "SIGSTOP"])
def test_only_death_releases_a_workers_job(tmp_path: Path, end: str) -> None:
    path, liveness = new_database(tmp_path), Liveness(tmp_path / "workers")
    store = JobStore.open(path)
    job = store.enqueue(NewJob("{}", "demo"))
    command = [sys.executable, "-c", HOLDER, str(path), str(tmp_path / "workers")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    name = holder.stdout.readline().strip()
    assert liveness.is_alive(name)
    os.kill(holder.pid, signal.Signals[end])
    if end == "SIGSTOP":
        assert store.leases.recover(liveness.is_alive) == ()
        assert store.get(job.id).status is JobStatus.IN_PROGRESS
        holder.kill()
    holder.wait()
    assert [lost.id for lost in store.leases.recover(liveness.is_alive)] == [job.id]
    assert store.get(job.id).status is JobStatus.QUEUED
    holder.communicate()
    store.close()


@pytest.mark.deep
def test_fifty_readers_do_not_hold_a_heartbeat_up(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    store = JobStore.open(path, capacity=10_000)
    for _ in range(5000):
        store.enqueue(NewJob('{"prompt": "' + "x" * 400 + '"}', "demo"))
    store.close()
    stop = threading.Event()
    readers = JobStore.open(path)
    listed = [0] * 50

    def read(number: int) -> None:
        while not stop.is_set():
            assert len(readers.list(limit=5000)) == 5000
            listed[number] += 1

    threads = [threading.Thread(target=read, args=(number,)) for number in range(50)]
    script = (
        "import pathlib, sys, time; from wanreel.core.job import Progress; from wanreel.jobs import JobStore\n"
        "store = JobStore.open(pathlib.Path(sys.argv[1])); job = store.leases.claim('w'); worst = 0.0\n"
        "sys.stdin.readline()\n"
        "for step in range(100):\n"
        "    began = time.monotonic()\n"
        "    store.leases.heartbeat(job.id, 1, Progress('denoise', step, 100))\n"
        "    worst = max(worst, time.monotonic() - began)\n"
        "    time.sleep(0.05)\n"
        "print(worst)"
    )
    command = [sys.executable, "-c", script, str(path)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for thread in threads:
        thread.start()
    out, _ = worker.communicate("go\n", timeout=280)
    stop.set()
    for thread in threads:
        thread.join()
    readers.close()
    assert sum(listed) > 50
    assert float(out) <= 1.0, f"{out.strip()} s beside {sum(listed)} listings"
