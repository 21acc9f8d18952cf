"""Waits, loads and database calls of clusters that do not exist: `python scripts/simulate_cluster.py [--json FILE]`.

Real: which job a worker takes, which turn a job gets and how long idle workers wait before they look for one that was called
out (wanreel.jobs.policy, the functions that stores and workers call), the plans and seconds of jobs and loads (core/memory.py),
the pace at which workers write. Modelled: the line, which lies in heaps here and is compared with a real store in tests;
arrivals (Poisson, owners of very different diligence); that the database takes no time but for ANSWER; that nothing fails.
Time is simulated: a day of ten thousand GPUs takes a minute or two.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wanreel.core.catalog import Catalog
from wanreel.core.job import Warm
from wanreel.core.machines import card_named, machine_of_card
from wanreel.core.memory import plan_memory
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload
from wanreel.jobs.policy import choose, patience, turn_of

PICTURE = PictureRef("1" * 64, 832, 480)
#: What is asked for, and how often: model, LoRAs, knobs, weight.
MIX: tuple[tuple[str, str, dict[str, Any], float], ...] = (
    ("fastwan2.1-t2v-1.3b", "", {}, 0.30),
    ("t2v-1.3b", "", {}, 0.10),
    ("ti2v-5b", "", {}, 0.20),
    ("t2v-a14b", "", {"resolution": "480P", "num_inference_steps": 20}, 0.10),
    (
        "t2v-a14b",
        "few-steps",
        {"resolution": "480P", "num_inference_steps": 4, "guidance_high": 1.0, "guidance_low": 1.0},
        0.15,
    ),
    ("i2v-14b-480p", "", {"image": PICTURE, "num_inference_steps": 20}, 0.15),
)
OWNERS = 200
HOLDS = 2  #: models that fit in a machine's memory beside each other
WRITE_PROGRESS = 0.5  #: seconds between two writes of a job's progress at least (worker/report.py)
RECORDS = 7  #: further writes of a job: accepted, claimed, loaded, encoded, exported, measured, completed
RENEW, SAMPLE, IDLE_LOOK, ORDERS_LOOK = 5.0, 5.0, 5.0, 5.0  #: seconds; of a shared store
#: Statements of a look that was called for, and of one that a worker makes by itself: house and groups too.
READS_A_LOOK, READS_AN_IDLE_LOOK = 2, 4
READS_A_CLAIM = 12  #: statements that read, of a claim that finds a job
ANSWER = 0.02  #: seconds from a look until the other workers have heard that the job is taken


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job, priced for a card. Seconds."""

    model: str
    adapters: str
    load: float
    run: float
    visits: float  #: of `run`, for bringing parts of the model in, which jobs of one batch share
    steps: int


@dataclass(slots=True)
class Waiting:
    """A queued job, as the policy sees it."""

    seq: int
    kind: Kind
    owner: str
    since: float
    turn: int = 0
    passed_over: int = 0
    taken: bool = False

    @property
    def model(self) -> str:
        return self.kind.model

    @property
    def adapters(self) -> str:
        return self.kind.adapters


class Line(Protocol):
    """Where jobs wait."""

    def join(self, job: Waiting) -> None: ...

    def take(self, warm: Warm, *, alike: bool = False) -> Waiting | None: ...


@dataclass
class HeapLine:
    """The line of `jobs/line.py` for one priority, in memory."""

    _all: list[tuple[int, int, Waiting]] = field(default_factory=list[tuple[int, int, Waiting]])
    _by: dict[tuple[str, str | None], list[tuple[int, int, Waiting]]] = field(
        default_factory=dict[tuple[str, str | None], list[tuple[int, int, Waiting]]]
    )
    _latest: dict[str, int] = field(default_factory=dict[str, int])
    _claimed: int = 0

    def join(self, job: Waiting) -> None:
        job.turn = self._latest[job.owner] = turn_of(self._claimed, self._latest.get(job.owner, 0))
        entry = (job.turn, job.seq, job)
        for heap in (self._all, *(self._by.setdefault((job.model, it), []) for it in (None, job.adapters))):
            heapq.heappush(heap, entry)

    def take(self, warm: Warm, *, alike: bool = False) -> Waiting | None:
        first = _first(self._all)
        if first is None:
            return None
        job = choose(first, warm, self._find, alike=alike)
        if job is None:
            return None
        if job is not first:
            first.passed_over += 1
        job.taken, self._claimed = True, max(self._claimed, job.turn)
        return job

    def _find(self, models: Collection[str], adapters: str | None) -> Waiting | None:
        found = [it for model in models if (it := _first(self._by.get((model, adapters), []))) is not None]
        return min(found, key=lambda it: (it.turn, it.seq), default=None)


def _first(heap: list[tuple[int, int, Waiting]]) -> Waiting | None:
    while heap and heap[0][2].taken:
        heapq.heappop(heap)
    return heap[0][2] if heap else None


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated."""

    gpus: int
    kinds: tuple[tuple[Kind, float], ...]
    jobs: int
    load: float = 0.8  #: work handed in, of what the GPUs could do if nothing had to be loaded
    affinity: bool = True  #: workers say what they hold
    courtesy: bool = True  #: they let those go first who hold what a job needs
    batch: int = 1
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. Seconds; calls a second."""

    gpus: int
    jobs: int
    wait_p50: float
    wait_p95: float
    wait_p99: float
    busy: float  #: share of the GPUs' time in jobs and loads
    loads: float  #: a job
    loading: float  #: share of the GPUs' time
    hours: float  #: simulated
    writes: float
    reads: float
    woken: float  #: idle workers that look for a job that was called out, a second


class Cluster:
    """One run."""

    def __init__(self, scene: Scene, line: Line) -> None:
        self._scene, self._line = scene, line
        self._chance = random.Random(scene.seed)
        self._held: list[list[tuple[str, str]]] = [[] for _ in range(scene.gpus)]  # used longest ago first
        self._idle = Idle(range(scene.gpus), self._chance)
        self._happenings: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()
        self._queued = 0
        self._waits: list[float] = []
        self._busy = self._loading = self._work = 0.0
        self._loads = self._progress = 0
        self._woken = 0.0
        self._idle_seconds, self._idle_since = 0.0, 0.0
        self.claims: list[int] = []

    def run(self) -> Outcome:
        scene = self._scene
        for job in self._arrivals():
            self._at(job.since, lambda now, job=job: self._arrive(job, now))
        now = 0.0
        while self._happenings:
            now, _, happens = heapq.heappop(self._happenings)
            happens(now)
        return self._told(now, scene)

    def _arrivals(self) -> Iterator[Waiting]:
        scene, now = self._scene, 0.0
        kinds, weights = zip(*scene.kinds)
        mean = sum(kind.run * weight for kind, weight in scene.kinds) / sum(weights)
        owners = [1.0 / (rank + 1) for rank in range(OWNERS)]
        for seq in range(1, scene.jobs + 1):
            now += self._chance.expovariate(scene.load * scene.gpus / mean)
            (kind,), (owner,) = self._chance.choices(kinds, weights), self._chance.choices(range(OWNERS), owners)
            yield Waiting(seq, kind, f"owner-{owner}", now)

    def _at(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._happenings, (when, next(self._number), happens))

    def _arrive(self, job: Waiting, now: float) -> None:
        self._line.join(job)
        self._queued += 1
        if idle := len(self._idle):
            what = (job.model, job.adapters)
            self._call(job, idle, self._idle.count(what) if self._scene.courtesy else 0, now)

    def _call(self, job: Waiting, idle: int, suited: int, now: float) -> None:
        """All that are idle hear of it. Of those that suit it, or of all, the one looks that has drawn the least, and who
        comes before he is heard to have it."""
        among = suited or idle
        least = 1.0 - (1.0 - self._chance.random()) ** (1.0 / among)
        first, last = (self._patience(bool(suited), idle, it) for it in (least, 1.0))
        self._woken += 1.0 + (among - 1) * min(1.0, ANSWER / max(last - first, ANSWER))
        self._at(now + first, lambda then: self._look(job, bool(suited), then))

    def _patience(self, suits: bool, idle: int, chance: float) -> float:
        """Where nobody says what he holds, nobody is let go first."""
        wait = patience(suits, idle, chance)
        return wait if self._scene.courtesy else patience(False, idle, chance) - patience(False, idle, 0.0)

    def _look(self, job: Waiting, suited: bool, now: float) -> None:
        if not self._queued or not len(self._idle):
            return
        worker = self._idle.holding((job.model, job.adapters)) if suited else self._idle.any()
        if worker is not None:
            self._claim(worker, now)
        elif not job.taken:  # who suited it has begun something else meanwhile
            self._call(job, len(self._idle), 0, now)

    def _claim(self, worker: int, now: float) -> None:
        held = self._held[worker]
        warm = Warm(tuple(model for model, _ in held), held[-1][1] if held else "") if self._scene.affinity else Warm()
        job = self._line.take(warm)
        if job is None:
            self._idle.add(worker, held)
            return
        self._idle.remove(worker, held)
        batch = [job]
        if job.kind.visits:
            only = Warm((job.model,), job.adapters)
            while len(batch) < self._scene.batch and (more := self._line.take(only, alike=True)) is not None:
                batch.append(more)
        self._queued -= len(batch)
        for one in batch:
            self._waits.append(now - one.since)
            self.claims.append(one.seq)
        load = self._bring(worker, job)
        run = sum(one.kind.run for one in batch) - job.kind.visits * (len(batch) - 1)
        self._loading += load
        self._busy += load + run
        self._progress += sum(min(one.kind.steps, int(one.kind.run / WRITE_PROGRESS) + 1) for one in batch)
        self._at(now + load + run, lambda then: self._claim(worker, then))

    def _bring(self, worker: int, job: Waiting) -> float:
        """The worker holds the job's model now; seconds that this took."""
        held = self._held[worker]
        known = next((it for it in held if it[0] == job.model), None)
        if known is not None:
            held.remove(known)
        held.append((job.model, job.adapters))
        del held[:-HOLDS]
        self._loads += known is None
        return 0.0 if known is not None else job.kind.load

    def _told(self, now: float, scene: Scene) -> Outcome:
        waits, jobs, total = sorted(self._waits), len(self._waits), now * scene.gpus
        idle = (total - self._busy) / now  # workers, on average
        writes = jobs * RECORDS + self._progress
        reads = self._woken * READS_A_LOOK + jobs * READS_A_CLAIM
        return Outcome(
            gpus=scene.gpus,
            jobs=jobs,
            wait_p50=waits[jobs // 2],
            wait_p95=waits[int(0.95 * jobs)],
            wait_p99=waits[int(0.99 * jobs)],
            busy=self._busy / total,
            loads=self._loads / jobs,
            loading=self._loading / total,
            hours=now / 3600,
            writes=writes / now + scene.gpus * (1 / RENEW + 1 / SAMPLE),
            reads=reads / now + idle * READS_AN_IDLE_LOOK / IDLE_LOOK + (scene.gpus - idle) / ORDERS_LOOK,
            woken=self._woken / now,
        )


class Idle:
    """The workers that have nothing to do, by what they hold."""

    def __init__(self, workers: Collection[int], chance: random.Random) -> None:
        self._chance = chance
        self._list = list(workers)
        self._place = {worker: place for place, worker in enumerate(self._list)}
        self._holding: dict[tuple[str, str], set[int]] = {}

    def __len__(self) -> int:
        return len(self._list)

    def count(self, what: tuple[str, str]) -> int:
        """How many hold this model and have applied these LoRAs last."""
        return len(self._holding.get(what, ()))

    def any(self) -> int:
        return self._chance.choice(self._list)

    def holding(self, what: tuple[str, str]) -> int | None:
        """One that holds this model and has applied these LoRAs last."""
        return next(iter(self._holding.get(what, ())), None)

    def add(self, worker: int, held: list[tuple[str, str]]) -> None:
        if worker in self._place:
            return
        self._place[worker] = len(self._list)
        self._list.append(worker)
        for model, _ in held:
            self._holding.setdefault((model, held[-1][1]), set()).add(worker)

    def remove(self, worker: int, held: list[tuple[str, str]]) -> None:
        place = self._place.pop(worker, None)
        if place is None:
            return
        last = self._list.pop()
        if last != worker:
            self._list[place], self._place[last] = last, place
        for model, _ in held:
            self._holding.get((model, held[-1][1]), set()).discard(worker)


def priced(card: str, wishes: Wishes | None = None) -> tuple[tuple[Kind, float], ...]:
    """The mix on this card, by the product's own predictions."""
    catalog, machine = Catalog(), machine_of_card(card_named(card), host_gib=256)
    defaults = Defaults({}, frozenset(spec.name for spec in catalog))
    found: list[tuple[Kind, float]] = []
    for model, adapters, knobs, weight in MIX:
        resolution = resolve(VideoRequest(prompt="a cat", model=model, **knobs), catalog, defaults)
        steps = resolution.request.num_inference_steps
        plan = plan_memory(Workload.of(resolution.spec, resolution.request), machine, wishes)
        visits = plan.visit_seconds if plan.placement.swaps else 0.0
        found.append((Kind(model, adapters, plan.load_seconds, plan.seconds(steps), visits, steps), weight))
    return tuple(found)


def simulate(scene: Scene, line: Line | None = None) -> Outcome:
    """One scene, on a line of its own unless told otherwise."""
    return Cluster(scene, line or HeapLine()).run()


def _rows(card: str, sizes: Collection[int], load: float, per_gpu: int) -> Iterator[dict[str, Any]]:
    kinds = priced(card)
    for gpus in sizes:
        jobs = max(2000, per_gpu * gpus)
        for name, knobs in (
            ("none", {"affinity": False, "courtesy": False}),
            ("line", {"courtesy": False}),
            ("line and courtesy", {}),
        ):
            scene = Scene(gpus, kinds, jobs, load, **knobs)  # type: ignore[arg-type]
            yield {"card": card, "load": load, "affinity": name} | _rounded(simulate(scene))


def _batches(card: str) -> Iterator[dict[str, Any]]:
    """Ten cards that hold one part of a model at a time, and sweeps of few steps over it: more work than they can do."""
    few = [kind for kind, _ in priced(card, Wishes(offload="exclusive")) if kind.adapters]
    for batch in (1, 2, 4, 8):
        scene = Scene(10, tuple((kind, 1.0) for kind in few), 2000, load=2.0, batch=batch)
        told = _rounded(simulate(scene))
        yield {"card": card, "batch": batch, "jobs_an_hour": round(told["jobs"] / told["hours"], 1)}


def _rounded(outcome: Outcome) -> dict[str, Any]:
    return {key: round(value, 4) for key, value in asdict(outcome).items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--card", default="L40S")
    parser.add_argument("--load", type=float, action="append")
    parser.add_argument("--gpus", type=int, action="append")
    parser.add_argument("--jobs-per-gpu", type=int, default=40)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for load in given.load or (0.8, 0.95):
        for row in _rows(given.card, given.gpus or (10, 100, 1000, 10_000), load, given.jobs_per_gpu):
            rows.append(row)
            sys.stdout.write(
                f"{row['gpus']:6} GPUs, load {load:.2f}, affinity {row['affinity']:17}: wait p50 {row['wait_p50']:6.1f} s, p95 "
                f"{row['wait_p95']:7.1f} s, p99 {row['wait_p99']:7.1f} s; busy {row['busy']:.1%}; {row['loads']:.2f} loads a job, "
                f"{row['loading']:.1%} of the time; {row['writes']:7.1f} writes/s, {row['reads']:9.1f} reads/s\n"
            )
            sys.stdout.flush()
    batches = list(_batches(given.card))
    for row in batches:
        sys.stdout.write(f"batches of {row['batch']}: {row['jobs_an_hour']} jobs an hour\n")
    if given.json:
        mix = [{"weight": weight, **asdict(kind)} for kind, weight in priced(given.card)]
        given.json.write_text(json.dumps({"mix": mix, "rows": rows, "batches": batches}, indent=1) + "\n")


if __name__ == "__main__":
    main()
