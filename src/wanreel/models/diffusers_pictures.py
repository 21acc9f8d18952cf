"""Diffusers' own pipelines over the modules of a PictureModel: the other side of the parity tests.

Nothing is copied, so both sides compute with the same tensors.
"""

from __future__ import annotations

from typing import Any

from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
    StableDiffusionXLImg2ImgPipeline,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

from wanreel.models.picture_model import PictureModel


def diffusers_pictures(model: PictureModel, *, picture: bool | None = None) -> Any:
    """StableDiffusionXLPipeline, or StableDiffusionXLImg2ImgPipeline for models that need a picture; `picture` overrules.

    The modules must be on the device, so the model's placement must be "resident".
    """
    if picture is None:
        picture = "text" not in model.spec.modes
    parts: dict[str, Any] = {
        "vae": model.vae,
        "text_encoder": model.text_encoder,
        "text_encoder_2": model.text_encoder_2,
        "tokenizer": model.tokenizer,
        "tokenizer_2": model.tokenizer_2,
        "unet": model.unet,
        "scheduler": EulerDiscreteScheduler.from_config(dict(model.scheduler_config)),
        "force_zeros_for_empty_prompt": model.empty_is_zero,
        "add_watermarker": False,
    }
    if not picture:
        return StableDiffusionXLPipeline(**parts)
    return StableDiffusionXLImg2ImgPipeline(**parts, requires_aesthetics_score=model.spec.aesthetic)
