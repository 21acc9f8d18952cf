"""The simulated line is the real one's equal, and what it tells of affinity holds in small."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.places import new_database, open_place
from wanreel.core.job import NewJob, Warm
from wanreel.jobs import JobStore

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import simulate_cluster as simulation  # pyright: ignore[reportMissingImports]

KINDS = tuple(
    simulation.Kind(model, adapters, load=20.0, run=60.0, visits=0.0, steps=10)
    for model, adapters in (("a", ""), ("a", "gold"), ("b", ""), ("c", ""))
)
MIX = tuple((kind, 1.0) for kind in KINDS)


class StoreLine:
    """The same as `HeapLine`, on a real store."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._jobs: dict[str, simulation.Waiting] = {}

    def join(self, job: simulation.Waiting) -> None:
        new = NewJob("{}", job.model, owner=job.owner, adapters=job.adapters)
        self._jobs[self._store.enqueue(new).id] = job

    def take(self, warm: Warm, *, alike: bool = False) -> simulation.Waiting | None:
        claimed = self._store.leases.claim("w", warm, alike=(lambda job: True) if alike else None)
        return None if claimed is None else self._jobs[claimed.id]


@pytest.fixture
def real(tmp_path: Path) -> Iterator[StoreLine]:
    store = JobStore(open_place(str(new_database(tmp_path))), capacity=1000)
    yield StoreLine(store)
    store.close()


def test_both_lines_hand_out_the_same_jobs(real: StoreLine) -> None:
    chance, simulated, taken = random.Random(3), simulation.HeapLine(), 0
    for seq in range(1, 121):
        kind, owner = chance.choice(KINDS), f"owner-{chance.randrange(4)}"
        if chance.random() < 0.6:
            for line in (real, simulated):
                line.join(simulation.Waiting(seq, kind, owner, 0.0))
        else:
            warm = Warm(tuple(chance.sample("abc", chance.randrange(3))), chance.choice(("", "gold")))
            alike = chance.random() < 0.3
            found = [line.take(warm, alike=alike) for line in (real, simulated)]
            assert [it and it.seq for it in found] == [found[0] and found[0].seq] * 2
            taken += found[0] is not None
    assert taken > 20


def test_a_cluster_on_a_real_store_goes_as_the_simulated_one(real: StoreLine) -> None:
    scene = simulation.Scene(3, MIX, jobs=60, load=0.95)
    one, other = simulation.Cluster(scene, real), simulation.Cluster(scene, simulation.HeapLine())
    assert one.run() == other.run()
    assert one.claims == other.claims and sorted(one.claims) == list(range(1, 61))


def test_affinity_saves_loads_and_keeps_nobody_waiting_for_ever() -> None:
    def told(*, affinity: bool, courtesy: bool) -> simulation.Outcome:
        return simulation.simulate(simulation.Scene(20, MIX, 2000, load=0.9, affinity=affinity, courtesy=courtesy))

    none, line, both = (
        told(affinity=False, courtesy=False),
        told(affinity=True, courtesy=False),
        told(affinity=True, courtesy=True),
    )
    assert both.loads < line.loads < none.loads
    assert both.wait_p99 < none.wait_p99
    assert both.jobs == none.jobs == 2000


def test_looks_grow_with_jobs_and_hardly_with_idle_workers() -> None:
    """Ten times as many workers and jobs: each job is looked for by some more, and not by ten times as many."""
    looks = [simulation.simulate(simulation.Scene(gpus, MIX, 20 * gpus, load=0.5)) for gpus in (50, 500)]
    few, many = (told.woken * told.hours * 3600 / told.jobs for told in looks)
    assert few < many < 3 * few < 0.25 * 50


def test_a_batch_pays_for_parts_once() -> None:
    """Four jobs of which each spends 30 of 60 s on bringing parts in, on one card that has enough of them."""
    kind = simulation.Kind("a", "", load=0.0, run=60.0, visits=30.0, steps=4)
    hours = [simulation.simulate(simulation.Scene(1, ((kind, 1.0),), 400, load=20.0, batch=it)).hours for it in (1, 4)]
    assert hours[0] / hours[1] == pytest.approx(240 / 150, rel=0.03)
