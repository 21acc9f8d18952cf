"""Jobs that cost a worker less to begin go first, but for a few times only; on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.places import open_place
from wanreel.core.job import Job, NewJob, Warm
from wanreel.jobs import JobStore
from wanreel.jobs.policy import PASSES

HOT = Warm(("hot",))


@pytest.fixture
def store(place: str) -> Iterator[JobStore]:
    opened = JobStore(open_place(place), capacity=1000)
    yield opened
    opened.close()


def put(store: JobStore, models: str, *, adapters: str = "", priority: int = 0, owner: str = "") -> list[Job]:
    """A job for each word: the name of its model."""
    return [
        store.enqueue(NewJob("{}", model, adapters=adapters, priority=priority, owner=owner))
        for model in models.split()
    ]


def taken(store: JobStore, warm: Warm = HOT) -> Job:
    job = store.leases.claim("w", warm)
    assert job is not None
    return job


def test_a_worker_gets_the_job_whose_model_it_holds(store: JobStore) -> None:
    cold, other, hot = put(store, "cold other hot")
    assert taken(store).id == hot.id
    assert taken(store).id == cold.id
    assert taken(store, Warm(("x", "other"))).id == other.id


def test_nobody_is_passed_over_for_ever(store: JobStore) -> None:
    """With n before it, a job is claimed after at most n + (n + 1) * PASSES others."""
    cold = put(store, "cold cold")
    put(store, " ".join(["hot"] * 30))
    order = [taken(store).id for _ in range(2 + 2 * PASSES)]
    assert order.index(cold[0].id) == PASSES
    assert order.index(cold[1].id) == 1 + 2 * PASSES


def test_a_job_that_comes_back_may_be_passed_over_again(store: JobStore) -> None:
    (cold,) = put(store, "cold")
    hot = put(store, " ".join(["hot"] * 30))
    for number in range(PASSES):
        assert taken(store).id == hot[number].id
    assert taken(store).id == cold.id
    store.leases.requeue(cold.id, 1, "drain")
    assert taken(store).id == hot[PASSES].id


def test_priority_goes_before_what_a_worker_holds(store: JobStore) -> None:
    put(store, "hot")
    (urgent,) = put(store, "cold", priority=1)
    assert taken(store).id == urgent.id


def test_among_jobs_of_one_model_the_same_loras_are_best(store: JobStore) -> None:
    (bare,) = put(store, "hot")
    (gold,) = put(store, "hot", adapters="gold")
    (first,) = put(store, "cold", owner="ann")
    assert taken(store, Warm(("hot",), "gold")).id == gold.id
    assert taken(store, Warm(("hot",), "gold")).id == bare.id
    assert taken(store, Warm(("hot",), "gold")).id == first.id


def test_a_worker_that_holds_nothing_keeps_to_the_line(store: JobStore) -> None:
    jobs = put(store, "a b a b")
    assert [taken(store, Warm()).id for _ in jobs] == [job.id for job in jobs]


def test_fewer_models_are_loaded(store: JobStore) -> None:
    """Two models in turn: in order every job loads one, with affinity one in PASSES + 1 does."""
    put(store, " ".join(["a", "b"] * 20))
    held, loads = "", 0
    for _ in range(40):
        job = taken(store, Warm((held,)) if held else Warm())
        loads += job.model != held
        held = job.model
    assert loads <= 40 // (PASSES + 1) + 1


def test_a_worker_of_some_models_sees_no_other_jobs(store: JobStore) -> None:
    _, mine, other, hot = put(store, "cold mine cold hot")
    only = ("mine", "hot")
    for expected in (hot, mine):
        job = store.leases.claim("w", HOT, only)
        assert job is not None and job.id == expected.id
    assert store.leases.claim("w", HOT, only) is None, "what others make is left to them"
    store.leases.requeue(mine.id, 1, "drain")
    assert store.get(other.id).attempt == 0
    again = store.leases.claim("w", Warm(), only)
    assert again is not None and again.id == mine.id


def test_a_worker_may_ask_for_more_of_what_it_has_just_begun(store: JobStore) -> None:
    """Only what fits exactly, what it says yes to, and as often as the first in line lets pass."""
    (cold,) = put(store, "cold")
    hot = put(store, " ".join(["hot"] * 6))
    (gold,) = put(store, "hot", adapters="gold")
    assert store.leases.claim("w", HOT, alike=lambda job: job.id != hot[0].id) is None
    assert store.leases.claim("w", Warm(("lukewarm",)), alike=lambda job: True) is None
    assert store.leases.claim("w", Warm(), alike=lambda job: True) is None
    for number in range(PASSES):
        more = store.leases.claim("w", HOT, alike=lambda job: True)
        assert more is not None and more.id == hot[number].id
    assert store.leases.claim("w", HOT, alike=lambda job: True) is None
    assert taken(store).id == cold.id
    more = store.leases.claim("w", Warm(("hot",), "gold"), alike=lambda job: True)
    assert more is not None and more.id == gold.id


def test_who_waits_for_a_part_of_the_model_is_not_to_blame_for_its_workers_death(store: JobStore) -> None:
    (job,) = put(store, "hot")
    for attempt in range(1, 6):
        assert taken(store).attempt == attempt
        store.leases.wait(job.id, attempt, "low")
        assert store.get(job.id).progress.stage == "waiting"
        assert [back.id for back in store.leases.take_back({"w"})] == [job.id]
    for attempt in range(6, 9):
        taken(store)
        store.leases.wait(job.id, attempt, "low")
        store.leases.go_on(job.id, attempt, "low", "denoise")
        store.leases.take_back({"w"})
    failed = store.get(job.id)
    assert failed.error is not None and failed.error.code == "poison"
