"""Models of the real shapes with random weights, quantised ones made as such: no weights need to be there to measure."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from wanreel.core.catalog import ModelSpec
from wanreel.core.components import known
from wanreel.core.placement import Placement
from wanreel.models.components import CLIP_IMAGE_PROCESSOR, full_modules
from wanreel.models.load import Dtypes, home_of, make_expert, scheme_of
from wanreel.models.quantize import StoredLinear, store_in
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel


def build(spec: ModelSpec, device: torch.device, placement: Placement) -> WanModel:
    """`spec` with random weights, in its real size where the catalogue has one."""
    if not known(spec):
        return build_tiny(spec, device=device, placement=placement)
    dtypes = Dtypes.of(device, placement)
    with torch.device("meta"):
        parts = full_modules(spec)
    ropes = {name: build_rope(part) for name, part in parts.items() if name.startswith("transformer")}
    parts["text_encoder"].encoder.embed_tokens = parts["text_encoder"].shared  # one table, as in loaded weights
    for name, part in parts.items():
        home = home_of(name, device, placement)
        scheme = scheme_of(placement)
        stored = store_in(part.blocks, scheme) if scheme and name.startswith("transformer") else {}
        fill(part, dtypes.for_part(name), device, home, list(stored.values()))
        if name in ropes:
            part.rope = ropes[name].to(home)
    tiny = build_tiny(spec)
    return replace(
        tiny,
        text_encoder=parts["text_encoder"],
        image_encoder=parts.get("image_encoder"),
        image_processor=CLIP_IMAGE_PROCESSOR(size={"shortest_edge": 224}, crop_size=224) if spec.clip else None,
        vae=parts["vae"],
        experts=tuple(
            make_expert(part, device, placement) for name, part in parts.items() if name.startswith("transformer")
        ),
        device=device,
        dtype=dtypes.transformer,
        placement=placement,
        _guests={},
    )


def build_rope(transformer: Any) -> Any:
    """Its tables are computed, not learnt, so they must be real."""
    config = transformer.config
    return type(transformer.rope)(config.attention_head_dim, config.patch_size, config.rope_max_seq_len)


@torch.no_grad()
def fill(
    module: nn.Module, dtype: torch.dtype, device: torch.device, home: torch.device, stored: list[StoredLinear]
) -> None:
    """Random weights made on the GPU and left at `home`: small enough that activations stay finite."""
    # transformers keeps its own list in fp32 for fp16 alone, Diffusers for every dtype.
    kept: list[str] = (
        [] if isinstance(module, PreTrainedModel) else getattr(module, "_keep_in_fp32_modules", None) or []
    )
    generator = torch.Generator(device).manual_seed(0)
    made: dict[int, nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if id(parameter) not in made:
            fp32 = any(part in name.split(".") for part in kept)
            value = torch.empty(parameter.shape, dtype=torch.float32 if fp32 else dtype, device=device)
            if parameter.ndim > 1:
                value.normal_(0, 0.02, generator=generator)
            else:
                value.fill_(0.0 if name.endswith("bias") else 1.0)
            made[id(parameter)] = nn.Parameter(value.to(home), requires_grad=False)
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner).register_parameter(leaf, made[id(parameter)])
    for layer in stored:
        weight = torch.empty(layer.out_features, layer.in_features, dtype=dtype, device=device)
        layer.store(weight.normal_(0, 0.02, generator=generator), home)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            if leaf in ("packed", "scale", "offset") or owner.endswith("rope"):
                continue
            value = torch.arange(buffer.numel()).view(buffer.shape).to(home)  # position ids
            module.get_submodule(owner).register_buffer(leaf, value, persistent=False)
