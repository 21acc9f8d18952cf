"""The OOM ladder (T5): memory that runs out at any stage and step costs a change of plan, and nothing that was done."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from generation.test_render import STEPS, Studio, completed, studio_for
from wanreel.core.errors import DeviceFault, OutOfMemory
from wanreel.core.events import Encoded, Event, ModelLoaded, PlanChanged, StepCompleted
from wanreel.core.machines import Machine
from wanreel.core.memory import MAX_RUNGS, next_rung
from wanreel.core.memory_plan import MemoryPlan, StageMemory
from wanreel.core.placement import Placement, Tile
from wanreel.core.wishes import Wishes
from wanreel.models.expert import Expert
from wanreel.models.planning import Planner
from wanreel.models.pool import ModelPool
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel

#: Where memory may run out: stage, part of the model, and the method that needs it.
PARTS = {
    "text": ("text_encoder", "forward"),
    "picture": ("image_encoder", "forward"),
    "condition": ("vae", "encoder.conv_in"),
}


def descending(root: Path, name: str = "i2v-14b-480p", mode: Any = "picture", **wishes: Any) -> Studio:
    """A studio whose pool plans as the product does on a CPU."""
    studio = studio_for(root, name, mode)
    planner = Planner(lambda: Machine(host_free=2**34), Wishes(**wishes))
    studio.pool = ModelPool(lambda spec, placement: build_tiny(spec, placement=placement), planner)
    return studio


def failing(method: Any, at: range, error: Exception) -> Any:
    """`method`, but calls numbered in `at` raise."""
    calls = iter(range(10**6))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) in at:
            raise error
        return method(*args, **kwargs)

    return call


@contextmanager
def running_out(studio: Studio, stage: str, at: range, error: Exception | None = None) -> Generator[None]:
    """Memory runs out in `stage`, in the calls of its part numbered in `at`."""
    error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nadvice")
    if stage == "denoise":
        with mock.patch.object(Expert, "predict", failing(Expert.predict, at, error)):
            yield
        return
    model: WanModel = studio.pool.acquire(studio.resolution.spec, Placement()).model
    part, method = PARTS.get(stage, ("vae", "decoder"))
    owner = getattr(model, part)
    if method == "forward":
        with mock.patch.object(owner, "forward", failing(owner.forward, at, error)):
            yield
        return
    inner = owner.get_submodule(method)
    with mock.patch.object(inner, "forward", failing(inner.forward, at, error)):
        yield


def told(studio: Studio) -> list[Event]:
    return list(studio.events(kept=False))


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return completed(descending(tmp_path_factory.mktemp("plain")).events(kept=False)).sha256


@pytest.mark.parametrize("stage", ["text", "picture", "condition", "decode"])
def test_memory_runs_out_in_a_stage(tmp_path: Path, stage: str, plain: str) -> None:
    studio = descending(tmp_path)
    with running_out(studio, stage, range(1, 2) if stage in ("condition", "decode", "text") else range(1)):
        events = told(studio)
    [change] = of(PlanChanged, events)
    assert (change.stage, change.rung, change.same_bits) == (stage, 1, True)
    assert change.step == (STEPS if stage == "decode" else 0)
    assert change.reason == "CUDA out of memory. Tried to allocate 1.00 GiB."
    assert [event.step for event in of(StepCompleted, events)] == list(range(1, STEPS + 1))  # none twice
    assert len(of(Encoded, events)) == 1
    assert completed(iter(events)).sha256 == plain


@pytest.mark.parametrize("step", range(STEPS))
@pytest.mark.parametrize("half", [0, 1])
def test_memory_runs_out_in_a_step(tmp_path: Path, step: int, half: int, plain: str) -> None:
    """In either pass of any step; with no checkpoint on disk, the run goes on from the step before."""
    studio = descending(tmp_path)
    call = 2 * step + half
    with running_out(studio, "denoise", range(call, call + 1)):
        events = told(studio)
    [change] = of(PlanChanged, events)
    assert (change.stage, change.step) == ("denoise", step)
    assert [event.step for event in of(StepCompleted, events)] == list(range(1, STEPS + 1))
    assert completed(iter(events)).sha256 == plain


def test_each_failure_is_a_rung_and_the_plan_is_remembered(tmp_path: Path, plain: str) -> None:
    studio = descending(tmp_path)
    with running_out(studio, "denoise", range(1, 3)):
        events = told(studio)
    first, second = of(PlanChanged, events)
    assert (first.rung, second.rung) == (1, 2) and first.after == second.before
    assert not second.same_bits  # tiles: the second rung of a CPU
    again = told(studio)
    assert of(PlanChanged, again) == []
    assert of(ModelLoaded, again)[0].plan == second.after
    assert completed(iter(events)).sha256 == completed(iter(again)).sha256 == plain  # a tile as large as the frame


def test_another_size_is_not_held_to_it(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    studio, other = descending(tmp_path), studio_for(tmp_path / "other", "i2v-14b-480p", "picture", num_frames=5)
    with running_out(studio, "denoise", range(1)):
        told(studio)
    other.pool = studio.pool
    assert of(ModelLoaded, told(other))[0].plan == "resident"


def test_when_no_plan_is_left_it_says_so(tmp_path: Path) -> None:
    studio = descending(tmp_path)
    changes: list[Event] = []
    with running_out(studio, "denoise", range(100)), pytest.raises(OutOfMemory, match="under the last plan there is"):
        changes.extend(event for event in studio.events(kept=False) if isinstance(event, PlanChanged))
    assert not studio.results.exists() or not list(studio.results.iterdir())


def test_a_fault_of_the_gpu_is_no_rung(tmp_path: Path) -> None:
    studio = descending(tmp_path)
    fault = RuntimeError("CUDA error: an illegal memory access was encountered")
    with running_out(studio, "denoise", range(1), fault), pytest.raises(DeviceFault):
        told(studio)


def test_rungs_are_at_most_four() -> None:
    assert MAX_RUNGS == 4


def planned(name: str, denoise: int, tile: Tile | None = None) -> MemoryPlan:
    placement = Placement("streamed" if name == "streamed" else "resident", rows=len(name), tile=tile)
    return MemoryPlan(placement, (StageMemory("denoise", 0, denoise),))


def test_the_next_rung_takes_less_where_memory_ran_out() -> None:
    gib = 2**30
    plans = (planned("a", 10 * gib), planned("bb", int(9.8 * gib)), planned("streamed", 5 * gib))
    assert next_rung(plans, plans[0], "denoise") is plans[2]
    assert next_rung(plans, plans[2], "denoise") is None
