"""Encoders whose blocks come to the device one by one. Knows nothing of what they encode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from wanreel.models.offload import BlockStream, Guest, ModuleGuest, Together


class _Walked(nn.ModuleList):
    """The same blocks; whoever iterates over them walks the stream."""

    def __init__(self, stream: BlockStream) -> None:
        super().__init__(stream.blocks)
        self._stream = stream

    def __iter__(self) -> Iterator[nn.Module]:
        return self._stream.walk()


def streamed_text_encoder(encoder: Any, device: torch.device) -> Guest:
    """UMT5 as a guest that needs device memory for its table and two of its blocks. To the bit the same results."""
    stack = encoder.encoder
    stream = BlockStream(list(stack.block), device)
    stack.block = _Walked(stream)
    rest = ModuleGuest(cast("nn.Module", encoder), device, skip=stream.blocks)
    return Together(rest, stream)
