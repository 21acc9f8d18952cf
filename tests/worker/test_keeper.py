"""The keeper ends what does not come back, on a clock that the test turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from wanreel.core.job import Job, JobStatus, Outcome
from wanreel.worker.keeper import HUNG, Keeper
from worker.bench import Bench


class Clock:
    """Seconds, turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A claimed job and its keeper, whose thread is not started."""

    def __init__(self, bench: Bench, limit: float = 60.0) -> None:
        self.bench = bench
        bench.submit()
        bench.store.leases.register("cpu-test")
        job = bench.store.leases.claim("cpu-test")
        assert job is not None
        self.id = job.id
        self.clock = Clock()
        self.left: list[int] = []
        self.keeper = Keeper(bench.store.leases, job, limit, clock=self.clock, leave=self.left.append)

    @property
    def job(self) -> Job:
        return self.bench.store.get(self.id)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.keeper.look()


@pytest.fixture
def scene(bench: Bench) -> Scene:
    return Scene(bench)


def test_within_the_limit_nothing_happens(scene: Scene) -> None:
    scene.after(59.0)
    assert not scene.keeper.token.cancelled and not scene.left


def test_past_the_limit_the_work_is_asked_and_then_ended(scene: Scene) -> None:
    scene.after(61.0)
    assert scene.keeper.token.reason == "timeout" and not scene.left
    scene.after(11.0)
    assert scene.left == [HUNG]
    assert scene.job.error is not None and scene.job.error.code == "timeout"


def test_a_drain_while_loading_does_not_wait_for_the_load(scene: Scene) -> None:
    scene.keeper.drain()
    assert scene.keeper.token.reason == "drain"
    scene.after(0.5)
    scene.after(11.0)
    assert scene.left == [0]
    assert (scene.job.status, scene.job.attempts_charged) == (JobStatus.QUEUED, 0)


def test_a_drain_while_denoising_waits_for_the_step(scene: Scene) -> None:
    scene.keeper.pace.stage = "denoise"
    scene.keeper.pace.step_seconds = 20.0
    scene.keeper.drain()
    scene.after(0.5)
    scene.after(30.0)
    assert scene.keeper.draining and not scene.keeper.token.cancelled and not scene.left
    scene.after(25.0)
    assert scene.left == [0]


def test_a_cancel_that_is_not_obeyed_ends_the_process(scene: Scene) -> None:
    scene.bench.service.cancel(scene.id)
    scene.after(0.5)
    assert scene.keeper.token.reason == "cancelled"
    scene.after(11.0)
    assert scene.left == [HUNG]
    assert scene.job.status is JobStatus.CANCELLED


def test_a_lost_lease_stops_the_work(scene: Scene) -> None:
    scene.bench.store.leases.recover(lambda name: False)
    scene.after(0.5)
    assert scene.keeper.token.reason == "lease_lost"
    assert scene.bench.store.attempts(scene.id)[0].outcome is Outcome.LOST


def test_a_database_out_of_reach_is_no_order(scene: Scene, tmp_path: Path) -> None:
    scene.bench.data.database.rename(tmp_path / "elsewhere")
    scene.bench.data.database.mkdir()
    scene.keeper.look()
    assert not scene.keeper.token.cancelled
    scene.bench.data.database.rmdir()
    (tmp_path / "elsewhere").rename(scene.bench.data.database)
