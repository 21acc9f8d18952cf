"""Tiny random models of Qwen-Image-Edit's architecture, for tests and for trying the pipeline with no weights.

They differ from the real ones in size alone. Output is noise, but the same noise for the same seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from wanreel.core.edit_models import EditSpec
from wanreel.core.placement import Placement
from wanreel.models.components import quiet
from wanreel.models.edit_model import EditModel
from wanreel.models.edit_processor import EditProcessor
from wanreel.models.folder import INDEX_NAME

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_PATCH = 14  # px, as the real one's


def build_tiny_edits(
    spec: EditSpec, seed: int = 0, device: torch.device | str = "cpu", placement: Placement | None = None
) -> EditModel:
    """`spec`'s architecture with a few thousand random fp32 weights drawn from `seed`."""
    device, placement = torch.device(device), placement or Placement()
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]), quiet():
        torch.default_generator.manual_seed(seed)
        parts: dict[str, Any] = {
            "text_encoder": Qwen2_5_VLForConditionalGeneration(_reader_config(spec, tokenizer)).eval(),
            "vae": _vae(spec),
            "transformer": _transformer(spec),
        }
    home = device if placement.keeps_everything else torch.device("cpu")
    for part in parts.values():
        part.requires_grad_(False).to(home)
    return EditModel(
        spec=spec,
        processor=EditProcessor(tokenizer, _pictures()),
        device=device,
        dtype=torch.float32,
        scheduler_config=edit_scheduler_config(),
        placement=placement,
        notes=("Random weights: the output is noise.",),
        **parts,
    )


def save_tiny_edits(spec: EditSpec, folder: Path, seed: int = 0) -> Path:
    """The same model as a folder in Diffusers layout. Returns `folder`."""
    model = build_tiny_edits(spec, seed)
    with quiet():
        for name, part in model.modules.items():
            part.save_pretrained(folder / name)  # type: ignore[operator]  # of both libraries' base classes
        model.processor.tokenizer.save_pretrained(folder / "tokenizer")
        model.processor.image_processor.save_pretrained(folder / "processor")
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(dict(model.scheduler_config))
        scheduler.save_pretrained(folder / "scheduler")
    (folder / INDEX_NAME).write_text('{"_class_name": "QwenImageEditPlusPipeline"}')
    return folder


def _reader_config(spec: EditSpec, tokenizer: Any) -> Qwen2_5_VLConfig:
    width, special = spec.cross_attention, {name: tokenizer.convert_tokens_to_ids(name) for name in _SPECIAL}
    text: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "rope_parameters": {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 1000000.0},
        "bos_token_id": special["<|endoftext|>"],
        "eos_token_id": special["<|im_end|>"],
        "pad_token_id": special["<|endoftext|>"],
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_heads": 2,
        "out_hidden_size": width,
        "patch_size": _PATCH,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )


def _transformer(spec: EditSpec) -> Any:
    return QwenImageTransformer2DModel(
        in_channels=spec.packed_channels,
        out_channels=spec.latent_channels,
        num_layers=spec.layers,
        attention_head_dim=spec.head_width,
        num_attention_heads=spec.heads,
        joint_attention_dim=spec.cross_attention,
        axes_dims_rope=(8, 4, 4),
        zero_cond_t="2511" in spec.name,
    ).eval()


def _vae(spec: EditSpec) -> Any:
    """Three halvings of each side."""
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=spec.latent_channels,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        latents_mean=[-0.7, -0.7, -0.9, 0.1],
        latents_std=[2.8, 1.4, 2.3, 2.6],
    ).eval()


def _pictures() -> Any:
    return Qwen2VLImageProcessorPil(patch_size=_PATCH, min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28)


def _tokenizer() -> Any:
    """A token for each printable character."""
    vocabulary = {name: number for number, name in enumerate((*_SPECIAL, "<unk>", "\n"))}
    vocabulary |= {chr(code): len(vocabulary) + code - 32 for code in range(32, 127)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 - a token of text
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(list(_SPECIAL))
    special = {"pad_token": _SPECIAL[0], "eos_token": _SPECIAL[2], "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def edit_scheduler_config() -> dict[str, Any]:
    """As the published repositories have it."""
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        shift=1.0,
        shift_terminal=0.02,
        use_dynamic_shifting=True,
    )
    return dict(scheduler.config)
