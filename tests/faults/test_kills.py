"""T1: the whole program is killed again and again, and nothing is lost, doubled or half there.
T10: what was begun in one process and ended in another is the same to the bit, for each architecture."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from faults.farm import Farm, kill
from wanreel.core.job import Job, JobStatus, Outcome

NewFarm = Callable[[str], Farm]

#: Where the gate kills, in the order of a job's life: through two jobs, and through the store's own transactions.
PLACES = (
    "attempt.claimed",
    "attempt.loaded",
    "attempt.step:kill@2",
    "complete.before_commit",
    "attempt.rendered",
    "complete.after_commit",
    "claim.after_commit",
    "attempt.denoised",
    "attempt.exported",
    "attempt.after_complete",
)


def rule(place: str) -> str:
    return place if ":" in place else f"{place}:kill"


def reference(new_farm: NewFarm, models: tuple[str, ...], count: int = 1) -> list[str]:
    """SHA-256 of what undisturbed jobs make."""
    farm = new_farm("reference")
    jobs = [submit(farm, number, models) for number in range(count)]
    assert farm.work() == 0, farm.said()
    hashes = [farm.service.get(job.id).result_sha256 for job in jobs]
    assert all(hashes), farm.said()
    return [str(sha256) for sha256 in hashes]


def submit(farm: Farm, number: int, models: tuple[str, ...]) -> Job:
    return farm.submit(f"circle number {number}", models[number % len(models)], seed=number)


def test_ten_kills_at_named_places(new_farm: NewFarm) -> None:
    models = ("tiny:ti2v-5b",)
    farm = new_farm("killed")
    hashes = reference(new_farm, models, 2)
    jobs = [submit(farm, number, models) for number in range(2)]
    for place in PLACES:
        assert farm.work(fault=rule(place)) == -9, (place, farm.said())
    assert farm.work() == 0, farm.said()
    farm.check({job.id: sha256 for job, sha256 in zip(jobs, hashes, strict=True)})
    lost = [attempt for job in jobs for attempt in farm.service.attempts(job.id) if attempt.outcome is Outcome.LOST]
    # The two kills after a commit of `complete` came when the job had ended.
    assert len(lost) == len(PLACES) - 2


ARCHITECTURES = (
    "tiny:t2v-1.3b",
    "tiny:i2v-14b-480p",
    "tiny:flf2v-14b-720p",
    "tiny:t2v-a14b",
    "tiny:i2v-a14b",
    "tiny:ti2v-5b",
)


def test_a_new_process_goes_on_to_the_same_bits(new_farm: NewFarm, picture: bytes) -> None:
    """Every process ends the job that the one before was killed in, and is killed in the next."""

    def submit_all(farm: Farm) -> list[Job]:
        seen = farm.runtime.take_picture(picture)
        pictures: dict[str, dict[str, Any]] = {"i2v": {"image": seen}, "flf2v": {"image": seen, "last_image": seen}}
        return [
            farm.submit(model=model, **pictures.get(model.removeprefix("tiny:").partition("-")[0], {}))
            for model in ARCHITECTURES
        ]

    whole, killed = new_farm("whole"), new_farm("killed")
    expected, jobs = submit_all(whole), submit_all(killed)
    assert whole.work() == 0, whole.said()
    for number in range(len(jobs)):
        # Two steps are left of the job before, but for the first process; the model is loaded for both.
        assert killed.work(fault=f"attempt.step:kill@{2 if number == 0 else 4}") == -9, killed.said()
    assert killed.work() == 0, killed.said()
    killed.check(
        {job.id: str(whole.service.get(like.id).result_sha256) for job, like in zip(jobs, expected, strict=True)}
    )
    for job, like in zip(jobs, expected, strict=True):
        assert killed.manifest(job).latents_sha256 == whole.manifest(like).latents_sha256
        kinds = [event.kind for event in killed.service.store.events(job.id)]
        assert kinds.count("resumed") == 1, kinds
        assert not [note for note in killed.service.get(job.id).notes if note.startswith("resumed_inexact")]


@pytest.mark.deep
def test_inexact_resume_is_noted(new_farm: NewFarm) -> None:
    """Another number of threads may add up in another order: the record says so."""
    farm = new_farm("inexact")
    jobs = [farm.submit(), farm.submit()]
    assert farm.work(fault="attempt.step:kill@2") == -9
    farm.settings["WANREEL_THREADS"] = "2"
    # The second job has its latents when it is killed: decoding them elsewhere is as inexact.
    assert farm.work(fault="attempt.denoised:kill@2") == -9
    farm.settings["WANREEL_THREADS"] = "1"
    assert farm.work() == 0
    for job, change in zip(jobs, ("threads: 1 → 2", "threads: 2 → 1"), strict=True):
        done = farm.service.get(job.id)
        assert done.status is JobStatus.COMPLETED
        assert f"resumed_inexact: {change}" in done.notes
        assert farm.manifest(done).notes == done.notes


@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_three_hundred_kills_at_random_moments(new_farm: NewFarm) -> None:
    chance, wanted = random.Random(300), int(os.environ.get("FAULT_KILLS", "300"))
    models = ("tiny:ti2v-5b", "tiny:t2v-a14b")
    farm = new_farm("killed")
    hashes = reference(new_farm, models, 12)
    expected: dict[str, str] = {}
    slowest, kills = 0.0, 0
    while kills < wanted:
        open_jobs = [farm.service.get(job_id) for job_id in expected]
        for job in open_jobs:
            if job.error is not None and job.error.code == "poison":
                farm.service.retry(job.id)  # three deaths in a row without a step between them
        if sum(not job.ended for job in open_jobs) < 3:
            number = len(expected)
            expected[submit_again(farm, number, models).id] = hashes[number % len(hashes)]
        pid = farm.start("--alone")
        began = time.monotonic()
        claimed = wait_for_claim(farm, expected)
        slowest = max(slowest, claimed - began)
        time.sleep(chance.uniform(0.0, 3.0))
        kill(pid)
        assert farm.server.wait(pid) == -9
        kills += 1
    while farm.work() == 0 and any(not farm.service.get(job_id).ended for job_id in expected):
        pass
    for job_id in expected:
        if farm.service.get(job_id).error is not None:
            farm.service.retry(job_id)
    assert farm.work() == 0
    farm.check(expected)
    print(f"{kills} kills, {len(expected)} jobs, back at work within {slowest:.2f} s")
    assert slowest <= 5.0


def submit_again(farm: Farm, number: int, models: tuple[str, ...]) -> Job:
    return submit(farm, number % 12, models)


def wait_for_claim(farm: Farm, jobs: dict[str, str]) -> float:
    """When a worker held a job, on the monotonic clock."""
    while not any(farm.service.get(job_id).status is JobStatus.IN_PROGRESS for job_id in reversed(list(jobs))):
        time.sleep(0.01)
    return time.monotonic()
