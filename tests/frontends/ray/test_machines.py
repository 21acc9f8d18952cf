"""Several machines on PostgreSQL and S3: one dies in mid-job, pools follow the load, everything is replaced under load."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from frontends.ray.clusters import SMALL, Running, cluster, machine, wait_for
from jobs.postgres_server import serving
from storage.seaweed import seaweed
from wanreel.core.job import JobStatus, Outcome
from wanreel.core.settings import load_settings
from wanreel.service import Service
from wanreel.wiring import build_runtime, build_service

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1800)]

MODEL = "tiny:ti2v-5b"
LONG = 100  # steps


@dataclass
class Site:
    """A cluster whose first machine runs no workers, and the test's own look into its queue."""

    running: Running
    service: Service
    folder: Path

    def submit(self, steps: int = 4, **values: Any) -> str:
        body = {"prompt": "a red circle moves right", "model": MODEL, **SMALL, "num_inference_steps": steps, **values}
        answer = httpx.post(f"{self.running.url}/v1/videos", json=body, timeout=60.0)
        assert answer.status_code in (200, 201, 202), answer.text
        return str(answer.json()["id"])

    def step(self, job_id: str) -> int:
        return self.service.get(job_id).progress.step

    def outcomes(self, job_id: str) -> list[Outcome]:
        return [attempt.outcome for attempt in self.service.attempts(job_id)]

    def all_done(self, ids: list[str]) -> bool:
        return all(self.service.get(job_id).ended for job_id in ids)

    @property
    def members(self) -> list[dict[str, Any]]:
        return [row for pool in self.running.status()["pools"] for row in pool["workers"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with opened(folder) as made:
        yield made


@contextmanager
def opened(folder: Path) -> Generator[Site]:
    with serving() as postgres, seaweed() as s3:
        url = postgres.new_database("wanreel_template")
        profile = {name.upper(): str(value) for name, value in s3.profile().items() if value}
        settings = {
            "WANREEL_DATABASE_URL": url,
            "WANREEL_WORKER_LEASE_SECONDS": "15",
            "WANREEL_SHARED_STORAGE": "lan",
            "WANREEL_DEFAULT_STORAGE": "lan",
            **{f"WANREEL_STORAGE__LAN__{name}": value for name, value in profile.items()},
        }
        pool = f"all={MODEL} cpus=1 workers=0-2"
        with cluster(
            folder / "head", "--pool", pool, "--ray-cpus", "0", "--idle", "3", "--target", "1", **settings
        ) as up:
            runtime = build_runtime(load_settings(data_dir=folder / "look", database_url=url))
            service = build_service(runtime)
            yield Site(up, service, folder)
            service.close()
            runtime.close()


def test_ray_takes_nobody_without_the_token(site: Site) -> None:
    known = dict(site.running.settings)
    try:
        site.running.settings["RAY_AUTH_TOKEN"] = "0" * 64
        with pytest.raises(AssertionError, match="can't be reached"):
            site.running.command("status")
    finally:
        site.running.settings = known


def test_a_machine_dies_in_mid_job_and_another_goes_on_to_the_same_bits(site: Site) -> None:
    folders = [site.folder / "a", site.folder / "b"]
    with machine(site.running, folders[0], "--cpus", "1") as a, machine(site.running, folders[1], "--cpus", "1") as b:
        job = site.submit(LONG)
        wait_for(lambda: site.step(job) >= 5)
        worker = site.service.get(job).worker
        (on,) = [index for index, folder in enumerate(folders) if list((folder / "workers").glob(f"{worker}*"))]
        (a, b)[on].die()
        at = site.step(job)
        assert at < LONG, "the job was over too soon"
        wait_for(lambda: site.service.get(job).ended)
        done = site.service.get(job)
        assert (done.status, site.outcomes(job)) == (JobStatus.COMPLETED, [Outcome.LOST, Outcome.COMPLETED])
        (resumed,) = [event for event in site.service.store.events(job) if event.kind == "resumed"]
        assert resumed.data["step"] > 0, resumed.data
        video = httpx.get(f"{site.running.url}/v1/videos/{job}/content", follow_redirects=True, timeout=90.0)
        assert video.status_code == 200 and video.content[4:8] == b"ftyp"
        again = site.submit(LONG)
        wait_for(lambda: site.service.get(again).ended)
        undisturbed = site.service.get(again)
        assert (undisturbed.result_sha256, site.outcomes(again)) == (done.result_sha256, [Outcome.COMPLETED])
        answered = site.running.make(model=MODEL)
        assert answered["success"] is True, "its file lies in storage alone"
        print(f"died at step {at} of {LONG}, went on from {resumed.data}")


def test_pools_follow_the_load_and_everything_is_replaced_under_it(site: Site) -> None:
    with (
        machine(site.running, site.folder / "c", "--cpus", "1"),
        machine(site.running, site.folder / "d", "--cpus", "1"),
    ):
        ids = [site.submit(20, seed=number) for number in range(12)]
        wait_for(lambda: sum(row["state"] == "busy" for row in site.members) == 2)
        wait_for(lambda: site.all_done(ids))
        wait_for(lambda: not site.members)
        wait_for(lambda: not site.service.store.workers())
        ids += [site.submit(40, seed=number) for number in range(8)]
        wait_for(lambda: any(row["state"] == "busy" for row in site.members))
        pool = f"all={MODEL} cpus=1 workers=0-2"
        site.running.command("update", "--pool", pool, "--idle", "3", "--target", "1")
        ids += [site.submit(10, seed=number) for number in range(4)]
        wait_for(lambda: site.all_done(ids))
        wait_for(lambda: not site.members)
        assert Counter(site.service.get(job_id).status for job_id in ids) == {JobStatus.COMPLETED: 24}
        assert all(site.outcomes(job_id) == [Outcome.COMPLETED] for job_id in ids), "nobody was disturbed"
        workers = {attempt.worker for job_id in ids for attempt in site.service.attempts(job_id)}
        print(f"{len(ids)} jobs, {len(workers)} workers, 0 lost")
