"""Diffusers' own pipelines, asked for clips: a second opinion beside Wanreel. Knows nothing of what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline  # pyright: ignore[reportPrivateImportUsage]
from PIL import Image
from torch import Tensor

from training.evaluation.clips import Sampling


class Pipelines:
    """Text-to-video and image-to-video on one set of weights, in fp32. A `ClipMaker`."""

    def __init__(self, weights: Path, device: str, batch: int = 26) -> None:
        self._batch = batch
        self._text: Any = WanPipeline.from_pretrained(str(weights)).to(device)
        parts: dict[str, Any] = {**self._text.components, "image_processor": None, "image_encoder": None}
        self._image: Any = WanImageToVideoPipeline(**parts, expand_timesteps=True)
        for pipeline in (self._text, self._image):
            pipeline.set_progress_bar_config(disable=True)

    def from_text(
        self, prompts: list[str], sampling: Sampling, seed: int = 0, lora: Path | None = None
    ) -> list[Tensor]:
        """One clip for each prompt, whatever the batch."""
        clips: list[Tensor] = []
        for at in range(0, len(prompts), self._batch):
            clips += self._run(prompts[at : at + self._batch], None, sampling, seed + at, lora)
        return clips

    def from_picture(
        self, picture: Image.Image, prompts: list[str], sampling: Sampling, seed: int = 0, lora: Path | None = None
    ) -> list[Tensor]:
        """One clip for each prompt, all from one picture."""
        return self._run(prompts, picture, sampling, seed, lora)

    def _run(
        self, prompts: list[str], picture: Image.Image | None, sampling: Sampling, seed: int, lora: Path | None
    ) -> list[Tensor]:
        pipeline, given = (self._text, {}) if picture is None else (self._image, {"image": picture})
        if lora is not None:
            self._text.load_lora_weights(str(lora.parent), weight_name=lora.name)
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        frames: Any = pipeline(
            prompt=prompts, height=sampling.frame.height, width=sampling.frame.width, num_frames=sampling.frame.frames,
            num_inference_steps=sampling.steps, guidance_scale=sampling.guidance_for(picture is not None),
            generator=generators, output_type="np", **given,
        ).frames  # fmt: skip
        if lora is not None:
            self._text.unload_lora_weights()
        return [torch.from_numpy(np.asarray(clip)).permute(0, 3, 1, 2).float() for clip in frames]
