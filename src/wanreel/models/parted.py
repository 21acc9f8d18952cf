"""Parted: a model whose parts visit the device one at a time, or stay there. Knows nothing of what the parts do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from wanreel.core.placement import Placement
from wanreel.models.offload import Guest, GuestRoom, ModuleGuest


class Parted:
    """What models for pictures have in common. The parts are attributes of the class that has it."""

    device: torch.device
    placement: Placement
    visitor: str
    _room: GuestRoom
    _guests: dict[str, Guest]

    @contextmanager
    def resident(self, part: str) -> Generator[Any]:
        """The part on the device for the length of the block, whatever else was there sent away where there is no room."""
        self.visitor = part
        module: nn.Module = getattr(self, part)
        if self.placement.keeps_everything:
            yield module
            return
        guest = self._guests.setdefault(part, ModuleGuest(module, self.device))
        self._room.admit(guest)
        try:
            yield module
        finally:
            self._room.clear()

    def vacate(self) -> None:
        """Take every weight off the device that the placement does not keep there."""
        self._room.clear()
