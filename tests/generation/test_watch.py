"""What is saved and shown beside a run: nothing of it is lost, told too early, or in the way of the next step."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from generation.test_render import STEPS, completed, studio_for
from wanreel.core.errors import InsufficientStorage
from wanreel.core.events import Exported, Preview, Resumed, Saved, StepCompleted
from wanreel.generation import watch
from wanreel.generation.bench.run import Run
from wanreel.generation.cadence import Cadence
from wanreel.generation.checkpoint import CheckpointStore


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
