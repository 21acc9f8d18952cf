"""PreviewDecoder: small RGB frames from latents by a trained net of three convolutions, where a model brings one.

Sharper than the linear map of `preview`, for some milliseconds. Knows nothing of picture files or events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wanreel.core.errors import BrokenWeights
from wanreel.generation.preview import LONGEST_SIDE, PreviewMap
from wanreel.models.wan_model import WanModel

FORMAT = "wanreel-preview-decoder/1"  #: in the file's metadata, which tells the layers too
_UPSCALE = 4  # px a latent px becomes


class Previewer(Protocol):
    """Anything that shows latents."""

    def frames(self, latents: Tensor) -> NDArray[np.uint8]:
        """[f, h, w, 3] RGB of normalised latents [1, c, f, h', w'], one frame a latent frame."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class PreviewDecoder:
    """h = silu(first(x)); h = silu(second(h)) + h; pixel_shuffle(last(h), 4). All convolutions are 3x3."""

    weights: Mapping[str, Tensor]  #: fp32, "first.weight", "first.bias", …

    @classmethod
    def load(cls, path: Path) -> PreviewDecoder:
        """Raises BrokenWeights for a file of another format."""
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("format") != FORMAT:
                    raise BrokenWeights(f"{path.name} is not of the format {FORMAT}.")
                return cls({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118 - not a dict
        except (OSError, SafetensorError) as exc:
            raise BrokenWeights(f"{path.name} can't be read ({exc}).") from exc

    @torch.no_grad()
    def frames(self, latents: Tensor) -> NDArray[np.uint8]:
        """Four times the latents' resolution, at most LONGEST_SIDE px wide or high."""
        hidden = functional.silu(self._convolved("first", latents[0].float().transpose(0, 1)))
        hidden = functional.silu(self._convolved("second", hidden)) + hidden
        rgb = functional.pixel_shuffle(self._convolved("last", hidden), _UPSCALE)
        scale = LONGEST_SIDE / max(rgb.shape[-2:])
        if scale < 1:
            size = [max(1, round(side * scale)) for side in rgb.shape[-2:]]
            rgb = functional.interpolate(rgb, size=size, mode="bilinear", antialias=True)
        pixels = ((rgb * 0.5 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _convolved(self, layer: str, given: Tensor) -> Tensor:
        weight, bias = (self.weights[f"{layer}.{part}"].to(given.device) for part in ("weight", "bias"))
        return functional.conv2d(given, weight, bias, padding=1)


def previewer_of(model: WanModel) -> Previewer:
    """The model's own preview decoder, else the linear map of its VAE."""
    return PreviewMap.of(model) if model.preview_weights is None else PreviewDecoder.load(model.preview_weights)
