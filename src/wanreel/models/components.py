"""Which class makes which part, and what a ModelSpec fixes of its architecture. Knows nothing of files or devices.

The table is ours: the class names written in a downloaded folder are never followed.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import transformers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from wanreel.core.catalog import ModelSpec
from wanreel.core.components import (
    CLIP_DIM,
    CLIP_TOKENS,
    TEXT_DIM,
    TRANSFORMERS,
    in_channels,
)

#: The PIL version gives the same pixels with and without torchvision; older transformers know one name only.
CLIP_IMAGE_PROCESSOR: Any = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor

MODULES: Mapping[str, Any] = {
    "text_encoder": UMT5EncoderModel,
    "image_encoder": CLIPVisionModel,
    "vae": AutoencoderKLWan,
    "transformer": WanTransformer3DModel,
    "transformer_2": WanTransformer3DModel,
}
ENCODER_CONFIGS: Mapping[str, Any] = {"text_encoder": UMT5Config, "image_encoder": CLIPVisionConfig}
SCHEDULER = UniPCMultistepScheduler


#: Transformer sizes by `ModelSpec.parameters`, as Diffusers' config keys.
TRANSFORMER_SIZES: Mapping[str, Mapping[str, int]] = {
    name: {
        "num_attention_heads": size.heads,
        "attention_head_dim": size.head_dim,
        "ffn_dim": size.ffn_dim,
        "num_layers": size.layers,
    }
    for name, size in TRANSFORMERS.items()
}

# Wan-AI's hub configs: text_encoder (google/umt5-xxl), image_encoder (CLIP ViT-H/14), vae of Wan 2.2.
UMT5_XXL: Mapping[str, Any] = {
    "vocab_size": 256384,
    "d_model": TEXT_DIM,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
CLIP_H: Mapping[str, Any] = {
    "hidden_size": CLIP_DIM,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
VAE_22: Mapping[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}


def full_modules(spec: ModelSpec) -> dict[str, Any]:
    """Every part of a row of the catalogue in its real size, by name, in eval mode; torch's default device holds them.

    For counting and measuring without weights: use it on the meta device.
    """
    sizes: dict[str, Any] = dict(TRANSFORMER_SIZES[spec.parameters])
    if spec.clip:
        sizes |= {"image_dim": CLIP_DIM, "added_kv_proj_dim": sizes["num_attention_heads"] * 128}
    if two_pictures(spec):
        sizes["pos_embed_seq_len"] = 2 * CLIP_TOKENS
    vae: Mapping[str, Any] = VAE_22 if spec.latent_channels == VAE_22["z_dim"] else {}
    parts: dict[str, Any] = {"text_encoder": UMT5EncoderModel(UMT5Config(**UMT5_XXL))}
    if spec.clip:
        parts["image_encoder"] = CLIPVisionModel(CLIPVisionConfig(**CLIP_H))
    parts["vae"] = AutoencoderKLWan(**vae)
    for name in ("transformer", "transformer_2")[: spec.experts]:
        parts[name] = WanTransformer3DModel(in_channels=in_channels(spec), out_channels=spec.latent_channels, **sizes)
    return {name: part.eval() for name, part in parts.items()}


@dataclass(frozen=True)
class Architecture:
    """What must be true of a folder for a ModelSpec, as config keys and values by part."""

    parts: tuple[str, ...]  #: folder names that hold weights
    extras: tuple[str, ...]  #: folder names that hold none
    fixed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    present: Mapping[str, Mapping[str, bool]] = field(default_factory=dict[str, Mapping[str, bool]])  #: set or not
    index: Mapping[str, Any] = field(default_factory=dict[str, Any])  #: of model_index.json


def architecture(spec: ModelSpec) -> Architecture:
    """Derived from the row alone, so that a user's own row works like a shipped one."""
    transformer = {
        "in_channels": in_channels(spec),
        "out_channels": spec.latent_channels,
        "patch_size": [1, 2, 2],
        **TRANSFORMER_SIZES.get(spec.parameters, {}),
    }
    pictures = {
        "image_dim": spec.clip,
        "added_kv_proj_dim": spec.clip,
        "pos_embed_seq_len": two_pictures(spec),
    }
    vae = {
        "z_dim": spec.latent_channels,
        "scale_factor_temporal": spec.temporal_stride,
        "scale_factor_spatial": spec.spatial_stride,
    }
    experts = ("transformer", "transformer_2")[: spec.experts]
    clip = ("image_encoder",) if spec.clip else ()
    return Architecture(
        parts=("text_encoder", *clip, "vae", *experts),
        extras=("tokenizer", "scheduler", *(("image_processor",) if spec.clip else ())),
        fixed={"vae": vae, **dict.fromkeys(experts, transformer)},
        present=dict.fromkeys(experts, pictures),
        index={
            "boundary_ratio": spec.boundary_ratio,
            "expand_timesteps": spec.conditioning == "first_frame",
        },
    )


def two_pictures(spec: ModelSpec) -> bool:
    """Whether the image embedder has learnt positions for a first and a last picture (FLF2V)."""
    return spec.clip and "first_last" in spec.modes


@contextmanager
def quiet() -> Generator[None]:
    """No progress bars from transformers: progress is reported by events."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
