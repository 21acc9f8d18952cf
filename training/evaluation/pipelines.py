"""The real Diffusers pipelines, asked for clips. Knows nothing of what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline  # pyright: ignore[reportPrivateImportUsage]
from PIL import Image
from torch import Tensor

from training.scenes import Frame


@dataclass(frozen=True)
class Sampling:
    """The knobs of a clip."""

    frame: Frame = Frame(128, 128, 17)
    steps: int = 12
    guidance: float = 3.0


class Pipelines:
    """Text-to-video and image-to-video on one set of weights. Clips are [t, 3, h, w] in [0, 1], float32, on the CPU."""

    def __init__(self, weights: Path, device: str) -> None:
        self.text: Any = WanPipeline.from_pretrained(weights).to(device)
        parts: dict[str, Any] = {**self.text.components, "image_processor": None, "image_encoder": None}
        self.image: Any = WanImageToVideoPipeline(**parts, expand_timesteps=True)
        for pipeline in (self.text, self.image):
            pipeline.set_progress_bar_config(disable=True)

    def from_text(self, prompts: list[str], sampling: Sampling, seed: int = 0, batch: int = 26) -> list[Tensor]:
        """One clip for each prompt; clip i has seed `seed + i`, whatever the batch."""
        clips: list[Tensor] = []
        for at in range(0, len(prompts), batch):
            part = prompts[at : at + batch]
            clips += self._run(self.text, part, sampling, seed + at)
        return clips

    def from_picture(self, picture: Image.Image, prompts: list[str], sampling: Sampling, seed: int = 0) -> list[Tensor]:
        """One clip for each prompt, all from one picture."""
        return self._run(self.image, prompts, sampling, seed, image=picture)

    def _run(self, pipeline: Any, prompts: list[str], sampling: Sampling, seed: int, **more: Any) -> list[Tensor]:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(prompts))]
        frames: Any = pipeline(
            prompt=prompts, height=sampling.frame.height, width=sampling.frame.width, num_frames=sampling.frame.frames,
            num_inference_steps=sampling.steps, guidance_scale=sampling.guidance, generator=generators,
            output_type="np", **more,
        ).frames  # fmt: skip
        return [torch.from_numpy(np.asarray(clip)).permute(0, 3, 1, 2).float() for clip in frames]
