"""The whole program on PostgreSQL: killed, cut off from its database, and gone on to the same bits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from faults.farm import SMALL, Farm, ForkServer, kill
from jobs.places import posix_only
from jobs.postgres_server import Server
from wanreel.core.job import JobStatus, Outcome

pytestmark = posix_only

STEPS = 24


@pytest.fixture
def farm(server: ForkServer, postgres: Server, tmp_path: Path) -> Iterator[Farm]:
    url = postgres.new_database("wanreel_template")
    made = Farm(tmp_path / "farm", server, database_url=url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """SHA-256 of what an undisturbed job makes, on SQLite."""
    farm = Farm(tmp_path_factory.mktemp("reference"), server)
    job = farm.submit(num_inference_steps=STEPS)
    assert farm.work() == 0, farm.said()
    sha256 = farm.service.get(job.id).result_sha256
    farm.close()
    return str(sha256)


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_killed_and_cut_off_it_goes_on_to_the_same_bits(farm: Farm, postgres: Server, expected: str) -> None:
    job = farm.submit(num_inference_steps=STEPS)
    assert farm.work(fault="attempt.step:kill@3") == -9, farm.said()
    assert farm.service.get(job.id).status is JobStatus.IN_PROGRESS
    pid = farm.start("--once")
    wait_for(lambda: farm.service.get(job.id).progress.step >= 5)
    name = farm.database_url.rpartition("/")[2]
    ended = postgres.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    assert len(ended) >= 2
    assert farm.server.wait(pid) == 0, farm.said()
    farm.check({job.id: expected})
    outcomes = [attempt.outcome for attempt in farm.service.attempts(job.id)]
    assert outcomes == [Outcome.LOST, Outcome.COMPLETED], farm.said()
    assert "resumed" in {event.kind for event in farm.service.store.events(job.id)}


@contextlib.contextmanager
def serving_whole(farm: Farm) -> Generator[tuple[subprocess.Popen[str], str]]:
    """`wanreel serve` with its worker, and its address."""
    env = os.environ | {
        "WANREEL_DATA_DIR": str(farm.root),
        "WANREEL_DATABASE_URL": farm.database_url,
        "WANREEL_DEVICE": "cpu",
        "WANREEL_THREADS": "1",
        "WANREEL_CHECKPOINT_SHARE": "1000",
        "WANREEL_MIN_FREE_GB": "0.05",
    }
    command = [sys.executable, "-m", "wanreel", "serve", "--port", "0", "--no-page"]
    with (farm.root / "serve.log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        address = ""
        while "http://" not in address:
            address = process.stdout.readline()
            assert address or process.poll() is None
        yield process, "http://" + address.partition("http://")[2].split()[0].rstrip("/.,")
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
        process.kill()
        process.wait()


def worker_pids(process: subprocess.Popen[str]) -> list[int]:
    return [child.pid for child in psutil.Process(process.pid).children() if "worker" in child.cmdline()]


@pytest.mark.deep
def test_a_server_and_its_worker_live_on_postgresql(farm: Farm, expected: str) -> None:
    with serving_whole(farm) as (process, address), httpx.Client(base_url=address, timeout=30.0) as client:
        values = {**SMALL, "num_inference_steps": STEPS, "seed": 7, "model": "tiny:ti2v-5b"}
        answer = client.post("/v1/videos", json={"prompt": "a red circle moves right", **values})
        assert answer.status_code in (200, 201, 202), answer.text
        job_id = str(answer.json()["id"])
        wait_for(lambda: farm.service.get(job_id).progress.step >= 3, 120.0)
        for pid in worker_pids(process):
            kill(pid)
        wait_for(lambda: farm.service.get(job_id).ended, 120.0)
        assert client.get(f"/v1/videos/{job_id}").json()["status"] == "completed"
        assert client.get("/v1/system").status_code == 200
    job = farm.service.get(job_id)
    assert (job.status, job.result_sha256) == (JobStatus.COMPLETED, expected)
    assert [it.outcome for it in farm.service.attempts(job_id)] == [Outcome.LOST, Outcome.COMPLETED]
