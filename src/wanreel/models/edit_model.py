"""EditModel: the loaded parts of one model of Qwen-Image-Edit's kind. Knows nothing of how they were loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from wanreel.core.edit_models import EditSpec
from wanreel.core.placement import Placement
from wanreel.models.edit_processor import EditProcessor
from wanreel.models.offload import Guest, GuestRoom
from wanreel.models.parted import Parted

PARTS = ("text_encoder", "vae", "transformer")


@dataclass
class EditModel(Parted):
    """Everything one edit needs, placed on one device. Not re-entrant: one picture at a time."""

    spec: EditSpec
    processor: EditProcessor
    text_encoder: Any  #: Qwen2.5-VL, which reads the instruction and sees the picture
    vae: Any
    transformer: Any
    device: torch.device
    dtype: torch.dtype  #: of all parts
    scheduler_config: Mapping[str, Any]
    placement: Placement = field(default_factory=Placement)
    notes: tuple[str, ...] = ()
    visitor: str = ""  #: the part that was last brought in by `resident`
    _room: GuestRoom = field(default_factory=GuestRoom, repr=False)
    _guests: dict[str, Guest] = field(default_factory=dict[str, Guest], repr=False)

    def __post_init__(self) -> None:
        self.run_with(self.placement)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The parts that hold weights, by name."""
        return {name: getattr(self, name) for name in PARTS}

    def run_with(self, placement: Placement) -> None:
        """Change what can be changed of the placement without loading again: the VAE's tiles."""
        if placement.loading != self.placement.loading:
            raise ValueError(f"{self.spec.name} is loaded as {self.placement.loading}, not as {placement.loading}")
        self.placement = placement
        tile = placement.tile
        if tile is None:
            self.vae.disable_tiling()
            return
        step = tile.height - tile.overlap
        self.vae.enable_tiling(tile.height, tile.width, step, step)
