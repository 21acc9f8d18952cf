"""T21: a rank of a worker dies or stops in the middle of a job. Nothing hangs, and the job goes on, on any number of ranks."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from faults.farm import Farm, kill
from wanreel.core.job import Job, Outcome
from wanreel.worker.worker import REPLACE

NewFarm = Callable[[str], Farm]

KNOBS: dict[str, Any] = {"model": "tiny:t2v-1.3b", "num_inference_steps": 60, "guidance_high": 4.0}
TOGETHER = {"WANREEL_MULTI_GPU": "true", "WANREEL_PARALLEL": "cfg=2"}
_PATIENCE = 300.0  # seconds; machines may be busy


def wait_for_steps(farm: Farm, job: Job, steps: int) -> int:
    """The pid of rank 1, once so many steps are on record."""
    end = time.monotonic() + _PATIENCE
    while farm.service.get(job.id).progress.step < steps:
        assert time.monotonic() < end, farm.said()
        time.sleep(0.05)
    found = re.findall(r"rank 1: process (\d+)", farm.said())
    assert found, farm.said()
    return int(found[-1])


@pytest.mark.parametrize(
    "stop",
    [pytest.param(signal.SIGKILL, id="SIGKILL"), pytest.param(signal.SIGSTOP, id="SIGSTOP", marks=pytest.mark.deep)],
)
def test_a_job_outlives_its_rank(new_farm: NewFarm, stop: signal.Signals) -> None:
    alone = new_farm("alone")
    reference = alone.submit(**KNOBS)
    assert alone.work() == 0, alone.said()
    farm = new_farm("together")
    farm.settings.update(TOGETHER)
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    rank = wait_for_steps(farm, job, 3)
    kill(rank, stop)
    lost = time.monotonic()
    assert farm.server.wait(worker) == REPLACE, farm.said()
    assert time.monotonic() - lost < 15
    with pytest.raises(ProcessLookupError):
        os.kill(rank, 0)
    first = farm.service.attempts(job.id)[-1]
    assert first.outcome is Outcome.FAILED and "Rank 1" in farm.said()
    farm.settings.clear()  # one process goes on from what two saved
    assert farm.work() == 0, farm.said()
    expected = alone.service.get(reference.id).result_sha256
    farm.check({job.id: str(expected)})
    resumed = [event.data["step"] for event in farm.service.store.events(job.id) if event.kind == "resumed"]
    assert resumed and resumed[-1] >= 2, "it did not begin at the beginning"
    assert not any("resumed_inexact" in note for note in farm.service.get(job.id).notes), "passes at once change no bit"


@pytest.mark.deep
def test_ranks_end_with_their_worker(new_farm: NewFarm) -> None:
    farm = new_farm("ended")
    farm.settings.update(TOGETHER)
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    rank = wait_for_steps(farm, job, 2)
    kill(worker)
    assert farm.server.wait(worker) == -9
    end = time.monotonic() + 15
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(rank, 0)
            time.sleep(0.1)


@pytest.mark.deep
def test_a_plan_is_on_record(new_farm: NewFarm) -> None:
    """A whole job on two ranks: its manifest, its notes, a drain in the middle, and no process left."""
    farm = new_farm("record")
    farm.settings.update(TOGETHER | {"WANREEL_PARALLEL": "ulysses=2,fsdp"})
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    rank = wait_for_steps(farm, job, 3)
    kill(worker, signal.SIGTERM)
    assert farm.server.wait(worker) == 0, farm.said()
    with pytest.raises(ProcessLookupError):
        os.kill(rank, 0)
    farm.settings.clear()
    assert farm.work() == 0, farm.said()
    manifest = farm.manifest(farm.service.get(job.id))
    assert "shared by 2 ranks: ulysses 2, fsdp" in manifest.notes
    assert any("resumed_inexact: parallel: ulysses 2" in note for note in manifest.notes)
