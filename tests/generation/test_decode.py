"""Streamed decoding gives the frames of Diffusers' vae.decode and VideoProcessor, to the bit, and can be stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor

from generation.factory import ARCHITECTURES, CATALOG, make_case, model_of
from wanreel import demo
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled
from wanreel.core.placement import Placement, Tile
from wanreel.generation.decode import Decoding, decode
from wanreel.models.load import load_model
from wanreel.models.wan_model import WanModel

LATENT_FRAMES = 4


def latents_for(model: WanModel, side: int = 4, frames: int = LATENT_FRAMES) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return 2 * torch.randn(1, model.spec.latent_channels, frames, side, side + 2, generator=generator)


def whole(model: WanModel, latents: torch.Tensor) -> np.ndarray[Any, Any]:
    """As the pipelines do it."""
    vae = model.vae
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    inverse_std = 1.0 / torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    with torch.no_grad():
        pixels = vae.decode(latents / inverse_std + mean, return_dict=False)[0]
    pictures: Any = VideoProcessor(vae_scale_factor=8).postprocess_video(pixels, output_type="pil")
    return np.stack([np.asarray(picture) for picture in pictures[0]])


@pytest.mark.parametrize("name", sorted({name for name, _ in ARCHITECTURES}))
def test_chunks_equal_the_whole(name: str) -> None:
    model = model_of(f"tiny:{name}")
    latents = latents_for(model)
    chunks = list(decode(model, latents))
    assert [len(chunk) for chunk in chunks] == [1] + [4] * (LATENT_FRAMES - 1)
    assert all(chunk.dtype == np.uint8 for chunk in chunks)
    frames = np.concatenate(chunks)
    assert np.array_equal(frames, whole(model, latents))
    assert frames.std() > 5  # not a grey field


def test_chunks_equal_the_whole_for_the_demo_vae() -> None:
    model = load_model(CATALOG.get("demo"), demo.weights_path())
    latents = latents_for(model, side=6)
    assert np.array_equal(np.concatenate(list(decode(model, latents))), whole(model, latents))


def test_one_latent_frame_is_one_frame() -> None:
    model = model_of("tiny:t2v-1.3b")
    assert [chunk.shape for chunk in decode(model, latents_for(model, frames=1))] == [(1, 32, 48, 3)]


@pytest.mark.parametrize("name", ["t2v-1.3b", "ti2v-5b"])
def test_tiles_give_nearly_the_same_frames_in_the_same_chunks(name: str) -> None:
    model = make_case(name).fresh_model()
    latents = latents_for(model, side=12)
    untiled = np.concatenate(list(decode(model, latents)))
    side = 8 * model.spec.spatial_stride
    model.run_with(Placement(tile=Tile(side, side, side // 2)))
    chunks = list(decode(model, latents))
    assert [len(chunk) for chunk in chunks] == [1, 4, 4, 4]
    tiled = np.concatenate(chunks)
    assert not np.array_equal(tiled, untiled)  # tiles change pixels: the manifest must name them
    assert np.abs(tiled.astype(int) - untiled).mean() < 8


def test_a_tile_as_large_as_the_frame_changes_nothing() -> None:
    model = make_case("t2v-1.3b").fresh_model()
    latents = latents_for(model)
    untiled = np.concatenate(list(decode(model, latents)))
    model.run_with(Placement(tile=Tile(512, 512)))
    assert np.array_equal(np.concatenate(list(decode(model, latents))), untiled)


def test_tiles_leave_no_seam_in_what_the_demo_decodes() -> None:
    """A trained decoder: against whole frames, pixels where windows meet are no further off than others."""
    model = load_model(CATALOG.get("demo"), demo.weights_path())
    latents = latents_for(model, side=20, frames=2) / 2
    untiled = np.concatenate(list(decode(model, latents))).astype(int)
    model.run_with(Placement(tile=Tile(96, 112, 64)))
    off = np.abs(np.concatenate(list(decode(model, latents))) - untiled).mean(axis=(0, 1, 3))
    jumps = np.abs(np.diff(off))
    assert off.mean() < 4  # the decoder's one attention sees the window alone
    assert jumps.max() < off.mean() / 2


def test_cancel_stops_between_chunks() -> None:
    model = model_of("tiny:t2v-1.3b")
    cancel = CancelToken()
    chunks = decode(model, latents_for(model), cancel)
    next(chunks)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(chunks)


def test_a_stopped_decode_leaves_nothing_behind() -> None:
    model = model_of("tiny:t2v-1.3b")
    latents = latents_for(model)
    expected = whole(model, latents)
    chunks = decode(model, latents)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert np.array_equal(np.concatenate(list(decode(model, latents))), expected)


def test_torch_state_is_as_it_was_between_chunks() -> None:
    model = model_of("tiny:t2v-1.3b")
    state = torch.get_rng_state()
    for _ in decode(model, latents_for(model)):
        assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("tile", [None, Tile(32, 32, 16)])
def test_the_lean_decoder_gives_nearly_the_same_frames(tile: Tile | None) -> None:
    model = make_case("t2v-1.3b").fresh_model()
    model.run_with(Placement(tile=tile))
    latents = latents_for(model, frames=3)
    chunks, decoding = list(decode(model, latents)), Decoding(model, latents, lean=True)
    lean = list(decoding)
    assert [chunk.shape for chunk in lean] == [chunk.shape for chunk in chunks]
    assert np.abs(np.concatenate(lean).astype(int) - np.concatenate(chunks)).max() <= 2
    assert decoding.notes == ()


def test_a_decoder_that_left_fp16_says_so() -> None:
    model = model_of("tiny:t2v-1.3b")
    latents = latents_for(model, frames=3)
    latents[:, :, 1:] *= 1e5
    decoding = Decoding(model, latents, lean=True)
    frames = np.concatenate(list(decoding))
    assert decoding.notes == ("vae: latent frame 1 is beyond fp16; it and the rest were decoded in fp32",)
    assert np.abs(frames.astype(int) - whole(model, latents)).max() <= 2


def test_a_cancelled_lean_decode_stops_between_chunks() -> None:
    model, cancel = model_of("tiny:t2v-1.3b"), CancelToken()
    chunks = decode(model, latents_for(model, frames=3), cancel, lean=True)
    next(chunks)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(chunks)
