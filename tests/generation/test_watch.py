"""What is saved and shown beside a run: nothing of it is lost, told too early, or in the way of the next step."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from generation.test_render import STEPS, completed, studio_for
from wanreel.core.errors import InsufficientStorage
from wanreel.core.events import Exported, Preview, Resumed, Saved, StepCompleted
from wanreel.generation import watch
from wanreel.generation.bench.run import Run
from wanreel.generation.cadence import ALWAYS, Cadence
from wanreel.generation.checkpoint import CheckpointStore, Identity
from wanreel.generation.state import DenoiseState, SolverState


def told(events: Any) -> list[tuple[type, int]]:
    return [(type(event), event.step) for event in events if isinstance(event, Saved | StepCompleted)]


def test_what_is_written_beside_a_run_is_all_there_and_the_same(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    whole = studio.video(kept=False)
    events = list(studio.events(beside=0))
    assert [step for kind, step in told(events) if kind is Saved] == list(range(1, STEPS + 1))
    kinds = [type(event) for event in events]
    last = max(place for place, kind in enumerate(kinds) if kind in (Saved, Preview))
    assert last < kinds.index(Exported)
    assert completed(iter(events)).sha256 == whole.sha256
    assert studio.store.latents_path(0).is_file()


def test_a_run_left_while_its_state_is_written_goes_on_from_it(tmp_path: Path) -> None:
    studio = studio_for(tmp_path)
    whole = studio.video(kept=False)
    with closing(studio.events(beside=0)) as events:
        next(event for event in events if isinstance(event, StepCompleted) and event.step == 2)
    again = list(studio.events(beside=0))
    assert [event.step for event in again if isinstance(event, Resumed)] == [2]
    assert completed(iter(again)).sha256 == whole.sha256


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A disk that finishes the first state when this is set."""
    go, save = threading.Event(), CheckpointStore.save

    def waiting(self: CheckpointStore, identity: Any, state: Any) -> Path:
        if state.step == 1:
            assert go.wait(10)
        return save(self, identity, state)

    monkeypatch.setattr(CheckpointStore, "save", waiting)
    return go


def test_a_slow_disk_holds_up_the_next_save_and_not_the_step(tmp_path: Path, slow: threading.Event) -> None:
    events: list[Any] = []
    for event in studio_for(tmp_path).events(beside=0):
        events.append(event)
        if isinstance(event, StepCompleted) and event.step == 1:
            assert (Saved, 1) not in told(events)
            slow.set()
    assert told(events).index((Saved, 1)) < told(events).index((StepCompleted, 2))


def test_a_worker_that_drains_is_told_of_a_step_when_its_state_is_on_disk(tmp_path: Path) -> None:
    never = Cadence(share=0.0, loss=float("inf"))
    studio = studio_for(tmp_path)
    events = list(studio.events(cadence=never, urgent=lambda: True, beside=0))
    assert told(events)[:2] == [(Saved, 1), (StepCompleted, 1)]


def test_a_state_that_the_disk_refused_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, refused = CheckpointStore.save, list[int]()

    def full(self: CheckpointStore, identity: Any, state: Any) -> Path:
        if not refused:
            refused.append(state.step)
            raise InsufficientStorage("No room.")
        return save(self, identity, state)

    monkeypatch.setattr(CheckpointStore, "save", full)
    saved = [step for kind, step in told(studio_for(tmp_path).events(beside=0)) if kind is Saved]
    assert refused == [1]
    assert saved == list(range(2, STEPS + 1))


@pytest.mark.parametrize(("beside", "seconds"), [(0, 2.0), (2**40, 7.0)])
def test_a_preview_costs_what_the_steps_wait_for(
    beside: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large latents that is projecting them, as the rest is done beside the next step."""
    now, stepped = [0.0], threading.Event()

    def frames(latents: Any) -> Any:
        now[0] += 2.0
        return np.zeros((1, 8, 8, 3), dtype=np.uint8)

    def encoded(frames: Any, fps: float) -> bytes:
        assert beside or stepped.wait(10)
        now[0] += 5.0
        return b"a preview"

    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(watch, "previewer_of", lambda model: SimpleNamespace(frames=frames))
    monkeypatch.setattr(watch, "encode_animation", encoded)
    run, previews = Run(), list[Preview]()
    for event in studio_for(tmp_path).events(beside=beside):
        run.see(event)
        if isinstance(event, StepCompleted) and event.step == 2:
            assert not previews or beside
            stepped.set()
        previews += [event] if isinstance(event, Preview) else []
    assert [(it.step, it.data, it.seconds) for it in previews][:1] == [(1, b"a preview", seconds)]
    assert run.preview == seconds


@dataclass
class Disk:
    """Stands for a CheckpointStore: what was begun, what is done, and how long each takes."""

    clock: list[float]
    takes: float = 0.0  #: seconds, by the clock
    go: threading.Event | None = None  #: it takes as long as this is not set
    refuses: tuple[int, ...] = ()
    begun: list[int] = field(default_factory=list[int])
    done: list[int] = field(default_factory=list[int])

    def save(self, identity: Any, state: DenoiseState) -> None:
        self.begun.append(state.step)
        assert self.go is None or self.go.wait(10)
        self.clock[0] += self.takes
        if state.step in self.refuses:
            raise InsufficientStorage("No room.")
        self.done.append(state.step)

    def save_latents(self, identity: Any, latents: torch.Tensor) -> None:
        self.save(identity, state_of(LAST))


LAST = 8
NEVER = Cadence(share=0.0, loss=float("inf"))


def state_of(step: int) -> DenoiseState:
    return DenoiseState(step, LAST, torch.zeros(1, 1, 1, 2, 2), SolverState(), torch.zeros(1, dtype=torch.uint8))


@dataclass
class Bare:
    """A watch without a run, over steps of `step` seconds by a clock that stands still otherwise."""

    watch: watch.Watch
    clock: list[float]
    step: float = 12.0

    def report(self, *steps: int, hand_over: bool = False) -> list[Any]:
        events: list[Any] = []
        for number in steps:
            self.clock[0] += self.step
            events += self.watch.report(state_of(number), hand_over=hand_over)
        return events


def exported() -> Any:
    """What is told of a video's file."""
    video: Any = None
    yield Exported(video, 1.0)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes one for a disk and a cadence; previews cost nothing and show their step."""
    clock = [0.0]
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(watch, "previewer_of", lambda model: SimpleNamespace(frames=lambda latents: [latents]))
    monkeypatch.setattr(watch, "encode_animation", lambda frames, fps: b"a preview")
    model: Any = SimpleNamespace(spec=SimpleNamespace(fps=16, temporal_stride=4))

    def make(cadence: Cadence = ALWAYS, beside: int = 0, **disk: Any) -> tuple[Bare, Disk]:
        store: Any = Disk(clock, **disk)
        made = watch.Watch(model, watch.Saving(store, "job", cadence, beside=beside))
        made.begin(Identity("job", 0, "", (), ""))
        return Bare(made, clock), store

    return make


@pytest.fixture
def go() -> threading.Event:
    return threading.Event()


def soon(go: threading.Event) -> None:
    """Set when whoever does not wait for it has long gone on."""
    threading.Timer(0.05, go.set).start()


def test_a_run_that_may_have_to_wait_is_on_disk_first(bare: Any, go: threading.Event) -> None:
    run, disk = bare(NEVER, go=go)
    assert told(run.report(1)) == [(StepCompleted, 1)] and disk.begun == []
    soon(go)
    assert told(run.report(2, hand_over=True)) == [(Saved, 2), (StepCompleted, 2)]


def test_whoever_leaves_waits_for_what_is_being_written(bare: Any, go: threading.Event) -> None:
    run, disk = bare(go=go)
    with run.watch:
        run.report(1)
        assert disk.done == []
        soon(go)
    assert disk.done == [1]


def test_the_last_latents_are_kept_whatever_the_cadence_and_told_of_before_the_video(
    bare: Any, go: threading.Event
) -> None:
    run, disk = bare(NEVER, go=go)
    with run.watch:
        assert told(run.report(LAST)) == [(StepCompleted, LAST)]
        soon(go)
        kinds = [type(event) for event in run.watch.among(exported())]
    assert disk.done == [LAST]
    assert kinds.index(Saved) < kinds.index(Exported)


def test_one_state_is_written_at_a_time(bare: Any, go: threading.Event) -> None:
    run, disk = bare(go=go)
    run.report(1)
    assert disk.done == []
    soon(go)
    with run.watch:
        assert told(run.report(2)) == [(Saved, 1), (StepCompleted, 2)]
    assert disk.done == [1, 2]


def test_work_that_the_disk_refused_is_still_to_be_saved(bare: Any) -> None:
    run, disk = bare(Cadence(share=0.0, loss=30.0), beside=2**40, takes=1.0, refuses=(2,))
    run.report(1, 2, 3, 4)
    assert (disk.begun, disk.done) == ([2, 3], [3])


def test_a_dear_save_is_made_less_often(bare: Any) -> None:
    run, disk = bare(Cadence(share=0.02, loss=float("inf")), beside=2**40, takes=1.0)
    run.report(*range(1, LAST))
    assert disk.done == [1, 6], "a second for each 50 of work, once it is known to take one"


def test_one_preview_is_drawn_at_a_time(bare: Any, go: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = list[float]()

    def drawn(frames: Any, fps: float) -> bytes:
        begun.append(fps)
        assert go.wait(10)
        return b"a preview"

    monkeypatch.setattr(watch, "encode_animation", drawn)
    run, _ = bare(NEVER)
    with run.watch:
        run.report(1, 2, 3)
        go.set()
        shown = [event.step for event in run.watch.among(exported()) if isinstance(event, Preview)]
    assert (begun, shown) == ([4.0], [1])
