"""Loading a model of Stable Diffusion XL's kind from a folder in Diffusers layout. Never goes online, runs no code of it.

Knows nothing of downloads. Only safetensors are read; classes are ours, whatever the folder names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from wanreel.core.picture_models import PictureSpec
from wanreel.core.placement import Placement
from wanreel.models.folder import INDEX_NAME, read_json
from wanreel.models.picture_folder import Facts, check_picture_folder
from wanreel.models.picture_model import PictureModel
from wanreel.models.pretrained import read_module, read_tokenizer

_CLASSES: Mapping[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
    "vae": AutoencoderKL,
    "unet": UNet2DConditionModel,
}


def load_picture_model(
    spec: PictureSpec, folder: Path, device: torch.device | str = "cpu", placement: Placement | None = None
) -> PictureModel:
    """The model in `folder`, ready to run on `device`. Without `placement` everything stays there.

    Raises BrokenWeights when the folder is incomplete, damaged or of another model.
    """
    device, placement = torch.device(device), placement or Placement()
    check_picture_folder(spec, folder, _facts(spec))
    loader = _Loader(folder, device, placement)
    index = read_json(folder / INDEX_NAME)
    two = spec.text_encoders == 2
    with torch.random.fork_rng(devices=[]):  # modules draw their first weights even when those are thrown away
        return PictureModel(
            spec=spec,
            tokenizer=loader.tokenizer("tokenizer") if two else None,
            tokenizer_2=loader.tokenizer("tokenizer_2"),
            text_encoder=loader.module("text_encoder") if two else None,
            text_encoder_2=loader.module("text_encoder_2"),
            vae=loader.module("vae"),
            unet=loader.module("unet"),
            device=device,
            dtype=dtype_on(device),
            scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
            empty_is_zero=index.get("force_zeros_for_empty_prompt", True) is True,
            placement=placement,
        )


def dtype_on(device: torch.device) -> torch.dtype:
    """fp16 on a GPU, in which the weights are published; fp32 where that is slow."""
    return torch.float16 if device.type == "cuda" else torch.float32


def _facts(spec: PictureSpec) -> Facts:
    unet = {
        "block_out_channels": list(spec.unet_channels),
        "cross_attention_dim": spec.cross_attention,
        "in_channels": spec.latent_channels,
        "addition_embed_type": "text_time",
    }
    return {"unet": unet, "vae": {"latent_channels": spec.latent_channels}}


@dataclass(frozen=True, slots=True)
class _Loader:
    """Loads the parts of one folder to where they belong."""

    folder: Path
    device: torch.device
    placement: Placement

    def module(self, name: str) -> Any:
        place = self.folder / name
        dtype = torch.float32 if name == "vae" else dtype_on(self.device)
        variant = "fp16" if any(place.glob("*.fp16.safetensors")) else None
        module = read_module(_CLASSES[name], place, name, torch_dtype=dtype, variant=variant)
        home = self.device if self.placement.keeps_everything else torch.device("cpu")
        return module.to(home)

    def tokenizer(self, name: str) -> Any:
        return read_tokenizer(self.folder / name, name)
