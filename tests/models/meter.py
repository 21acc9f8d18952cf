"""Counts the bytes of tensors alive while code runs on the meta device: real shapes, no memory, no GPU."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Meter(TorchDispatchMode):
    """Bytes of storages made within the block: `now` alive, `peak` at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_flatten((args, kwargs or {}))[0]:
            if isinstance(value, Tensor):
                self._known.setdefault(id(value.untyped_storage()), None)
        out = func(*args, **(kwargs or {}))
        for value in tree_flatten(out)[0]:
            if isinstance(value, Tensor):
                self._count(value)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        nbytes = storage.nbytes()
        self._known[key] = weakref.finalize(storage, self._gone, key, nbytes)
        self.now += nbytes
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, nbytes: int) -> None:
        self._known.pop(key, None)
        self.now -= nbytes


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """A fused kernel's memory: the output alone, laid out as the query."""
    return torch.empty_like(query)


def _rms_norm(value: Tensor, *_: Any, **__: Any) -> Tensor:
    """The same; on the meta device torch takes it apart into six passes."""
    return torch.empty_like(value)


@contextmanager
def metered() -> Generator[Meter]:
    """A Meter, with attention and RMS norm as fused kernels take memory."""
    functional = torch.nn.functional
    attention = mock.patch.object(functional, "scaled_dot_product_attention", _attention)
    with attention, mock.patch.object(functional, "rms_norm", _rms_norm), Meter() as meter:
        yield meter
