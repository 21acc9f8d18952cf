"""Sharing a model's weights out among ranks: what of it lies in parts, and who brings it together when.

Experts walk through their blocks on all ranks anyway. The text encoder computes on rank 0 alone, so the others are told to
walk along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from wanreel.models.offload import tensors_of
from wanreel.models.parallel.crew import Crew
from wanreel.models.parallel.shards import SharedBlocks
from wanreel.models.ranks.mesh import Circle
from wanreel.models.visiting import Walked
from wanreel.models.wan_model import Later, WanModel


def share_out(model: WanModel, circle: Circle, crew: Crew | None = None) -> SharedBlocks:
    """Each rank keeps its part of the experts' and the text encoder's blocks, and the rest whole on its device.

    All ranks call it at the same time; `crew` is given on rank 0. Returns the text encoder's blocks.
    """
    for expert in model.experts:
        expert.stream = stream = SharedBlocks(expert.transformer.blocks, model.device, circle)
        _bring(expert.transformer, model.device, stream.blocks)
    encoder: Any = model.text_encoder
    if isinstance(encoder, Later):
        raise ValueError("The text encoder is not loaded.")
    stack = encoder.encoder
    shared = SharedBlocks(list(stack.block), model.device, circle)
    stack.block = Walked(shared.blocks, shared.walk if crew is None else _led(shared, crew, model.spec.name))
    _bring(encoder, model.device, shared.blocks)
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    return shared


def _led(shared: SharedBlocks, crew: Crew, model: str) -> Callable[[], Iterator[nn.Module]]:
    """Walking on all ranks."""

    def walk() -> Iterator[nn.Module]:
        with crew.exchanging():
            crew.tell({"do": "walk", "model": model})
            yield from shared.walk()

    return walk


def _bring(module: nn.Module, device: torch.device, without: tuple[nn.Module, ...]) -> None:
    """All but the tensors of some blocks to the device."""
    shared = {id(tensor) for block in without for tensor in tensors_of(block)}
    with torch.inference_mode(False):
        for tensor in tensors_of(module):
            if id(tensor) not in shared:
                tensor.data = tensor.data.to(device)
