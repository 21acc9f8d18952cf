"""Tiny random models of Stable Diffusion XL's architecture, for tests and for trying the pipeline with no weights.

They differ from the real ones in size alone. Output is noise, but the same noise for the same seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from wanreel.core.picture_models import PictureSpec
from wanreel.core.placement import Placement
from wanreel.models.components import quiet
from wanreel.models.picture_model import PictureModel

_DIM = 32  # width of each text encoder
_TIME = 8  # numbers that stand for one size or score
_START, _END = 0, 1  # tokens


def build_tiny_pictures(
    spec: PictureSpec, seed: int = 0, device: torch.device | str = "cpu", placement: Placement | None = None
) -> PictureModel:
    """`spec`'s architecture with a few thousand random fp32 weights drawn from `seed`."""
    device, placement = torch.device(device), placement or Placement()
    two = spec.text_encoders == 2
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        config = _text_config()
        parts: dict[str, Any] = {
            "text_encoder": CLIPTextModel(config).eval() if two else None,
            "text_encoder_2": CLIPTextModelWithProjection(config).eval(),
            "vae": _vae(spec),
            "unet": _unet(spec),
        }
    home = device if placement.keeps_everything else torch.device("cpu")
    for part in parts.values():
        if part is not None:
            part.requires_grad_(False).to(home)
    return PictureModel(
        spec=spec,
        tokenizer=_tokenizer(spec.prompt_tokens) if two else None,
        tokenizer_2=_tokenizer(spec.prompt_tokens),
        device=device,
        dtype=torch.float32,
        scheduler_config=scheduler_config(),
        empty_is_zero=not spec.aesthetic,  # as the published ones
        placement=placement,
        notes=("Random weights: the output is noise.",),
        **parts,
    )


def save_tiny_pictures(spec: PictureSpec, folder: Path, seed: int = 0) -> Path:
    """The same model as a folder that Diffusers loads. Returns `folder`."""
    # Here, because its import logs a warning where torchvision is absent.
    from wanreel.models.diffusers_pictures import diffusers_pictures

    with quiet():
        diffusers_pictures(build_tiny_pictures(spec, seed)).save_pretrained(folder)
    return folder


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=130,
        hidden_size=_DIM,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=_DIM,
        bos_token_id=_START,
        eos_token_id=_END,
        pad_token_id=_END,
    )


def _unet(spec: PictureSpec) -> Any:
    numbers = 5 if spec.aesthetic else 6
    settings: dict[str, Any] = {
        "sample_size": spec.width // spec.spatial_stride,
        "in_channels": spec.latent_channels,
        "out_channels": spec.latent_channels,
        "block_out_channels": spec.unet_channels,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME,
        "transformer_layers_per_block": (1, 1),
        "projection_class_embeddings_input_dim": numbers * _TIME + _DIM,
        "cross_attention_dim": spec.cross_attention,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**settings).eval()


def _vae(spec: PictureSpec) -> Any:
    """Three halvings of each side."""
    settings: dict[str, Any] = {
        "block_out_channels": (4, 4, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "latent_channels": spec.latent_channels,
        "norm_num_groups": 4,
        "sample_size": spec.width,
        "scaling_factor": 0.13025,
    }
    return AutoencoderKL(**settings).eval()


def _tokenizer(max_tokens: int) -> Any:
    """A token for each printable character, between a start and an end, as CLIP has them."""
    vocabulary = {"<|startoftext|>": _START, "<|endoftext|>": _END, "<unk>": 2}
    vocabulary |= {chr(code): code - 29 for code in range(33, 127)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - a token of text
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    ends = [("<|startoftext|>", _START), ("<|endoftext|>", _END)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
    )
    special = {"bos_token": ends[0][0], "eos_token": ends[1][0], "pad_token": ends[1][0], "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **special)


def scheduler_config() -> dict[str, Any]:
    """As the published repositories have it."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="leading",
        steps_offset=1,
    )
    return dict(scheduler.config) | {"skip_prk_steps": True, "set_alpha_to_one": False, "clip_sample": False}
