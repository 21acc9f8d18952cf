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
from wanreel.host import OtherProcess
from wanreel.worker.worker import REPLACE

NewFarm = Callable[[str], Farm]

KNOBS: dict[str, Any] = {"model": "tiny:t2v-1.3b", "num_inference_steps": 24, "guidance_high": 4.0}
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


def outlived(new_farm: NewFarm) -> Callable[[Farm, Job, float], None]:
    """What a job comes to that nobody disturbs; and a check that the same one, disturbed at a time, came to it too."""
    alone = new_farm("alone")
    reference = alone.submit(**KNOBS)
    assert alone.work() == 0, alone.said()
    expected = str(alone.service.get(reference.id).result_sha256)

    def check(farm: Farm, job: Job, lost: float) -> None:
        for pid in re.findall(r"rank 1: process (\d+)", farm.said()):
            while not OtherProcess(int(pid)).gone:
                assert time.monotonic() - lost < 15
                time.sleep(0.05)
        assert time.monotonic() - lost < 15
        farm.settings.clear()  # one process goes on from what two saved
        assert farm.work() == 0, farm.said()
        farm.check({job.id: expected})
        resumed = [event.data["step"] for event in farm.service.store.events(job.id) if event.kind == "resumed"]
        assert resumed and resumed[-1] >= 2, "it did not begin at the beginning"
        assert not any("resumed_inexact" in note for note in farm.service.get(job.id).notes), "passes change no bit"

    return check


@pytest.mark.parametrize(
    ("stop", "stuck"),
    [
        pytest.param(signal.SIGKILL, "released", id="SIGKILL, and the exchange never comes back"),
        pytest.param(signal.SIGSTOP, "released", id="SIGSTOP, the same", marks=pytest.mark.deep),
        pytest.param(signal.SIGKILL, "", id="SIGKILL", marks=pytest.mark.deep),
        pytest.param(signal.SIGSTOP, "", id="SIGSTOP", marks=pytest.mark.deep),
    ],
)
def test_a_job_outlives_its_rank(new_farm: NewFarm, stop: signal.Signals, stuck: str) -> None:
    check, farm = outlived(new_farm), new_farm("together")
    farm.settings.update(TOGETHER | {"STUCK_EXCHANGES": stuck})
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    kill(wait_for_steps(farm, job, 3), stop)
    lost = time.monotonic()
    assert farm.server.wait(worker) == REPLACE, farm.said()
    first = farm.service.attempts(job.id)[-1]
    assert first.outcome is Outcome.FAILED and "Rank 1" in farm.said()
    assert first.error is not None and first.error.code == "device_fault"
    check(farm, job, lost)


@pytest.mark.deep
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP])
def test_a_job_outlives_a_process_that_is_stuck_in_native_code(new_farm: NewFarm, stop: signal.Signals) -> None:
    """Python's lock is held, so that not a line of the worker runs: the warden ends it."""
    check, farm = outlived(new_farm), new_farm("together")
    farm.settings.update(TOGETHER | {"STUCK_EXCHANGES": "held"})
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    kill(wait_for_steps(farm, job, 3), stop)
    lost = time.monotonic()
    assert farm.server.wait(worker) == -signal.SIGKILL, farm.said()
    check(farm, job, lost)
    assert "its worker died; it is queued now" in farm.said()


@pytest.mark.deep
def test_a_job_outlives_a_worker_that_is_stopped(new_farm: NewFarm) -> None:
    check, farm = outlived(new_farm), new_farm("together")
    farm.settings.update(TOGETHER)
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    wait_for_steps(farm, job, 3)
    kill(worker, signal.SIGSTOP)
    lost = time.monotonic()
    assert farm.server.wait(worker) == -signal.SIGKILL, farm.said()
    check(farm, job, lost)
    assert "its ranks were ended: it gave no sign of life" in farm.said()


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
    """A whole job on two ranks: its manifest, its notes, a drain in the middle, and no process left.

    The rank is asked to stop as well, as by a system that ends a service with all its processes: the worker still needs it.
    """
    farm = new_farm("record")
    farm.settings.update(TOGETHER | {"WANREEL_PARALLEL": "ulysses=2,fsdp"})
    job = farm.submit(**KNOBS)
    worker = farm.start("--once")
    rank = wait_for_steps(farm, job, 3)
    kill(rank, signal.SIGTERM)
    kill(worker, signal.SIGTERM)
    assert farm.server.wait(worker) == 0, farm.said()
    with pytest.raises(ProcessLookupError):
        os.kill(rank, 0)
    assert farm.service.attempts(job.id)[-1].outcome is Outcome.DRAINED
    farm.settings.clear()
    assert farm.work() == 0, farm.said()
    manifest = farm.manifest(farm.service.get(job.id))
    assert "shared by 2 ranks: ulysses 2, fsdp" in manifest.notes
    assert any("resumed_inexact: parallel: ulysses 2" in note for note in manifest.notes)
