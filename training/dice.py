"""Seeded chance, handed from call to call, so that no function draws from a hidden global state."""

from __future__ import annotations

import random

import torch
from torch import Tensor


class Dice:
    """One stream of chance for Python values (`pick`) and one for tensors on `device`, both fixed by `seed`."""

    def __init__(self, seed: str, device: torch.device) -> None:
        self.device = device
        self.pick = random.Random(seed)
        self._generator = torch.Generator(device)
        self._generator.manual_seed(self.pick.getrandbits(62))

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float32."""
        return torch.rand(*shape, device=self.device, generator=self._generator)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32."""
        return torch.randn(*shape, device=self.device, generator=self._generator)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Uniform in 0 .. high-1, int64."""
        return torch.randint(0, high, shape, device=self.device, generator=self._generator)

    def weighted(self, weights: list[float], count: int) -> Tensor:
        """`count` indices drawn by weight, int64."""
        table = torch.tensor(weights, device=self.device)
        return torch.multinomial(table, count, replacement=True, generator=self._generator)
