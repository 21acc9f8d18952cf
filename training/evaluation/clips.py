"""What every maker of clips has in common: the knobs of a clip, and how it is asked for. Makes none itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image
from torch import Tensor

from training.scenes import Frame
from wanreel.core.catalog import Catalog


@dataclass(frozen=True)
class Sampling:
    """The knobs of a clip. Without `guidance`, what Wanreel gives a text or a picture that names none."""

    frame: Frame = Frame(128, 128, 17)
    steps: int = 12
    guidance: float | None = None

    def guidance_for(self, picture: bool) -> float:
        """The scale to use."""
        return Catalog().get("demo").default_guidance(picture=picture)[0] if self.guidance is None else self.guidance


class ClipMaker(Protocol):
    """Clips are [t, 3, h, w] in [0, 1], float32, on the CPU; clip i has seed `seed + i`."""

    def from_text(
        self, prompts: list[str], sampling: Sampling, seed: int = 0, lora: Path | None = None
    ) -> list[Tensor]:
        """One clip for each prompt."""
        ...

    def from_picture(
        self, picture: Image.Image, prompts: list[str], sampling: Sampling, seed: int = 0, lora: Path | None = None
    ) -> list[Tensor]:
        """One clip for each prompt, all from one picture."""
        ...
