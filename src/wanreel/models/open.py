"""ModelOpener: from a row of the catalogue to a model in memory, whether its weights are installed or made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from wanreel.core.catalog import ModelSpec
from wanreel.core.edit_models import EditSpec
from wanreel.core.picture_models import PictureSpec
from wanreel.core.placement import Placement
from wanreel.core.work import AnySpec
from wanreel.models.held import Held
from wanreel.models.load import Memory, load_model
from wanreel.models.shelf import Shelf, is_tiny
from wanreel.models.step.choice import Choices
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel


@dataclass(frozen=True, slots=True)
class ModelOpener:
    """Opens models of one shelf on one device."""

    shelf: Shelf
    device: torch.device
    check: Callable[[AnySpec], None] = lambda spec: None  #: before weights are read; raises BrokenWeights
    memory: Memory | None = None
    kernels: Choices = field(default_factory=Choices)

    def open(self, spec: AnySpec, placement: Placement | None = None) -> Held:
        """The model of `spec`, held as `placement` says. Raises ModelNotInstalled or BrokenWeights."""
        if isinstance(spec, PictureSpec):
            return self._open_pictures(spec, placement)
        return self.open_video(spec, placement)

    def open_video(self, spec: ModelSpec, placement: Placement | None = None) -> WanModel:
        """The same of a model that makes videos."""
        if is_tiny(spec):
            return build_tiny(spec, device=self.device, placement=placement)
        self.check(spec)
        model = load_model(spec, self.shelf.folder(spec), self.device, placement=placement, memory=self.memory)
        model.preview_weights, model.kernels = self.shelf.preview(spec), self.kernels
        return model

    def _open_pictures(self, spec: PictureSpec, placement: Placement | None) -> Held:
        if isinstance(spec, EditSpec):
            return self._open_edits(spec, placement)
        # Here, because most processes make videos alone.
        from wanreel.models.picture_load import load_picture_model
        from wanreel.models.tiny_pictures import build_tiny_pictures

        if is_tiny(spec):
            return build_tiny_pictures(spec, device=self.device, placement=placement)
        self.check(spec)
        return load_picture_model(spec, self.shelf.folder(spec), self.device, placement)

    def _open_edits(self, spec: EditSpec, placement: Placement | None) -> Held:
        from wanreel.models.edit_load import load_edit_model
        from wanreel.models.tiny_edits import build_tiny_edits

        if is_tiny(spec):
            return build_tiny_edits(spec, device=self.device, placement=placement)
        self.check(spec)
        return load_edit_model(spec, self.shelf.folder(spec), self.device, placement)
