"""Jobs of one kind share the parts of a model: fewer loads, the same bits, and each with its own cancel and crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.events import Encoded, Event, ModelLoaded, Part, PlanChanged, Resumed, StepCompleted, Turn
from wanreel.core.job import Job, JobStatus, Outcome
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.placement import Placement
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.offload import ModuleGuest
from wanreel.models.pool import ModelPool
from wanreel.models.tiny import build_tiny
from wanreel.models.upscalers import UpscalerShelf
from wanreel.storage.digests import Digests
from wanreel.storage.disk import MemoryBlobs
from wanreel.worker.renderer import render_task
from wanreel.worker.task import Task
from worker.bench import Bench

MODEL = "tiny:t2v-a14b"
EXCLUSIVE = Placement("exclusive")
STEPS = 4
PARTS_OF_TWO: tuple[Part, ...] = ("high", "low")
Deed = Callable[[Task, Event], object]


class Card:
    """Renders with tiny models of which one part is on the device at a time, and counts who comes in."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool = ModelPool(lambda spec, placement: build_tiny(spec, placement=placement), self)  # type: ignore[arg-type]
        self.loras = LoraShelf(root / "loras", Digests(root / "digests"))
        self.upscalers = UpscalerShelf(root / "upscalers", Digests(root / "digests"))
        self.came: list[str] = []
        self.seen: list[tuple[str, Event]] = []  # by job
        self.tasks: dict[str, Task] = {}
        self.deeds: list[Deed] = []
        enter = ModuleGuest.enter
        monkeypatch.setattr(ModuleGuest, "enter", lambda guest: (self.came.append(self._name(guest)), enter(guest))[1])

    def plans(self, spec: Any, request: Any, held: Any) -> tuple[MemoryPlan, ...]:
        return (MemoryPlan(EXCLUSIVE),)

    def ran(self, *_: object) -> None:
        pass

    def __call__(self, task: Task) -> Iterator[Event]:
        self.tasks[task.work] = task
        for event in render_task(self.pool, MemoryBlobs(), (self.loras, self.upscalers), task, 1000.0):
            self.seen.append((task.work, event))
            for deed in self.deeds:
                deed(task, event)
            yield event

    def _name(self, guest: object) -> str:
        model = self.pool.acquire(Catalog().get(MODEL)).model
        parts = {id(expert.guest): name for expert, name in zip(model.experts, ("high", "low"))}
        parts |= {id(it): name for name, it in model._guests.items()}  # pyright: ignore[reportPrivateUsage]
        return parts[id(guest)]

    def kinds(self, job: Job, kind: type[Event]) -> list[Any]:
        return [event for work, event in self.seen if work == job.id and isinstance(event, kind)]


@pytest.fixture
def card(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card(tmp_path, monkeypatch)
    bench.render = card  # type: ignore[assignment]
    bench.batch = 4
    return card


def sweep(bench: Bench, count: int) -> list[Job]:
    """Jobs that differ in seed, words and guidance."""
    return [
        bench.submit(
            f"a red circle {n}", model=MODEL, seed=n, num_inference_steps=STEPS, flow_shift=3.0, guidance_high=2.0 + n
        )
        for n in range(count)
    ]


def results(bench: Bench, jobs: list[Job]) -> list[str | None]:
    found = [bench.store.get(job.id) for job in jobs]
    assert {job.status for job in found} == {JobStatus.COMPLETED}, [job.error for job in found]
    return [job.result_sha256 for job in found]


def test_each_part_comes_in_once_for_all_jobs_and_the_bits_are_those_of_one_by_one(bench: Bench, card: Card) -> None:
    together = sweep(bench, 2)
    bench.work()
    assert card.came == ["text_encoder", "high", "low", "vae"]
    parts = [event.part for _, event in card.seen if isinstance(event, Turn)]
    assert parts == ["high", "high", "low", "low", "decode", "decode"]
    waited = [event for event in bench.store.events(together[0].id) if event.kind in ("waiting", "turn")]
    assert [(it.kind, it.data["part"]) for it in waited] == [
        (kind, part) for part in ("high", "low", "decode") for kind in ("waiting", "turn")
    ]
    assert [it.outcome for it in bench.store.attempts(together[0].id)] == [Outcome.COMPLETED]

    card.came.clear()
    bench.batch = 1
    alone = sweep(bench, 2)
    bench.work()
    assert card.came == ["text_encoder", "high", "low", "vae"] * 2
    assert results(bench, together) == results(bench, alone)
    assert len(set(results(bench, alone))) == 2


def test_only_jobs_of_one_kind_are_taken_together(bench: Bench, card: Card) -> None:
    """Another size may need another plan: who is like the first but behind another one waits for the next batch."""
    first, _ = sweep(bench, 2)
    large = bench.submit(model=MODEL, num_inference_steps=STEPS, width=96, height=96)
    bench.work()
    assert card.came == ["text_encoder", "high", "low", "vae"] * 2
    assert not [event for event in bench.store.events(large.id) if event.kind == "waiting"]
    assert bench.store.get(first.id).status is JobStatus.COMPLETED


def test_a_job_that_waits_is_cancelled_while_another_one_runs(bench: Bench, card: Card) -> None:
    waiting, running = sweep(bench, 2)
    statuses: list[JobStatus] = []

    def cancel(task: Task, event: Event) -> None:
        if task.work != running.id or not isinstance(event, StepCompleted):
            return
        statuses.append(bench.store.get(waiting.id).status)
        if event.step == 1:
            bench.store.cancel(waiting.id)
            card.tasks[waiting.id].keeper.look()

    card.deeds.append(cancel)
    bench.work()
    assert statuses[:2] == [JobStatus.IN_PROGRESS, JobStatus.CANCELLED], "at the very next event"
    assert bench.store.get(running.id).status is JobStatus.COMPLETED


class Killed(BaseException):
    """What nobody catches."""


def at_step(job: Job, step: int, deed: Callable[[], object]) -> Deed:
    def watch(task: Task, event: Event) -> None:
        if task.work == job.id and isinstance(event, StepCompleted) and event.step == step:
            deed()

    return watch


def raising(error: BaseException) -> Callable[[], object]:
    def deed() -> None:
        raise error

    return deed


def test_after_a_crash_each_goes_on_from_where_it_waited(bench: Bench, card: Card) -> None:
    """The second one dies before its last step. What is charged for it is charged to that one alone."""
    jobs = sweep(bench, 2)
    card.deeds.append(at_step(jobs[1], STEPS - 1, raising(Killed())))
    with pytest.raises(Killed):
        bench.work()
    assert [bench.store.get(job.id).attempts_charged for job in jobs] == [0, 1]
    card.deeds.clear()
    card.pool.evict()
    bench.work()
    low = [part.expert for part in card.kinds(jobs[0], StepCompleted)].index("low")
    assert [event.step for event in card.kinds(jobs[0], Resumed)] == [STEPS], "its latents were done"
    (resumed,) = card.kinds(jobs[1], Resumed)
    assert low <= resumed.step < STEPS
    assert {it.outcome for job in jobs for it in bench.store.attempts(job.id)} == {Outcome.LOST, Outcome.COMPLETED}
    done = results(bench, jobs)
    bench.batch = 1
    again = sweep(bench, 2)
    bench.work()
    assert done == results(bench, again)


def test_a_worker_that_is_to_leave_gives_all_of_them_back(bench: Bench, card: Card) -> None:
    jobs = sweep(bench, 2)
    worker = bench.worker()
    card.deeds.append(at_step(jobs[0], 1, worker.stop))
    assert worker.run() == 0
    found = [bench.store.get(job.id) for job in jobs]
    assert [(job.status, job.attempts_charged) for job in found] == [(JobStatus.QUEUED, 0)] * 2
    card.deeds.clear()
    bench.work()
    assert len(set(results(bench, jobs))) == 2


# With a render that draws nothing


class Staged:
    """Yields turns as a render would. `changes`: the job, counted from 0, that runs out of memory at its first step."""

    def __init__(self, bench: Bench, share: float | None = None, changes: int | None = None) -> None:
        self._draw = bench.render
        self._share, self._changes = share, changes
        self.order: list[tuple[int, Part | None]] = []
        self.begun: list[str] = []

    def __call__(self, task: Task) -> Iterator[Event]:
        if task.work not in self.begun:
            self.begun.append(task.work)
        number = self.begun.index(task.work)
        for event in self._draw(task):
            yield replace(event, plan="a") if isinstance(event, ModelLoaded) else event
            if isinstance(event, Encoded):
                yield from self._parts(task, number)

    def _parts(self, task: Task, number: int) -> Iterator[Event]:
        for part in PARTS_OF_TWO:
            yield Turn(part, self._share)
            task.keeper.token.check()
            self.order.append((number, part))
            if self._changes == number and part == "high":
                yield PlanChanged(1, "denoise", 0, "a", "b", True, "full")


@pytest.mark.parametrize(("share", "taken"), [(None, 3), (0.5, 3), (0.001, 1)])
def test_who_waits_little_for_parts_waits_for_nobody(bench: Bench, share: float | None, taken: int) -> None:
    staged, bench.batch = Staged(bench, share), 4
    bench.render = staged  # type: ignore[assignment]
    for _ in range(3):
        bench.submit()
    bench.work()
    assert [number for number, _ in staged.order[:taken]] == list(range(taken))
    assert staged.order[taken] == (0, "low")


def test_a_batch_is_closed_at_its_limit(bench: Bench) -> None:
    staged, bench.batch = Staged(bench), 2
    bench.render = staged  # type: ignore[assignment]
    jobs = [bench.submit() for _ in range(3)]
    bench.work()
    assert staged.order == [(0, "high"), (1, "high"), (0, "low"), (1, "low"), (2, "high"), (2, "low")]
    results(bench, jobs)


def test_who_changes_its_plan_goes_on_alone(bench: Bench) -> None:
    """The others would find another model where they left theirs; they go back in line, not to blame."""
    staged, bench.batch = Staged(bench, changes=1), 4
    bench.render = staged  # type: ignore[assignment]
    jobs = [bench.submit() for _ in range(3)]
    bench.work()
    results(bench, jobs)
    outcomes = [[it.outcome for it in bench.store.attempts(job.id)] for job in jobs]
    assert outcomes == [[Outcome.DRAINED, Outcome.COMPLETED], [Outcome.COMPLETED], [Outcome.DRAINED, Outcome.COMPLETED]]
    assert staged.order[:3] == [(0, "high"), (1, "high"), (1, "low")]
