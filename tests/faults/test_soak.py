"""T16: one worker makes hundreds of jobs, some of them cancelled or failing, and grows in nothing."""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from faults.farm import Farm, kill
from wanreel.core.errors import IllegalTransition
from wanreel.core.job import JobStatus

JOBS = int(os.environ.get("SOAK_JOBS", "500"))
WARM = 150  # jobs after which nothing may grow any more; until then models are swapped, which moves the heap about
AT_ONCE = 10  # jobs in line


@dataclass(frozen=True)
class Sample:
    """The worker at one moment."""

    jobs: int
    rss: int  # bytes
    files: int
    threads: int


def sample(process: psutil.Process, jobs: int) -> Sample:
    return Sample(jobs, process.memory_info().rss, process.num_fds(), process.num_threads())


@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_five_hundred_jobs_in_one_process(new_farm: Callable[[str], Farm]) -> None:
    farm, chance = new_farm("soak"), random.Random(16)
    farm.settings["WANREEL_MAX_QUEUE_SIZE"] = "1000"
    pid = farm.start("--alone", "--quiet")
    process, samples = psutil.Process(pid), list[Sample]()
    ids: list[str] = []
    while len(ids) < JOBS:
        model = chance.choice(("tiny:ti2v-5b", "tiny:t2v-1.3b")) if len(ids) < WARM else "tiny:ti2v-5b"
        job = farm.submit(f"soak {len(ids)}", model, seed=len(ids), num_inference_steps=2)
        ids.append(job.id)
        deed = chance.random()
        if deed < 0.05:
            with contextlib.suppress(IllegalTransition):  # it was quicker
                farm.service.cancel(job.id)
        elif deed < 0.10:
            farm.service.store.edit(job.id, '{"of": "another version"}', model)
        while farm.service.queue().queued >= AT_ONCE:
            time.sleep(0.05)
        if len(ids) % 25 == 0:
            samples.append(sample(process, len(ids)))
    while farm.service.queue().queued + farm.service.queue().in_progress:
        time.sleep(0.1)
    samples.append(sample(process, len(ids)))
    kill(pid, 15)
    assert farm.server.wait(pid) == 0
    endings = [farm.service.get(job_id) for job_id in ids]
    assert all(job.ended for job in endings)
    assert {job.error.code for job in endings if job.error} <= {"invalid_request"}
    late = [each for each in samples if each.jobs > WARM + AT_ONCE]
    slope, _ = statistics.linear_regression([each.jobs for each in late], [each.rss for each in late])
    completed = sum(job.status is JobStatus.COMPLETED for job in endings)
    print(f"{len(ids)} jobs, {completed} completed; RSS grows {slope * 100 / 2**20:.3f} MiB per 100 jobs; {late[-1]}")
    assert slope * 100 <= 2**20, " ".join(f"{each.jobs}:{each.rss / 2**20:.1f}" for each in samples)
    assert late[-1].files <= late[0].files + 2 and late[-1].threads <= late[0].threads + 1
    assert not leftovers(farm.root)


def leftovers(root: Path) -> list[Path]:
    """Half-written files, reserved space, previews and locks."""
    lying = [path for pattern in ("*.part*", "*.space", "*.tmp", "*.lock", "*.bell") for path in root.rglob(pattern)]
    return lying + list((root / "previews").iterdir())
