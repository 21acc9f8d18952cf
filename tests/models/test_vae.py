"""The lean VAE, its guard against overflow, and the encoder that computes nothing twice, against Diffusers' own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from wanreel import demo
from wanreel.core.catalog import Catalog
from wanreel.models.load import load_model
from wanreel.models.tiny import build_tiny
from wanreel.models.vae.guarded import GuardedDecoder
from wanreel.models.vae.lean import LeanVae, Memory
from wanreel.models.vae.norm import Terms, normed
from wanreel.models.vae.steady import Steady, encoder_stages, lean_stages, moments

VAES = ("tiny:t2v-1.3b", "tiny:ti2v-5b", "demo")


@pytest.fixture(scope="module")
def vaes() -> dict[str, Any]:
    tiny = {name: build_tiny(Catalog().get(name)).vae for name in VAES if name != "demo"}
    return tiny | {"demo": load_model(Catalog().get("demo"), demo.weights_path()).vae}


def latents(vae: Any, frames: int = 4) -> Tensor:
    """Few: a CPU takes its time for fp16 convolutions."""
    return torch.randn(1, vae.config.z_dim, frames, 2, 3, generator=torch.Generator().manual_seed(3))


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@torch.no_grad()
def whole(vae: Any, given: Tensor) -> Tensor:
    return vae.decode(given, return_dict=False)[0]


@torch.no_grad()
def guarded(vae: Any, given: Tensor, **options: Any) -> tuple[Tensor, GuardedDecoder]:
    decoder = GuardedDecoder(vae, lambda pixels: pixels.float().clamp(-1, 1), **options)
    return torch.cat(list(decoder.chunks(given)), dim=2), decoder


@pytest.mark.parametrize("name", VAES)
@pytest.mark.parametrize("step", [1, 3])
def test_in_fp32_the_lean_decoder_is_diffusers_but_for_rounding(vaes: dict[str, Any], name: str, step: int) -> None:
    vae = vaes[name]
    given = latents(vae)
    found, _ = guarded(vae, given, step=step, dtype=torch.float32)
    assert found.shape == whole(vae, given).shape
    assert off(found, whole(vae, given)) < 1e-5


@pytest.mark.parametrize("name", VAES[:2])
def test_fp16_is_near_and_nearer_than_bf16(vaes: dict[str, Any], name: str) -> None:
    vae = vaes[name]
    given, errors = latents(vae), dict[torch.dtype, float]()
    for dtype in (torch.float16, torch.bfloat16):
        found, decoder = guarded(vae, given, dtype=dtype)
        errors[dtype] = off(found, whole(vae, given))
        assert decoder.overflowed is None
    assert errors[torch.float16] < 0.005
    assert errors[torch.float16] < errors[torch.bfloat16] / 4


@pytest.mark.parametrize("step", [1, 2])
def test_what_is_too_large_for_fp16_is_decoded_in_fp32(vaes: dict[str, Any], step: int) -> None:
    vae = vaes["tiny:t2v-1.3b"]
    given = latents(vae)
    given[:, :, 2] *= 1e5  # beyond fp16's 65,504 somewhere
    found, decoder = guarded(vae, given, step=step)
    assert decoder.overflowed == (2 if step == 1 else 1)
    assert bool(found.isfinite().all())
    expected = whole(vae, given)
    assert off(found, expected) < 0.005
    assert off(found[:, :, 5:], expected[:, :, 5:]) < off(found[:, :, :5], expected[:, :, :5])


def test_an_overflow_in_the_first_and_in_the_last_chunk_is_found(vaes: dict[str, Any]) -> None:
    vae = vaes["tiny:t2v-1.3b"]
    for place in (0, 3):
        given = latents(vae)
        given[:, :, place] *= 1e5
        found, decoder = guarded(vae, given)
        assert decoder.overflowed == place
        assert off(found, whole(vae, given)) < 0.005


@torch.no_grad()
def encoded(vae: Any, encoder: Steady, video: Tensor) -> Tensor:
    cuts = [0, *range(1, video.shape[2] + 1, 4)]
    return torch.cat([moments(vae, encoder, video[:, :, start:end]) for start, end in itertools.pairwise(cuts)], dim=2)


def pictured(vae: Any, frames: int, known: Sequence[int]) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    video = torch.zeros(1, 3, frames, 32, 48)
    for place in known:
        video[:, :, place] = torch.rand(3, 32, 48, generator=generator) * 2 - 1
    return video


@pytest.mark.parametrize("known", [(0,), (0, 80), (0, 40)], ids=str)
def test_what_is_not_computed_again_changes_no_bit(vaes: dict[str, Any], known: tuple[int, ...]) -> None:
    vae = vaes["tiny:t2v-1.3b"]
    video, encoder = pictured(vae, 81, known), Steady(encoder_stages(vae))
    with torch.no_grad():
        expected = vae.encode(video, return_dict=False)[0].mode()
        found = vae.quant_conv(encoded(vae, encoder, video)).chunk(2, dim=1)[0]
    assert torch.equal(found, expected)
    assert encoder.runs < (0.6 if 40 not in known else 0.9) * 21 * len(encoder.stages)


def test_a_moving_picture_is_computed_in_full(vaes: dict[str, Any]) -> None:
    vae = vaes["tiny:t2v-1.3b"]
    video, encoder = torch.rand(1, 3, 13, 48, 64), Steady(encoder_stages(vae))
    with torch.no_grad():
        expected = vae.encode(video, return_dict=False)[0].mode()
        assert torch.equal(vae.quant_conv(encoded(vae, encoder, video)).chunk(2, dim=1)[0], expected)
    assert encoder.runs == 4 * len(encoder.stages)


def test_the_encoder_of_wan_2_2_too(vaes: dict[str, Any]) -> None:
    vae = vaes["tiny:ti2v-5b"]
    video = pictured(vae, 13, (0,))
    with torch.no_grad():
        expected = vae.encode(video, return_dict=False)[0].mode()
        found = vae.quant_conv(encoded(vae, Steady(encoder_stages(vae)), video)).chunk(2, dim=1)[0]
    assert torch.equal(found, expected)
    with pytest.raises(TypeError):
        lean_stages(LeanVae(vae, torch.float32))


def test_the_lean_encoder_is_near(vaes: dict[str, Any]) -> None:
    vae = vaes["tiny:t2v-1.3b"]
    video = pictured(vae, 17, (0,))[..., :16, :16]
    with torch.no_grad():
        expected = vae.encode(video, return_dict=False)[0].mode()
        for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 0.005)):
            encoder = Steady(lean_stages(LeanVae(vae, dtype)))
            assert off(encoded(vae, encoder, video.to(dtype)).chunk(2, dim=1)[0], expected) < bound


def test_memory_is_replaced_and_never_written_to(vaes: dict[str, Any]) -> None:
    """The guard goes back to what was remembered before a chunk."""
    vae, memory = vaes["tiny:t2v-1.3b"], Memory()
    lean, given = LeanVae(vae, torch.float32), latents(vae, frames=3)
    lean.decode(given[:, :, :1], memory, first=True)
    before = dict(memory)
    copies = {conv: seen.clone() for conv, seen in before.items()}
    lean.decode(given[:, :, 1:2], memory, first=False)
    assert all(torch.equal(before[conv], copies[conv]) for conv in before)
    again = dict(before)
    assert torch.equal(
        lean.decode(given[:, :, 1:2], again, first=False), lean.decode(given[:, :, 1:2], dict(before), first=False)
    )


def terms_of(channels: int, dtype: torch.dtype, device: str, number: int) -> Terms:
    def tensor() -> Tensor:
        drawn = torch.randn(1, channels, 3, 5, 7, device=device).to(dtype)
        return drawn.contiguous(memory_format=torch.channels_last_3d)

    bias, residual = torch.randn(channels, device=device).to(dtype), tensor()
    return Terms(tensor(), bias if number > 0 else None, residual if number > 1 else None)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [96, 192, 384, 160, 12])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_kernel_computes_what_torch_does(channels: int, dtype: torch.dtype, number: int) -> None:
    terms, gamma = terms_of(channels, dtype, "cuda", number), torch.rand(channels, device="cuda") + 0.5
    room = torch.zeros(1, channels, 5, 5, 7, dtype=dtype, device="cuda").contiguous(
        memory_format=torch.channels_last_3d
    )
    total = normed(terms, gamma, room[:, :, 2:])
    on_host = Terms(*(None if it is None else it.cpu().float() for it in (terms.value, terms.bias, terms.residual)))  # type: ignore[arg-type]
    expected = torch.zeros(1, channels, 3, 5, 7)
    summed = normed(on_host, gamma.cpu(), expected)
    bound = 2e-3 if dtype == torch.float16 else 1e-5
    assert off(total.cpu(), summed) < bound
    assert off(room[:, :, 2:].cpu(), expected) < bound
    assert not bool(room[:, :, :2].any())
