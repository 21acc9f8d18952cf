"""`qualify` tells sound weights from unsound ones, and its report can be shared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.core.placement import Placement
from wanreel.generation import qualify as module
from wanreel.generation.qualify import FEW_STEP_NOTE, STREAMED_NOTE, qualify
from wanreel.models.qualify import Comparison
from wanreel.testing import save_tiny


def small(name: str) -> ModelSpec:
    return replace(Catalog().get(f"tiny:{name}"), num_frames=5)


@pytest.mark.parametrize(
    "name", ["t2v-1.3b", "i2v-14b-480p", "flf2v-14b-720p", "i2v-a14b", "ti2v-5b", "fastwan2.1-t2v-1.3b"]
)
def test_sound_weights_pass_to_the_bit(name: str, tmp_path: Path) -> None:
    spec = small(name)
    report = qualify(spec, save_tiny(spec, tmp_path), "cpu")
    assert report.passed
    assert [one.equal for one in report.comparisons] == [True]
    assert (report.run.steps, report.run.num_frames) == (2, 5)
    assert (FEW_STEP_NOTE in report.notes) == spec.few_step
    shared = json.dumps(report.to_dict())
    assert str(tmp_path) not in shared
    assert json.loads(shared)["passed"] is True


def test_a_wrong_result_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = small("t2v-1.3b")
    reference = module._diffusers_latents
    monkeypatch.setattr(module, "_diffusers_latents", lambda *given: reference(*given) * 1.1)
    report = qualify(spec, save_tiny(spec, tmp_path), "cpu")
    assert not report.passed
    assert report.comparisons[0].relative_rms == pytest.approx(0.1 / 1.1, rel=1e-3)


@pytest.mark.parametrize(("plan", "compared"), [("exclusive", 1), ("streamed", 0)])
def test_other_plans(plan: Any, compared: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamed expert never is whole on the device, so nothing is compared and nothing is claimed."""
    spec = small("t2v-a14b")
    offloaded: list[Any] = []
    from diffusers.pipelines.wan.pipeline_wan import WanPipeline

    monkeypatch.setattr(WanPipeline, "enable_model_cpu_offload", lambda self, device: offloaded.append(device))
    report = qualify(spec, save_tiny(spec, tmp_path), "cpu", Placement(plan))
    assert len(report.comparisons) == len(offloaded) == compared
    assert report.passed == bool(compared)
    assert (STREAMED_NOTE in report.notes) == (not compared)


def test_another_model_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(BrokenWeights):
        qualify(small("t2v-1.3b"), save_tiny(small("ti2v-5b"), tmp_path), "cpu")


def test_comparison_in_numbers() -> None:
    reference = torch.tensor([3.0, 4.0])
    same, near, far = (Comparison.between("x", reference + d, reference) for d in (0.0, 0.01, 1.0))
    assert (same.equal, same.passed, same.relative_rms) == (True, True, 0.0)
    assert (near.equal, near.passed) == (False, True)
    assert near.relative_rms == pytest.approx(0.01 / 12.5**0.5, rel=1e-3)
    assert not far.passed
