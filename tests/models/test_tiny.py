"""The tiny-model factory: every architecture, the same bits for the same seed, and loadable by Diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

from models.architectures import ROWS, TINY, by_name
from wanreel.core.catalog import ModelSpec
from wanreel.models.diffusers_pipeline import diffusers_pipeline
from wanreel.models.tiny import build_tiny, save_tiny
from wanreel.models.wan_model import WanModel

each_architecture = pytest.mark.parametrize("spec", TINY, ids=lambda spec: spec.name)


def weights(model: WanModel) -> dict[str, torch.Tensor]:
    modules = {"text": model.text_encoder, "image": model.image_encoder, "vae": model.vae}
    modules |= {f"expert{index}": expert.transformer for index, expert in enumerate(model.experts)}
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        if module is not None
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize("spec", ROWS, ids=lambda spec: spec.name)
def test_the_row_decides_the_architecture(spec: ModelSpec) -> None:
    model = build_tiny(spec)
    config = model.experts[0].transformer.config
    assert len(model.experts) == spec.experts
    assert config.out_channels == spec.latent_channels == model.vae.config.z_dim
    assert config.in_channels == (36 if spec.conditioning == "channels" else spec.latent_channels)
    assert model.vae.config.scale_factor_spatial == spec.spatial_stride
    assert (model.image_encoder is not None) == spec.clip == (config.image_dim is not None)
    assert (config.pos_embed_seq_len is not None) == ("first_last" in spec.modes)
    assert model.expand_timesteps == (spec.conditioning == "first_frame")


@each_architecture
def test_the_vae_has_the_rows_strides(spec: ModelSpec) -> None:
    vae = build_tiny(spec).vae
    with torch.no_grad():
        latents = vae.encode(torch.zeros(1, 3, 5, 64, 32)).latent_dist.mode()
        frames = vae.decode(latents).sample
    assert latents.shape == (1, spec.latent_channels, 2, 64 // spec.spatial_stride, 32 // spec.spatial_stride)
    assert frames.shape == (1, 3, 5, 64, 32)


def test_one_seed_one_model() -> None:
    spec = by_name("i2v-14b-480p")
    one, same, other = (weights(build_tiny(spec, seed)) for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_tiny(by_name("flf2v-14b-720p"))
    assert torch.equal(torch.rand(3), expected)


def test_seven_architectures_are_covered() -> None:
    assert len(TINY) == 7


@pytest.mark.parametrize(
    ("name", "boundary", "timestep", "index"),
    [
        ("t2v-a14b", 875.0, 875.0, 0),
        ("t2v-a14b", 875.0, 874.0, 1),
        ("i2v-a14b", 900.0, 900.0, 0),
        ("i2v-a14b", 900.0, 899.0, 1),
        ("ti2v-5b", None, 0.0, 0),
    ],
)
def test_the_boundary_belongs_to_the_high_noise_expert(
    name: str, boundary: float | None, timestep: float, index: int
) -> None:
    model = build_tiny(by_name(name))
    assert model.boundary_timestep == boundary
    assert model.expert_at(timestep) is model.experts[index]


@each_architecture
def test_diffusers_loads_and_runs_the_folder(spec: ModelSpec, tmp_path: Path) -> None:
    """The saved folder and the modules in memory make the same video in Diffusers' own pipeline."""
    loaded = DiffusionPipeline.from_pretrained(save_tiny(spec, tmp_path))
    built = diffusers_pipeline(build_tiny(spec))
    assert type(loaded) is type(built)
    one, other = (_generate(pipeline, spec) for pipeline in (loaded, built))
    assert np.isfinite(one).all()
    # Mapped weights lie at odd addresses, where kernels round otherwise.
    np.testing.assert_allclose(one, other, atol=1e-4)


def _generate(pipeline: Any, spec: ModelSpec) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    given: dict[str, Any] = {"prompt": "a", "height": 64, "width": 64, "num_frames": 5, "num_inference_steps": 1}
    if "text" not in spec.modes:
        given["image"] = Image.new("RGB", (64, 64), "red")
    if "first_last" in spec.modes:
        given["last_image"] = Image.new("RGB", (64, 64), "blue")
    return pipeline(generator=torch.Generator().manual_seed(0), output_type="np", **given).frames[0]
