"""Loading a model of Qwen-Image-Edit's kind from a folder in Diffusers layout. Never goes online, runs no code of it.

Knows nothing of downloads. Only safetensors are read; classes are ours, whatever the folder names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from wanreel.core.edit_models import EditSpec
from wanreel.core.errors import BrokenWeights
from wanreel.core.placement import Placement
from wanreel.models.components import quiet
from wanreel.models.edit_model import EditModel
from wanreel.models.edit_processor import EditProcessor
from wanreel.models.folder import read_json
from wanreel.models.picture_folder import Facts, check_picture_folder
from wanreel.models.pretrained import read_module, read_tokenizer

_CLASSES: Mapping[str, Any] = {
    "text_encoder": Qwen2_5_VLForConditionalGeneration,
    "vae": AutoencoderKLQwenImage,
    "transformer": QwenImageTransformer2DModel,
}


def load_edit_model(
    spec: EditSpec, folder: Path, device: torch.device | str = "cpu", placement: Placement | None = None
) -> EditModel:
    """The model in `folder`, ready to run on `device`. Without `placement` everything stays there.

    Raises BrokenWeights when the folder is incomplete, damaged or of another model.
    """
    device, placement = torch.device(device), placement or Placement()
    check_picture_folder(spec, folder, _facts(spec))
    dtype = edit_dtype_on(device)
    home = device if placement.keeps_everything else torch.device("cpu")

    def module(name: str) -> Any:
        return read_module(_CLASSES[name], folder / name, name, torch_dtype=dtype).to(home)

    with torch.random.fork_rng(devices=[]):  # modules draw their first weights even when those are thrown away
        return EditModel(
            spec=spec,
            processor=_processor(folder),
            text_encoder=module("text_encoder"),
            vae=module("vae"),
            transformer=module("transformer"),
            device=device,
            dtype=dtype,
            scheduler_config=read_json(folder / "scheduler" / "scheduler_config.json"),
            placement=placement,
        )


def edit_dtype_on(device: torch.device) -> torch.dtype:
    """bf16 on a GPU, in which the weights are published; fp32 where that is slow."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _processor(folder: Path) -> EditProcessor:
    try:
        with quiet():
            images = Qwen2VLImageProcessorPil.from_pretrained(folder / "processor", local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenWeights(f"processor/ can't be loaded ({error}).") from error
    return EditProcessor(read_tokenizer(folder / "tokenizer", "tokenizer"), images)


def _facts(spec: EditSpec) -> Facts:
    return {
        "transformer": {
            "num_layers": spec.layers,
            "num_attention_heads": spec.heads,
            "attention_head_dim": spec.head_width,
            "joint_attention_dim": spec.cross_attention,
            "in_channels": spec.packed_channels,
        },
        "vae": {"z_dim": spec.latent_channels},
    }
