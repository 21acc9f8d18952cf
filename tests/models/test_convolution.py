"""oneDNN computes what torch's own convolution computes, is really the one that runs, and stays away where it can't."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from models.architectures import by_name
from wanreel import demo
from wanreel.core.catalog import Catalog
from wanreel.generation.decode import decode
from wanreel.models.convolution import prefer_onednn
from wanreel.models.load import load_model
from wanreel.models.tiny import build_tiny


def kernels(module: nn.Module, given: torch.Tensor) -> set[str]:
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as seen:
        module(given)
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize("options", [{}, {"padding": (0, 1, 1)}, {"stride": (2, 1, 1), "bias": False}])
def test_onednn_runs_and_agrees(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(8, 12, 3, **options)  # type: ignore[arg-type]
    given = torch.randn(1, 8, 6, 18, 18)
    fast = copy.deepcopy(plain)
    prefer_onednn(fast)
    assert "aten::slow_conv3d_forward" in kernels(plain, given)
    assert "aten::mkldnn_convolution" in kernels(fast, given)
    with torch.no_grad():
        torch.testing.assert_close(fast(given), plain(given), atol=1e-5, rtol=0)


def test_other_padding_and_other_dtypes_keep_their_kernel() -> None:
    mirrored, halves = nn.Conv3d(2, 2, 3, padding=1, padding_mode="replicate"), nn.Conv3d(2, 2, 3).bfloat16()
    given = torch.randn(1, 2, 4, 8, 8)
    for module, its in ((mirrored, given), (halves, given.bfloat16())):
        with torch.no_grad():
            expected = module(its)
            prefer_onednn(module)
            assert torch.equal(module(its), expected)


def test_frames_differ_from_torchs_loop_by_one_step_in_one_of_a_thousand_at_most() -> None:
    model = load_model(Catalog().get("demo"), demo.weights_path())
    latents = torch.randn(1, 24, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    fast = np.concatenate(list(decode(model, latents))).astype(int)
    for part in model.vae.decoder.modules():
        part.__dict__.pop("_conv_forward", None)
    plain = np.concatenate(list(decode(model, latents))).astype(int)
    difference = np.abs(fast - plain)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_the_encoder_keeps_diffusers_bits() -> None:
    model = build_tiny(by_name("ti2v-5b"))
    assert all("_conv_forward" not in part.__dict__ for part in model.vae.encoder.modules())
    assert any("_conv_forward" in part.__dict__ for part in model.vae.decoder.modules())
