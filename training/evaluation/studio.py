"""Wanreel itself, asked for clips: each prompt goes through `Runtime.generate`, and its video is read back from the file.

So what is measured is what a user sees, compression included. Knows nothing of what is measured.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.evaluation.clips import Sampling
from wanreel.core.lora import LoraRef
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.settings import Settings
from wanreel.core.settings_groups import UserModel
from wanreel.media.video import read_frames
from wanreel.wiring import build_runtime

_ROW = "candidate"


class Studio:
    """A runtime whose one model is the weights under test. A `ClipMaker`."""

    def __init__(self, weights: Path, data: Path, device: str) -> None:
        models = {_ROW: UserModel(base="demo", folder=weights)}
        self._runtime = build_runtime(Settings(data_dir=data, device=device, offline=True, models=models))

    def from_text(
        self, prompts: list[str], sampling: Sampling, seed: int = 0, lora: Path | None = None
    ) -> list[Tensor]:
        """One clip for each prompt."""
        return [self._clip(prompt, None, sampling, seed + i, lora) for i, prompt in enumerate(prompts)]

    def from_picture(
        self, picture: Image.Image, prompts: list[str], sampling: Sampling, seed: int = 0, lora: Path | None = None
    ) -> list[Tensor]:
        """One clip for each prompt, all from one picture."""
        png = io.BytesIO()
        picture.save(png, "PNG")
        taken = self._runtime.take_picture(png.getvalue())
        return [self._clip(prompt, taken, sampling, seed + i, lora) for i, prompt in enumerate(prompts)]

    def _clip(
        self, prompt: str, picture: PictureRef | None, sampling: Sampling, seed: int, lora: Path | None
    ) -> Tensor:
        request = VideoRequest(
            prompt=prompt, image=picture, model=_ROW, width=sampling.frame.width, height=sampling.frame.height,
            num_frames=sampling.frame.frames, num_inference_steps=sampling.steps, guidance_scale=sampling.guidance,
            seed=seed, quality="maximum", loras=() if lora is None else (self._taken(lora),),
        )  # fmt: skip
        *_, done = self._runtime.generate(self._runtime.resolve(request))
        frames = np.stack(list(read_frames(done.video.path)))
        return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255

    def _taken(self, lora: Path) -> LoraRef:
        return LoraRef(self._runtime.loras.add(lora, f"candidate-{lora.stem}").name)
