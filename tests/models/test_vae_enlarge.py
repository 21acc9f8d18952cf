"""Enlarging and convolving in one step, against doing one after the other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor

from wanreel.core.catalog import Catalog
from wanreel.models.ranks.bands import Bands
from wanreel.models.tiny import build_tiny
from wanreel.models.vae.enlarge import enlarged, folded
from wanreel.models.vae.lean import LeanVae, Memory

#: Channels in and out, height, width.
SIZES = [(8, 5, 4, 6), (4, 6, 5, 7), (3, 12, 1, 4), (7, 16, 3, 1), (2, 8, 1, 1)]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def pictures_of(channels: int, height: int, width: int) -> Tensor:
    return drawn(3, channels, height, width).contiguous(memory_format=torch.channels_last)


def plainly(pictures: Tensor, weight: Tensor) -> Tensor:
    wide = functional.interpolate(pictures.float(), scale_factor=2.0, mode="nearest-exact")
    return functional.conv2d(wide, weight, padding=1)


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_interpolation_and_convolution(size: tuple[int, int, int, int]) -> None:
    before, after, height, width = size
    pictures, weight = pictures_of(before, height, width), drawn(after, before, 3, 3)
    for dtype, bound in ((torch.float32, 1e-6), (torch.float16, 1e-3)):
        form = folded(weight).to(dtype).contiguous(memory_format=torch.channels_last)
        found = enlarged(pictures.to(dtype), form)
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert off(found, plainly(pictures, weight)) < bound
        assert float((found.float() - plainly(pictures, weight)).abs().max()) < 20 * bound


def test_numbers_too_large_stay_to_be_seen() -> None:
    """The guard against overflow looks at what comes out."""
    pictures, weight = pictures_of(2, 4, 4), drawn(8, 2, 3, 3)
    pictures[0, 0, 1, 2], pictures[1, 1, 3, 3] = float("inf"), float("nan")
    sound = plainly(pictures, weight).isfinite()
    assert torch.equal(enlarged(pictures, folded(weight)).isfinite(), sound)


@dataclass(frozen=True)
class _Band:
    """Rows `start` to `stop` of a whole that needs no other rank to be looked up."""

    whole: Tensor
    start: int
    stop: int

    def widened(self, band: Tensor) -> Tensor:
        scale = band.shape[2] // (self.stop - self.start)
        large = self.whole.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        padded = functional.pad(large, (0, 0, 1, 1))
        wide = padded[:, :, scale * self.start : scale * self.stop + 2]
        return wide.contiguous(memory_format=torch.channels_last)


def test_bands_of_a_picture_are_the_picture() -> None:
    whole, weight = pictures_of(4, 6, 3), drawn(8, 4, 3, 3)
    parts: list[Tensor] = []
    for start, stop in itertools.pairwise((0, 1, 4, 6)):
        band = whole[:, :, start:stop].contiguous(memory_format=torch.channels_last)
        parts.append(enlarged(band, folded(weight), cast(Bands, _Band(whole, start, stop))))
    assert off(torch.cat(parts, dim=2), plainly(whole, weight)) < 1e-6


@pytest.fixture(scope="module")
def vae() -> Any:
    return build_tiny(Catalog().get("t2v-1.3b")).vae


def test_weights_are_summed_before_they_are_rounded_and_once(vae: Any) -> None:
    conv = vae.decoder.up_blocks[0].upsamplers[0].resample[1]
    lean = LeanVae(vae, torch.float16)
    weight = lean._weight(conv, folded)  # pyright: ignore[reportPrivateUsage]
    assert torch.equal(weight, folded(conv.weight).half())
    assert not torch.equal(weight, folded(conv.weight.half()))
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert lean._weight(conv, folded) is weight  # pyright: ignore[reportPrivateUsage]


@torch.no_grad()
def test_the_decoder_takes_each_of_them(vae: Any) -> None:
    latents = drawn(1, vae.config.z_dim, 2, 2, 3)
    lean, memory = LeanVae(vae, torch.float32), Memory()
    chunks = [lean.decode(latents[:, :, at : at + 1], memory, first=at == 0) for at in range(2)]
    expected = vae.decode(latents, return_dict=False)[0]
    assert off(torch.cat(chunks, dim=2).clamp(-1, 1), expected) < 1e-5
