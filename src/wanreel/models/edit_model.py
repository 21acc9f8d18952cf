"""EditModel: the loaded parts of one model of Qwen-Image-Edit's kind. Knows nothing of how they were loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from wanreel.core.edit_models import EditSpec
from wanreel.core.placement import Placement
from wanreel.models.edit_processor import EditProcessor
from wanreel.models.parted import Parted

PARTS = ("text_encoder", "vae", "transformer")


@dataclass(kw_only=True)
class EditModel(Parted):
    """Everything one edit needs, placed on one device. All parts are of one dtype. Not re-entrant."""

    spec: EditSpec
    processor: EditProcessor
    text_encoder: Any  #: Qwen2.5-VL, which reads the instruction and sees the picture
    vae: Any
    transformer: Any

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The parts that hold weights, by name."""
        return {name: getattr(self, name) for name in PARTS}

    def _portion(self, placement: Placement) -> None:
        tile = placement.tile
        if tile is None:
            self.vae.disable_tiling()
            return
        step = tile.height - tile.overlap
        self.vae.enable_tiling(tile.height, tile.width, step, step)
