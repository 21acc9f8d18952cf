"""ModelOpener: from a row of the catalogue to a model in memory, whether its weights are installed or made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from wanreel.core.catalog import ModelSpec
from wanreel.core.placement import Placement
from wanreel.models.load import Memory, load_model
from wanreel.models.shelf import Shelf, is_tiny
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel


@dataclass(frozen=True, slots=True)
class ModelOpener:
    """Opens models of one shelf on one device."""

    shelf: Shelf
    device: torch.device
    check: Callable[[ModelSpec], None] = lambda spec: None  #: before weights are read; raises BrokenWeights
    memory: Memory | None = None

    def open(self, spec: ModelSpec, placement: Placement | None = None) -> WanModel:
        """The model of `spec`, held as `placement` says. Raises ModelNotInstalled or BrokenWeights."""
        if is_tiny(spec):
            return build_tiny(spec, device=self.device, placement=placement)
        self.check(spec)
        model = load_model(spec, self.shelf.folder(spec), self.device, placement=placement, memory=self.memory)
        model.preview_weights = self.shelf.preview(spec)
        return model
