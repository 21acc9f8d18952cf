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
from transformers import CLIPVisionModel, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from wanreel.core.catalog import ModelSpec

MASK_CHANNELS = 4  #: one per frame of a latent frame; they go before the picture's latents (Wan 2.1 image2video.py)

#: The PIL version gives the same pixels with and without torchvision; older transformers know one name only.
CLIP_IMAGE_PROCESSOR: Any = getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor

MODULES: Mapping[str, Any] = {
    "text_encoder": UMT5EncoderModel,
    "image_encoder": CLIPVisionModel,
    "vae": AutoencoderKLWan,
    "transformer": WanTransformer3DModel,
    "transformer_2": WanTransformer3DModel,
}
SCHEDULER = UniPCMultistepScheduler


#: Transformer sizes by `ModelSpec.parameters`. Source: Wan-Video/Wan2.1 and Wan2.2, wan/configs (dim = heads x 128).
TRANSFORMER_SIZES: Mapping[str, Mapping[str, int]] = {
    "1.3B": {
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "ffn_dim": 8960,
        "num_layers": 30,
    },
    "5B": {
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "ffn_dim": 14336,
        "num_layers": 30,
    },
    "14B": {
        "num_attention_heads": 40,
        "attention_head_dim": 128,
        "ffn_dim": 13824,
        "num_layers": 40,
    },
    "2 × 14B": {
        "num_attention_heads": 40,
        "attention_head_dim": 128,
        "ffn_dim": 13824,
        "num_layers": 40,
    },
}


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


def in_channels(spec: ModelSpec) -> int:
    """Channels that enter the transformer: latents, and for channel conditioning the mask and the picture's latents."""
    if spec.conditioning == "channels":
        return 2 * spec.latent_channels + MASK_CHANNELS
    return spec.latent_channels


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
