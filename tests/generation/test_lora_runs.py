"""Whole runs with LoRAs: strengths over steps and experts, few-step presets, resume, and nothing left for the next run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from generation.factory import CATALOG, Case, make_case
from models.lora_files import RandomLora
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import BrokenWeights
from wanreel.core.events import Completed, Denoised, LorasApplied, Resumed, StepCompleted
from wanreel.core.lora import LoraRef, ResolvedLora
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Resolution
from wanreel.generation.cadence import ALWAYS
from wanreel.generation.checkpoint import CheckpointStore
from wanreel.generation.denoise import denoise
from wanreel.generation.render import Saving, Target, render
from wanreel.generation.state import DenoiseState
from wanreel.models.expert import Expert
from wanreel.models.lora.report import LoraDesk
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.pool import ModelPool
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear
from wanreel.storage.digests import Digests
from wanreel.storage.disk import MemoryBlobs

HIGH = "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022"
LOW = HIGH.replace("high", "low")


@dataclass
class Atelier:
    """A shelf, and models that wear what is on it."""

    shelf: LoraShelf

    def put(self, name: str, case: Case, seed: int = 0) -> RandomLora:
        lora = RandomLora.of(case.fresh_model().experts[0].transformer, seed=seed, rank=3)
        lora.save(self.shelf.root / f"{name}.safetensors")
        return lora

    def lora(self, name: str, high: float = 1.0, low: float = 1.0, schedule: str = "") -> ResolvedLora:
        return ResolvedLora(name, self.shelf.sha256(self.shelf.get(name)), high, low, schedule)

    def run(
        self, case: Case, *loras: ResolvedLora, start: DenoiseState | None = None, **changes: Any
    ) -> list[DenoiseState]:
        """Every state of a run on a fresh model."""
        request = replace(case.request, loras=loras, **changes)
        model = case.fresh_model()
        wear(model, loras, request.num_inference_steps, self.shelf)
        return list(denoise(model, replace(case, request=request).encode(model), request, start))


@pytest.fixture
def atelier(tmp_path: Path) -> Atelier:
    return Atelier(LoraShelf(tmp_path / "loras", Digests(tmp_path / "digests.json")))


def latents(states: list[DenoiseState]) -> list[Tensor]:
    return [state.latents for state in states]


def alike(one: list[Tensor], other: list[Tensor]) -> list[bool]:
    return [torch.equal(first, second) for first, second in zip(one, other, strict=True)]


def test_a_run_equals_one_with_merged_weights(atelier: Atelier) -> None:
    case = make_case("t2v-a14b")
    lora = atelier.put("x", case)
    ours = atelier.run(case, atelier.lora("x", 0.8, -0.4))[-1].latents
    model = case.fresh_model()
    for expert, strength in zip(model.experts, (0.8, -0.4), strict=True):
        lora.merge(expert.transformer, strength)
    *_, merged = denoise(model, case.encode(model), case.request)
    # Rounding of fp32 grows over six steps of two passes each; bound relative to the largest value.
    assert (ours - merged.latents).abs().max() <= 1e-4 * merged.latents.abs().max()
    assert not torch.allclose(ours, atelier.run(case)[-1].latents, rtol=1e-2)


def test_a_schedule_is_in_force_in_its_steps_alone(atelier: Atelier) -> None:
    case = make_case("t2v-1.3b")
    atelier.put("x", case)
    plain, late = latents(atelier.run(case)), latents(atelier.run(case, atelier.lora("x", schedule="0,0,1")))
    assert alike(plain, late) == [True] * 4 + [False] * 2
    throughout = latents(atelier.run(case, atelier.lora("x")))
    early = latents(atelier.run(case, atelier.lora("x", schedule="1,0")))
    assert alike(throughout, early) == [True] * 3 + [False] * 3


def test_a_strength_of_zero_on_one_expert_is_no_lora_there(atelier: Atelier) -> None:
    case = make_case("t2v-a14b")
    atelier.put("x", case)
    plain = atelier.run(case)
    experts = [state.expert for state in plain]
    low = latents(atelier.run(case, atelier.lora("x", 0.0, 1.0)))
    assert alike(latents(plain), low) == [expert == "high" for expert in experts]
    none = latents(atelier.run(case, atelier.lora("x", 0.0, 0.0)))
    assert all(alike(latents(plain), none))


def test_the_boundary_can_be_moved(atelier: Atelier) -> None:
    case = make_case("t2v-a14b")
    experts = [state.expert for state in atelier.run(case, boundary_ratio=0.95)]
    assert experts == ["high"] * 3 + ["low"] * 3
    assert [state.expert for state in atelier.run(case, boundary_ratio=None)] == ["high"] * 4 + ["low"] * 2


def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Calls of `Expert.predict`, filled in as they come."""
    called, predict = list[int](), Expert.predict

    def noted(self: Expert, *args: Any) -> Tensor:
        called.append(1)
        return predict(self, *args)

    monkeypatch.setattr(Expert, "predict", noted)
    return called


def test_guided_steps_have_the_models_own_guidance(atelier: Atelier, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("t2v-1.3b", guidance_high=1.0)
    official = make_case("t2v-1.3b", guidance_high=6.0)
    called = passes(monkeypatch)
    guided = latents(atelier.run(case, guided_steps=2))
    assert len(called) == 2 + 2 + 4
    assert alike(guided, latents(atelier.run(official))) == [True] * 2 + [False] * 4
    assert alike(guided, latents(atelier.run(case))) == [False] * 6


def test_a_run_without_its_loras_is_refused(atelier: Atelier) -> None:
    case = make_case("t2v-1.3b")
    atelier.put("x", case)
    request = replace(case.request, loras=(atelier.lora("x"),))
    model = case.fresh_model()
    with pytest.raises(ValueError, match="does not wear"):
        next(denoise(model, case.encode(model), request))
    wear(model, request.loras, 6, atelier.shelf)
    with pytest.raises(ValueError, match="does not wear"):
        next(denoise(model, case.encode(model), case.request))


@pytest.mark.parametrize(("solver", "stop"), [("unipc", 3), ("euler", 5)])
def test_resume_gives_the_same_bits(atelier: Atelier, solver: Any, stop: int) -> None:
    case = make_case("t2v-a14b", solver=solver)
    atelier.put("x", case)
    lora = atelier.lora("x", 0.7, 1.2, "0>1")
    whole = atelier.run(case, lora)
    rest = atelier.run(case, lora, start=whole[stop - 1])
    assert all(alike(latents(whole[stop:]), latents(rest)))


# Presets, resolved and run


def few_step(atelier: Atelier, preset: Any) -> tuple[Case, Resolution]:
    case = make_case("i2v-a14b", "picture")
    for seed, name in enumerate((HIGH, LOW)):
        atelier.put(name, case, seed)
    desk = LoraDesk(atelier.shelf, lambda _: None)
    names = tuple(lora.name for lora in atelier.shelf.list())
    asked = VideoRequest(
        prompt="a cat", model="tiny:i2v-a14b", image=case.request.image, preset=preset, seed=3, resolution="480P"
    )
    return case, resolve(asked, CATALOG, Defaults({}, frozenset(), lora_names=names, lora=desk.facts))


def test_fast_runs_four_steps_two_by_each_expert(atelier: Atelier, monkeypatch: pytest.MonkeyPatch) -> None:
    case, resolution = few_step(atelier, "fast")
    case = replace(case, request=resolution.request)
    called = passes(monkeypatch)
    states = atelier.run(case, *resolution.request.loras)
    assert [state.expert for state in states] == ["high", "high", "low", "low"]
    assert len(called) == 4
    # Whoever merged each file into its expert gets the same.
    model = case.fresh_model()
    for seed, expert in enumerate(model.experts):
        RandomLora.of(case.fresh_model().experts[0].transformer, seed=seed, rank=3).merge(expert.transformer)
    *_, merged = denoise(model, case.encode(model), replace(resolution.request, loras=()))
    assert (states[-1].latents - merged.latents).abs().max() <= 1e-4 * merged.latents.abs().max()


def test_motion_begins_as_the_model_without_lora_and_with_guidance(
    atelier: Atelier, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, resolution = few_step(atelier, "motion")
    case = replace(case, request=resolution.request)
    called = passes(monkeypatch)
    states = atelier.run(case, *resolution.request.loras)
    assert len(called) == 9
    assert [state.expert for state in states] == ["high"] * 4 + ["low"] * 4
    plain = atelier.run(case, guidance_high=3.5, guidance_low=3.5)
    assert alike(latents(states), latents(plain)) == [True] + [False] * 7


# Through the spine


class Studio:
    """Renders on one model that stays in memory."""

    def __init__(self, root: Path, atelier: Atelier) -> None:
        self.case = make_case("ti2v-5b", num_inference_steps=3)
        self.model: WanModel = self.case.fresh_model()
        self.pool = ModelPool(lambda spec, placement: self.model)
        self.target = Target(root / "results", MemoryBlobs(), loras=atelier.shelf)
        self.store = CheckpointStore(root / "checkpoints")

    def events(self, *loras: ResolvedLora) -> Any:
        request = replace(self.case.request, loras=loras)
        saving = Saving(self.store, "job", cadence=ALWAYS)
        return render(self.pool, Resolution(request, self.case.spec, ()), self.target, CancelToken(), saving)

    def digest(self, *loras: ResolvedLora) -> str:
        """Of the final latents; nothing is kept for the next run."""
        events = list(self.events(*loras))
        assert isinstance(events[-1], Completed)
        self.store.remove()
        return next(event.latents_sha256 for event in events if isinstance(event, Denoised))


def test_a_job_leaves_nothing_on_for_the_next_one(atelier: Atelier, tmp_path: Path) -> None:
    studio = Studio(tmp_path, atelier)
    atelier.put("x", studio.case)
    atelier.put("y", studio.case, seed=5)
    plain, first = studio.digest(), studio.digest(atelier.lora("x"))
    second = studio.digest(atelier.lora("y"))
    assert len({plain, first, second}) == 3
    assert studio.digest(atelier.lora("x")) == first
    assert studio.digest() == plain


def test_a_failed_one_leaves_nothing_on_either(atelier: Atelier, tmp_path: Path) -> None:
    studio = Studio(tmp_path, atelier)
    atelier.put("x", studio.case)
    plain, worn = studio.digest(), atelier.lora("x")
    with closing(studio.events(worn)) as events:  # stopped in the middle
        next(event for event in events if isinstance(event, StepCompleted))
    studio.store.remove()
    assert studio.digest() == plain
    studio.digest(worn)
    (atelier.shelf.root / "x.safetensors").unlink()
    with pytest.raises(BrokenWeights, match="no longer here"):
        list(studio.events(worn))
    assert studio.digest() == plain


def test_what_was_applied_is_told(atelier: Atelier, tmp_path: Path) -> None:
    studio = Studio(tmp_path, atelier)
    lora = atelier.put("x", studio.case)
    told = next(event for event in studio.events(atelier.lora("x", 0.5)) if isinstance(event, LorasApplied))
    (applied,) = told.applied
    assert (applied.name, applied.expert, applied.matched, applied.rank) == ("x", "", len(lora.weights), 3)
    assert applied.smallest_scale == applied.largest_scale == pytest.approx(0.5 * 2 / 3)
    assert str(applied) == f"LoRA x: {len(lora.weights)} layers, rank 3, scale 0.3333"


def test_a_stopped_job_goes_on_with_the_same_file_alone(atelier: Atelier, tmp_path: Path) -> None:
    studio = Studio(tmp_path, atelier)
    atelier.put("x", studio.case)
    worn = atelier.lora("x")
    whole = studio.digest(worn)
    with closing(studio.events(worn)) as events:
        next(event for event in events if isinstance(event, StepCompleted) and event.step == 2)
    resumed = list(studio.events(worn))
    assert [event.step for event in resumed if isinstance(event, Resumed)] == [2]
    assert [event.latents_sha256 for event in resumed if isinstance(event, Denoised)] == [whole]
    atelier.put("x", studio.case, seed=8)
    with pytest.raises(BrokenWeights, match="another file"):
        list(studio.events(worn))


def test_facts_at_submit_are_read_from_the_header(atelier: Atelier) -> None:
    """Another base is refused before any model is there."""
    atelier.put("x", make_case("t2v-1.3b"))
    desk = LoraDesk(atelier.shelf, lambda _: None)
    asked = VideoRequest(prompt="a", model="i2v-a14b", loras=(LoraRef("x"),), image=PictureRef("0" * 64, 832, 480))
    with pytest.raises(
        Exception, match=r"x is not for i2v-a14b: it is for models of width 24, i2v-a14b has width 5120"
    ):
        resolve(asked, CATALOG, Defaults({}, frozenset(), lora=desk.facts))
