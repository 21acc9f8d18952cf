"""Previews look like the video: colours land where they belong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from generation.factory import CATALOG, model_of
from wanreel import demo
from wanreel.generation.encode import latent_statistics
from wanreel.generation.preview import LONGEST_SIDE, PreviewMap
from wanreel.models.load import load_model
from wanreel.models.wan_model import WanModel

COLOURS = {"red": (0.8, -0.8, -0.8), "green": (-0.8, 0.6, -0.8), "blue": (-0.8, -0.8, 0.8)}


@pytest.fixture(scope="module")
def demo_model() -> WanModel:
    return load_model(CATALOG.get("demo"), demo.weights_path())


def normalised(model: WanModel, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        latents = model.vae.encode(pixels).latent_dist.mode()
    mean, inverse_std = latent_statistics(model.vae, latents)
    return (latents - mean) * inverse_std


@pytest.mark.parametrize("name", COLOURS)
def test_the_demo_models_previews_show_colours_where_they_are(demo_model: WanModel, name: str) -> None:
    colour = torch.tensor(COLOURS[name]).view(1, 3, 1, 1, 1)
    pixels = torch.full((1, 3, 9, 128, 160), -0.2)
    pixels[..., :80] = colour  # the left half
    frames = PreviewMap.of(demo_model).frames(normalised(demo_model, pixels))
    assert frames.dtype == np.uint8
    assert frames.shape[0] == 3
    assert max(frames.shape[1:3]) == LONGEST_SIDE
    channel = list(COLOURS).index(name)
    left, right = frames[:, :, :96].reshape(-1, 3).mean(0), frames[:, :, -96:].reshape(-1, 3).mean(0)
    assert left.argmax() == channel
    assert left[channel] > 1.5 * np.delete(left, channel).max()
    assert right.max() - right.min() < 40  # grey


def test_an_unknown_vae_gets_a_fitted_map_of_its_own() -> None:
    model = model_of("tiny:ti2v-5b")
    fitted = PreviewMap.of(model)
    assert fitted.factors.shape == (48, 3)
    assert fitted.frames(torch.randn(1, 48, 3, 2, 4)).shape == (3, 128, 256, 3)


@pytest.mark.parametrize(("name", "channels"), [("t2v-14b", 16), ("ti2v-5b", 48)])
def test_released_vaes_use_the_published_map(name: str, channels: int) -> None:
    means = {16: (-0.7571, -0.7089, -0.9113, 0.1075), 48: (-0.2289, -0.0052, -0.1323, -0.2339)}[channels]
    config = SimpleNamespace(latents_mean=[*means, *[0.0] * (channels - 4)])
    released = SimpleNamespace(config=config, decoder=torch.nn.Module())
    published = PreviewMap.of(replace(model_of(f"tiny:{name}"), vae=released))  # has no encoder: must not be asked
    assert published.factors.shape == (channels, 3)
    assert published.bias.abs().max() < 0.4


def test_large_latents_give_small_frames() -> None:
    wide = PreviewMap(torch.rand(16, 3), torch.zeros(3)).frames(torch.randn(1, 16, 2, 300, 600))
    assert wide.shape == (2, 128, 256, 3)
