"""The arithmetic of pictures against Stable Diffusion XL's modules: real shapes on the meta device, which hold no memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from models.meter import metered
from wanreel.core.catalog import Catalog
from wanreel.core.picture_memory import (
    CLIP_G,
    CLIP_L,
    DECODE_FLOATS,
    ENCODE_FLOATS,
    FULL,
    TEXT_ACTIVATIONS,
    VAE,
    PictureLoad,
)
from wanreel.core.picture_models import PictureSpec
from wanreel.core.placement import Placement

BASE, REFINER = Catalog().picture("sdxl-base"), Catalog().picture("sdxl-refiner")
SIDE = 1024  # px
_ATTENDED, _PLAIN = "CrossAttn{}Block2D", "{}Block2D"


@dataclass
class Modules:
    """As the repositories' config.json have them, made when they are asked for."""

    @cached_property
    def vae(self) -> Any:
        return _vae()

    @cached_property
    def base(self) -> Any:
        return _unet(BASE, (0, 1, 1), (5, 10, 20), (1, 2, 10), 2816)

    @cached_property
    def refiner(self) -> Any:
        return _unet(REFINER, (0, 1, 1, 0), (6, 12, 24, 24), 4, 2560)

    @cached_property
    def clip_l(self) -> Any:
        config = CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
        with torch.device("meta"):
            return CLIPTextModel(config).eval()

    @cached_property
    def clip_g(self) -> Any:
        config = CLIPTextConfig(
            vocab_size=49408, hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
            projection_dim=1280, hidden_act="gelu",
        )  # fmt: skip
        with torch.device("meta"):
            return CLIPTextModelWithProjection(config).eval()

    def unet(self, spec: PictureSpec) -> Any:
        return self.base if spec is BASE else self.refiner


def _vae() -> Any:
    settings: dict[str, Any] = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": SIDE,
    }
    with torch.device("meta"):
        return AutoencoderKL(**settings).eval()


def _unet(spec: PictureSpec, attended: tuple[int, ...], heads: tuple[int, ...], layers: Any, pooled: int) -> Any:
    kinds = [_ATTENDED if it else _PLAIN for it in attended]
    settings: dict[str, Any] = {
        "sample_size": SIDE // spec.spatial_stride,
        "block_out_channels": spec.unet_channels,
        "layers_per_block": 2,
        "down_block_types": tuple(kind.format("Down") for kind in kinds),
        "up_block_types": tuple(kind.format("Up") for kind in reversed(kinds)),
        "attention_head_dim": heads,
        "transformer_layers_per_block": layers,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": pooled,
        "cross_attention_dim": spec.cross_attention,
    }
    with torch.device("meta"):
        module: Any = UNet2DConditionModel(**settings)
    return module.eval().to(torch.float16)


@pytest.fixture(scope="module")
def modules() -> Modules:
    return Modules()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def peak(run: Callable[[], object]) -> int:
    """Bytes alive at most beside weights and what is given."""
    with torch.no_grad(), metered() as meter:
        run()
    return meter.peak


def meta(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def test_parameters_are_counted_exactly(modules: Modules) -> None:
    assert (count(modules.clip_l), count(modules.clip_g), count(modules.vae)) == (CLIP_L, CLIP_G, VAE)
    assert count(modules.base) == BASE.unet_parameters == 2_567_463_684
    assert count(modules.refiner) == REFINER.unet_parameters == 2_259_526_660


@pytest.mark.parametrize("spec", [BASE, REFINER], ids=lambda spec: spec.name)
def test_weights_are_those_of_the_modules(modules: Modules, spec: PictureSpec) -> None:
    parts: dict[str, nn.Module] = {"text_encoder_2": modules.clip_g, "unet": modules.unet(spec), "vae": modules.vae}
    if spec.text_encoders == 2:
        parts["text_encoder"] = modules.clip_l
    width = {"vae": 4}  # bytes; the others are in half precision
    expected = {name: count(part) * width.get(name, 2) for name, part in parts.items()}
    assert dict(PictureLoad(spec, SIDE, SIDE, from_picture=False).weights) == expected


@pytest.mark.parametrize("spec", [BASE, REFINER], ids=lambda spec: spec.name)
def test_a_step_takes_what_the_table_says(modules: Modules, spec: PictureSpec) -> None:
    unet, latents = modules.unet(spec), meta(2, 4, SIDE // 8, SIDE // 8)
    text = meta(2, 77, spec.cross_attention)
    added = {"text_embeds": meta(2, 1280), "time_ids": meta(2, 5 if spec.aesthetic else 6)}
    time = torch.tensor(500, device="meta")
    counted = peak(lambda: unet(latents, time, text, added_cond_kwargs=added, return_dict=False))
    (_, denoise, _) = PictureLoad(spec, SIDE, SIDE, from_picture=False).price(Placement()).stages
    assert denoise.stage == "denoise"
    assert denoise.activations == pytest.approx(counted, rel=0.02)


def test_the_vae_takes_what_the_formula_says(modules: Modules) -> None:
    vae, pixels = modules.vae, SIDE * SIDE  # built before its peak is looked for
    latents, picture = (
        meta(1, 4, SIDE // 8, SIDE // 8, dtype=torch.float32),
        meta(1, 3, SIDE, SIDE, dtype=torch.float32),
    )
    decoded = peak(lambda: vae.decode(latents, return_dict=False))
    encoded = peak(lambda: vae.encode(picture, return_dict=False))
    assert decoded == pytest.approx(DECODE_FLOATS * FULL * pixels, rel=0.02)
    assert encoded == pytest.approx(ENCODE_FLOATS * FULL * pixels, rel=0.02)


def test_reading_a_prompt_takes_no_more_than_is_allowed_for(modules: Modules) -> None:
    tokens = torch.zeros(1, 77, dtype=torch.long, device="meta")
    encoder = modules.clip_g.to(torch.float16)
    assert peak(lambda: encoder(tokens, output_hidden_states=True)) <= TEXT_ACTIVATIONS
