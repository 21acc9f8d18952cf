"""The arithmetic of edits against Qwen-Image-Edit's modules: real shapes on the meta device, which hold no memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from models.meter import metered
from wanreel.core.catalog import Catalog
from wanreel.core.edit_memory import DECODE_BYTES, ENCODE_BYTES, READER, TOKEN_BYTES, VAE, EditLoad, usual_load
from wanreel.core.edit_models import EDIT_MODELS
from wanreel.core.machines import card_named, machine_of_card
from wanreel.core.picture_memory import picture_plans
from wanreel.core.placement import Placement
from wanreel.core.wishes import Wishes

SPEC = Catalog().picture("qwen-image-edit-2509")
SIDE = 1024  # px


def transformer() -> Any:
    with torch.device("meta"):
        return QwenImageTransformer2DModel()


def two_layers() -> Any:
    """As high at its highest point as all sixty."""
    with torch.device("meta"):
        module: Any = QwenImageTransformer2DModel(num_layers=2)
    return module.eval().to(torch.bfloat16)


@cache
def vae() -> Any:
    with torch.device("meta"):
        module: Any = AutoencoderKLQwenImage()
    return module.eval().to(torch.bfloat16)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def meta(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="meta")


def test_parameters_are_counted_exactly() -> None:
    """Of the reader's configuration: that of Qwen2.5-VL-7B."""
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    with torch.device("meta"):
        reader = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
        )
    assert (count(reader), count(vae())) == (READER, VAE)
    assert count(transformer()) == SPEC.unet_parameters
    assert {spec.unet_parameters for spec in EDIT_MODELS} == {SPEC.unet_parameters}


def test_a_step_takes_what_the_table_says() -> None:
    module, own, said = two_layers(), (SIDE // 16) ** 2, 300
    shapes = [[(1, SIDE // 16, SIDE // 16)] * 2]
    with torch.no_grad(), metered() as meter:
        module(
            hidden_states=meta(1, 2 * own, 64),
            timestep=meta(1),
            encoder_hidden_states=meta(1, said, 3584),
            img_shapes=shapes,
            return_dict=False,
        )
    assert meter.peak == pytest.approx(TOKEN_BYTES * (2 * own + said), rel=0.05)


def test_the_vae_takes_what_the_table_says() -> None:
    module = vae()
    with torch.no_grad(), metered() as meter:
        module.decode(meta(1, 16, 1, SIDE // 8, SIDE // 8), return_dict=False)
    assert meter.peak == pytest.approx(DECODE_BYTES * SIDE * SIDE, rel=0.02)
    with torch.no_grad(), metered() as meter:
        module.encode(meta(1, 3, 1, SIDE, SIDE), return_dict=False)
    assert meter.peak == pytest.approx(ENCODE_BYTES * SIDE * SIDE, rel=0.02)


@pytest.mark.parametrize(
    ("card", "plan"), [("H200", "resident"), ("RTX A6000", "exclusive"), ("RTX 4090", None)], ids=lambda it: str(it)
)
def test_cards_run_what_they_hold(card: str, plan: str | None) -> None:
    machine = machine_of_card(card_named(card), host_gib=128)
    (first, *_) = picture_plans(usual_load(SPEC), machine, Wishes())
    assert first.fits is (plan is not None)
    if plan is not None:
        assert first.placement.plan == plan


def test_windows_cost_less() -> None:
    load = usual_load(SPEC)
    assert isinstance(load, EditLoad)
    whole = load.price(Placement(plan="exclusive"))
    assert whole.host_bytes == 2 * (READER + VAE + SPEC.unet_parameters)
