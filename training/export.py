"""Writes the finished parts: the Diffusers folder, and single safetensors files with notes about their format."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel  # pyright: ignore[reportPrivateImportUsage]
from safetensors.torch import save_file
from torch import Tensor, nn

from training.config import FLOW_SHIFT
from training.networks import Networks


def save_pipeline(folder: Path, networks: Networks) -> None:
    """The Diffusers layout, weights in float16; the text encoder in float32, as Transformers loads the stored type."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT, num_train_timesteps=1000
    )
    shape = {k: v for k, v in networks.dit.config.items() if not k.startswith("_")}
    plain: Any = WanTransformer3DModel(**shape)  # without the training's attention
    plain.load_state_dict({k: v.cpu() for k, v in networks.dit.state_dict().items()})
    parts: dict[str, Any] = {
        "tokenizer": networks.tokenizer,
        "text_encoder": _stored(networks.text, torch.float32),
        "scheduler": scheduler,
        "vae": _stored(networks.vae, torch.float16),
        "transformer": _stored(plain, torch.float16),
    }
    pipeline: Any = WanPipeline(**parts, expand_timesteps=True)
    pipeline.save_pretrained(folder)
    # Transformers 5 writes a class name that older releases don't know.
    _edit(folder / "tokenizer" / "tokenizer_config.json", "tokenizer_class", "PreTrainedTokenizerFast")
    _edit(folder / "model_index.json", "tokenizer", ["transformers", "PreTrainedTokenizerFast"])


def _stored(module: Any, dtype: torch.dtype) -> nn.Module:
    module = copy.deepcopy(module).cpu()
    for p in module.parameters():
        p.data = p.data.to(dtype).contiguous()
    return module.eval()


def _edit(path: Path, key: str, value: object) -> None:
    content = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content, indent=2) + "\n")


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """One safetensors file in float16 with `notes` as its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().half().contiguous() for k, v in tensors.items()}, path, metadata=notes)
