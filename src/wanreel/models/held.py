"""Held: what pool and ladder need of a model in memory, whatever it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from wanreel.core.placement import Placement


class Held(Protocol):
    """A model on one device under one placement."""

    visitor: str  #: the part that was last brought in
    placement: Placement

    @property
    def spec(self) -> Any:
        """Its row of the catalogue."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of these weights."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The parts that hold weights, by name; those not loaded yet are left out."""
        ...

    def run_with(self, placement: Placement) -> None:
        """Change what can be changed of the placement without loading again."""
        ...

    def vacate(self) -> None:
        """Take every weight off the device that the placement does not keep there."""
        ...
