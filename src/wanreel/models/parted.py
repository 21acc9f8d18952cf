"""Parted: a model whose parts visit the device one at a time, or stay there. Knows nothing of what the parts do."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from wanreel.core.placement import Placement
from wanreel.models.offload import Guest, GuestRoom, ModuleGuest


@dataclass(kw_only=True)
class Parted:
    """What all models have in common, placed on one device. The parts are attributes of the class that has it."""

    spec: Any
    device: torch.device
    dtype: torch.dtype
    scheduler_config: Mapping[str, Any]
    placement: Placement = field(default_factory=Placement)
    notes: tuple[str, ...] = ()  #: what a user should know of these weights
    visitor: str = ""  #: the part that was last brought in by `resident`
    _room: GuestRoom = field(default_factory=GuestRoom, repr=False)
    _guests: dict[str, Guest] = field(default_factory=dict[str, Guest], repr=False)

    def __post_init__(self) -> None:
        self.run_with(self.placement)

    def run_with(self, placement: Placement) -> None:
        """Change what can be changed of the placement without loading again: portions and tiles."""
        if placement.loading != self.placement.loading:
            raise ValueError(f"{self.spec.name} is loaded as {self.placement.loading}, not as {placement.loading}")
        self.placement = placement
        self._portion(placement)

    def _portion(self, placement: Placement) -> None:
        """Have the parts work on as much at a time as the placement says."""
        raise NotImplementedError

    @contextmanager
    def resident(self, part: str) -> Generator[Any]:
        """The part on the device for the length of the block, whatever else was there sent away where there is no room."""
        self.visitor = part
        module = self._module(part)
        if self._stays(part):
            yield module
            return
        guest = self._guests.setdefault(part, ModuleGuest(module, self.device))
        self._room.admit(guest)
        try:
            yield module
        finally:
            if not self._lingers:
                self._room.clear()

    def _module(self, part: str) -> nn.Module:
        return getattr(self, part)

    def _stays(self, part: str) -> bool:
        """Whether the part is on the device all the time."""
        return self.placement.keeps_everything

    @property
    def _lingers(self) -> bool:
        """Whether a part stays until another one comes, as the next run may want it too."""
        return False

    def vacate(self) -> None:
        """Take every weight off the device that the placement does not keep there."""
        self._room.clear()
