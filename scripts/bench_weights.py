"""Models of the real shapes with random weights, quantised ones made as such: no weights need to be there to measure."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from wanreel.core.catalog import ModelSpec
from wanreel.core.components import known
from wanreel.core.placement import Placement
from wanreel.models.components import CLIP_IMAGE_PROCESSOR, full_modules
from wanreel.models.load import Dtypes, home_of, make_expert, scheme_of
from wanreel.models.quantize import store_in, stored_of
from wanreel.models.random_weights import fill
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
        stored = (
            store_in(stored_of(part.blocks, placement), scheme) if scheme and name.startswith("transformer") else {}
        )
        fill(part, dtypes.for_part(name), device, home, stored.values())
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
