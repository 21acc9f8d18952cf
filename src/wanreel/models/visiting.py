"""Encoders whose blocks come to the device one by one. Knows nothing of what they encode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from wanreel.models.offload import BlockStream, Guest, ModuleGuest, Together


class Walked(nn.ModuleList):
    """The same blocks; whoever iterates over them walks."""

    def __init__(self, blocks: Sequence[nn.Module], walk: Callable[[], Iterator[nn.Module]]) -> None:
        super().__init__(blocks)
        self._walk = walk

    def __iter__(self) -> Iterator[nn.Module]:
        return self._walk()


def streamed_text_encoder(encoder: Any, device: torch.device) -> Guest:
    """UMT5 as a guest that needs device memory for its table and two of its blocks. To the bit the same results."""
    stack = encoder.encoder
    stream = BlockStream(list(stack.block), device)
    stack.block = Walked(stream.blocks, stream.walk)
    rest = ModuleGuest(cast("nn.Module", encoder), device, skip=stream.blocks)
    return Together(rest, stream)
