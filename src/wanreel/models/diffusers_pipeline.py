"""Diffusers' own pipeline over the modules of a WanModel: the other side of every parity test and of `qualify`.

Nothing is copied, so both sides compute with the same tensors. Knows nothing of our own denoise loop.
"""

from __future__ import annotations

from typing import Any

from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline

from wanreel.models.components import SCHEDULER
from wanreel.models.wan_model import WanModel


def diffusers_pipeline(model: WanModel, *, picture: bool | None = None, **scheduler_options: Any) -> Any:
    """WanPipeline, or WanImageToVideoPipeline for models that need a picture; `picture` overrules.

    `scheduler_options` overrule the folder's scheduler config (flow_shift above all). The modules must be on the
    device, so the model's placement must be "resident".
    """
    spec = model.spec
    if picture is None:
        picture = "text" not in spec.modes
    transformers = [expert.transformer for expert in model.experts] + [None]
    parts: dict[str, Any] = {
        "tokenizer": model.tokenizer,
        "text_encoder": model.text_encoder,
        "vae": model.vae,
        "scheduler": SCHEDULER.from_config({**model.scheduler_config, **scheduler_options}),
        "transformer": transformers[0],
        "transformer_2": transformers[1],
        "boundary_ratio": spec.boundary_ratio,
        "expand_timesteps": model.expand_timesteps,
    }
    if not picture:
        return WanPipeline(**parts)
    parts |= {"image_encoder": model.image_encoder, "image_processor": model.image_processor}
    return WanImageToVideoPipeline(**parts)
