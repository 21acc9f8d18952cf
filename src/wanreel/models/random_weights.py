"""Models of the real shapes with random weights, for measuring: dense kernels take as long whatever the numbers are.

What they make is noise. Knows nothing of measuring.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from accelerate import init_empty_weights
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from wanreel.core.catalog import ModelSpec
from wanreel.core.placement import Placement
from wanreel.models.components import CLIP_IMAGE_PROCESSOR, full_modules
from wanreel.models.load import Dtypes, home_of, make_expert, scheme_of
from wanreel.models.quantize import StoredLinear, quantize, stored_of
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel


def build_random(spec: ModelSpec, device: torch.device, placement: Placement | None = None) -> WanModel:
    """`spec` in full size, drawn on `device` and left where `placement` says. Raises KeyError for a size of its own."""
    placement = placement or Placement()
    dtypes = Dtypes.of(device, placement)
    with init_empty_weights(include_buffers=False):
        parts = full_modules(spec)
    parts["text_encoder"].encoder.embed_tokens = parts["text_encoder"].shared
    for name, part in parts.items():
        fill(part, dtypes.for_part(name), device, home_of(name, device, placement))
    scheme = scheme_of(placement)
    transformers = [part for name, part in parts.items() if name.startswith("transformer")]
    for transformer in transformers:
        if scheme is not None:
            quantize(stored_of(transformer.blocks, placement), scheme)
    tiny = build_tiny(spec)  # the tokenizer and the scheduler's config
    return WanModel(
        spec=spec,
        tokenizer=tiny.tokenizer,
        text_encoder=parts["text_encoder"],
        image_encoder=parts.get("image_encoder"),
        image_processor=CLIP_IMAGE_PROCESSOR(size={"shortest_edge": 224}, crop_size=224) if spec.clip else None,
        vae=parts["vae"],
        experts=tuple(make_expert(transformer, device, placement) for transformer in transformers),
        device=device,
        dtype=dtypes.transformer,
        scheduler_config=tiny.scheduler_config,
        placement=placement,
        notes=("Random weights: the output is noise.",),
    )


@torch.no_grad()
def fill(
    module: nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    home: torch.device,
    stored: Iterable[StoredLinear] = (),
) -> None:
    """Weights that keep activations about as large as they come in, so that fp8 and fp16 meet numbers of a usual size.

    Drawn on `device`, left at `home`; those of `stored`, layers of the module that are empty still, in their own form.
    Tables on "meta" stay there, a rope's for one: they are computed, not drawn.
    """
    # transformers' list is for fp16 alone, as in `load`.
    kept: list[str] = (getattr(module, "_keep_in_fp32_modules", None) or []) if isinstance(module, ModelMixin) else []
    generator = torch.Generator(device).manual_seed(0)
    made: dict[int, nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if id(parameter) not in made:
            wide = any(part in name.split(".") for part in kept)
            drawn = torch.empty(parameter.shape, dtype=torch.float32 if wide else dtype, device=device)
            made[id(parameter)] = nn.Parameter(_drawn(name, drawn, generator).to(home), requires_grad=False)
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_parameter(leaf, made[id(parameter)])
    for layer in stored:
        drawn = torch.empty(layer.out_features, layer.in_features, dtype=dtype, device=device)
        layer.store(_drawn("weight", drawn, generator), home)
    _bring_buffers(module, home)


def _bring_buffers(module: nn.Module, home: torch.device) -> None:
    for name, buffer in list(module.named_buffers(remove_duplicate=False)):
        owner, _, leaf = name.rpartition(".")
        if not buffer.is_meta:
            setattr(module.get_submodule(owner), leaf, buffer.to(home))
        elif buffer.dtype == torch.int64:  # the numbers of positions
            numbers = torch.arange(buffer.numel(), device=home).view(buffer.shape)
            setattr(module.get_submodule(owner), leaf, numbers)


def _drawn(name: str, weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    leaf = name.rpartition(".")[2]
    if leaf == "scale_shift_table":
        return weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
    if leaf == "bias":
        return weight.zero_()
    if "norm" in name or leaf == "gamma":
        # 1.5 on queries and keys spreads the logits by about 2.2: a softmax neither flat nor of one.
        return weight.fill_(1.5 if name.endswith(("norm_q.weight", "norm_k.weight")) else 1.0)
    fan_in = math.prod(weight.shape[1:]) or 1
    return weight.normal_(0, fan_in**-0.5, generator=generator)
