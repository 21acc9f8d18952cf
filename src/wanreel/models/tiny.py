"""Tiny random models of every architecture, for tests and for trying a pipeline with no weights.

They differ from the real ones in size alone. Knows nothing of trained weights; output is noise, but the same noise for
the same seed. The global random state is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from wanreel.core.catalog import ModelSpec
from wanreel.core.placement import Placement
from wanreel.models.components import (
    CLIP_IMAGE_PROCESSOR,
    in_channels,
    quiet,
    two_pictures,
)
from wanreel.models.load import home_of, make_expert, scheme_of
from wanreel.models.quantize import quantize, stored_of
from wanreel.models.wan_model import WanModel

_DIM = 32  # text and image width
_CLIP_SIDE, _CLIP_PATCH = 32, 8  # px
_CLIP_TOKENS = (_CLIP_SIDE // _CLIP_PATCH) ** 2 + 1


def build_tiny(
    spec: ModelSpec,
    seed: int = 0,
    device: torch.device | str = "cpu",
    placement: Placement | None = None,
) -> WanModel:
    """`spec`'s architecture with a few thousand random fp32 weights drawn from `seed`."""
    device, placement = torch.device(device), placement or Placement()
    with _seeded(seed):
        text_encoder = _text_encoder()
        image_encoder = _image_encoder() if spec.clip else None
        vae = _vae(spec)
        transformers = [_transformer(spec) for _ in range(spec.experts)]
    scheme = scheme_of(placement)
    for transformer in transformers:
        if scheme is not None:
            quantize(stored_of(transformer.blocks, placement), scheme)
    parts = {"text_encoder": text_encoder, "image_encoder": image_encoder, "vae": vae}
    for name, module in [*parts.items(), *(("transformer", it) for it in transformers)]:
        if module is not None:
            module.to(home_of(name, device, placement))
    experts = tuple(make_expert(transformer, device, placement) for transformer in transformers)
    return WanModel(
        spec=spec,
        tokenizer=_tokenizer(spec.prompt_tokens),
        text_encoder=text_encoder,
        image_encoder=image_encoder,
        image_processor=_image_processor() if spec.clip else None,
        vae=vae,
        experts=experts,
        device=device,
        dtype=torch.float32,
        scheduler_config=_scheduler_config(),
        placement=placement,
        notes=("Random weights: the output is noise.",),
    )


def save_tiny(spec: ModelSpec, folder: Path, seed: int = 0) -> Path:
    """The same model as a folder that Diffusers' `DiffusionPipeline.from_pretrained` loads. Returns `folder`."""
    # Here, because its import logs a warning where torchvision is absent.
    from wanreel.models.diffusers_pipeline import diffusers_pipeline

    with quiet():
        diffusers_pipeline(build_tiny(spec, seed)).save_pretrained(folder)
    return folder


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone; torch.manual_seed seeds every GPU too
        yield


def _transformer(spec: ModelSpec) -> Any:
    heads, head_dim = 2, 12
    clip: dict[str, Any] = {}
    if spec.clip:
        clip = {"image_dim": _DIM, "added_kv_proj_dim": heads * head_dim}
    if two_pictures(spec):
        clip["pos_embed_seq_len"] = 2 * _CLIP_TOKENS
    model: Any = WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        in_channels=in_channels(spec),
        out_channels=spec.latent_channels,
        text_dim=_DIM,
        freq_dim=_DIM,
        ffn_dim=64,
        num_layers=2,
        rope_max_seq_len=64,
        **clip,
    )
    if two_pictures(spec):  # Diffusers starts the learnt positions at zero, which would hide them from every test
        torch.nn.init.normal_(model.condition_embedder.image_embedder.pos_embed, std=0.1)
    return model.eval()


def _vae(spec: ModelSpec) -> Any:
    """Three halvings of each side; where the stride is more, 2 x 2 pixels enter as channels first (Wan 2.2's VAE)."""
    patch = spec.spatial_stride // 8
    settings: dict[str, Any] = {
        "base_dim": 8,
        "z_dim": spec.latent_channels,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
        "scale_factor_temporal": spec.temporal_stride,
        "scale_factor_spatial": spec.spatial_stride,
    }
    if patch > 1:
        settings |= {
            "decoder_base_dim": 8,
            "is_residual": True,
            "patch_size": patch,
            "in_channels": 3 * patch**2,
            "out_channels": 3 * patch**2,
        }
    if spec.latent_channels != 16:  # the library's own statistics are for 16 channels
        settings["latents_mean"] = [0.0] * spec.latent_channels
        settings["latents_std"] = [1.0] * spec.latent_channels
    return AutoencoderKLWan(**settings).eval()


def _text_encoder() -> Any:
    config = UMT5Config(
        vocab_size=128,
        d_model=_DIM,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        feed_forward_proj="gated-gelu",
    )
    return UMT5EncoderModel(config).eval()


def _image_encoder() -> Any:
    config = CLIPVisionConfig(
        hidden_size=_DIM,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=_CLIP_SIDE,
        patch_size=_CLIP_PATCH,
    )
    return CLIPVisionModel(config).eval()


def _image_processor() -> Any:
    side = {"height": _CLIP_SIDE, "width": _CLIP_SIDE}
    return CLIP_IMAGE_PROCESSOR(size={"shortest_edge": _CLIP_SIDE}, crop_size=side)


def _tokenizer(max_tokens: int) -> Any:
    """A Unigram tokenizer over single characters: no sentencepiece, no file."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    pieces += [(chr(code), -math.log(code)) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **special)


def _scheduler_config() -> dict[str, Any]:
    """As hub conversions have it, their shift of 3 included."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        num_train_timesteps=1000,
        flow_shift=3.0,
    )
    return dict(scheduler.config)
