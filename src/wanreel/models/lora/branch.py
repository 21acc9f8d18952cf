"""Branches: what a LoRA adds beside a layer, y += (x·A · s)·B, without touching the layer's own weights.

A, B and s are buffers that move with the block they stand in. Taking a branch off leaves the very module that was there,
so the result without LoRA is the same to the bit. Knows nothing of files or of when strengths change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Share:
    """What one LoRA adds to one layer. Tensors are on the CPU, as the file has them."""

    number: int  #: which of the request's LoRAs
    scale: float = 1.0  #: alpha / rank
    down: Tensor | None = None  #: [rank, inputs]
    up: Tensor | None = None  #: [outputs, rank]
    weight: Tensor | None = None  #: difference of the layer's weight
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        return 0 if self.down is None else self.down.shape[0]


@dataclass(frozen=True, slots=True)
class Form:
    """What decides the shapes of a branch's buffers."""

    bucket: int  #: 0: no pair
    weight: bool
    bias: bool


class Branched(nn.Module):
    """A layer with a branch beside it. Base of the two kinds; `on` says whether the branch takes part."""

    base: Any
    down: Tensor  #: [bucket, inputs]
    up: Tensor  #: [outputs, bucket]
    scale: Tensor  #: [bucket]: alpha / rank · strength of the LoRA that each row belongs to
    weight_difference: Tensor  #: strengths and all
    bias_difference: Tensor

    def __init__(self, base: Any, form: Form, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.form = form
        self.on = False
        device = next(chain(base.parameters(), base.buffers())).device
        for name, shape in self._shapes(form).items():
            # The dtype of a quantised weight is no dtype to compute in.
            own = getattr(base, "weight", None)
            kind = own.dtype if own is not None and own.dtype in _FLOATS else dtype
            self.register_buffer(name, torch.zeros(shape, dtype=kind, device=device), persistent=False)
        self._homes: dict[str, Tensor] = {}
        self._shares: tuple[Share, ...] = ()

    def _shapes(self, form: Form) -> dict[str, tuple[int, ...]]:
        raise NotImplementedError

    def settle(self) -> None:
        """To be called while everything is at home: remembers where the buffers live between their visits."""
        self._homes = {name: buffer.data for name, buffer in self.named_buffers(recurse=False)}

    def fill(self, shares: Sequence[Share]) -> None:
        """Take in other matrices, at home. No strength is set yet."""
        self._shares = tuple(shares)
        self.on = False
        pairs = [(share.down, share.up) for share in shares if share.down is not None and share.up is not None]
        if pairs:
            self._write("down", _padded(torch.cat([down.float() for down, _ in pairs]), self._homes["down"]))
            self._write("up", _padded(torch.cat([up.float() for _, up in pairs], dim=1), self._homes["up"]))

    def strengthen(self, strengths: Sequence[float]) -> None:
        """Set the strength of each of the request's LoRAs; takes effect at home and where the buffers visit now."""
        on = [(share, strengths[share.number]) for share in self._shares if strengths[share.number] != 0]
        self.on = bool(on)
        if not on:
            return
        if self.form.bucket:
            each = [torch.full((share.rank,), share.scale * strengths[share.number]) for share in self._shares]
            self._write("scale", _padded(torch.cat(each), self._homes["scale"]))
        for name, wanted in (("weight_difference", self.form.weight), ("bias_difference", self.form.bias)):
            if wanted:
                field = name.removesuffix("_difference")
                parts = [(getattr(share, field), strength) for share, strength in on]
                sums = [part.float() * strength for part, strength in parts if part is not None]
                self._write(name, torch.stack(sums).sum(0) if sums else torch.zeros_like(self._homes[name]))

    def _write(self, name: str, values: Tensor) -> None:
        home, here = self._homes[name], getattr(self, name)
        home.copy_(values)
        if here.data_ptr() != home.data_ptr():
            here.copy_(values)


class BranchedLinear(Branched):
    """A linear layer, whatever its weights are stored in, with a low-rank branch."""

    def _shapes(self, form: Form) -> dict[str, tuple[int, ...]]:
        inputs, outputs = self.base.in_features, self.base.out_features
        shapes: dict[str, tuple[int, ...]] = {}
        if form.bucket:
            shapes |= {"down": (form.bucket, inputs), "up": (outputs, form.bucket), "scale": (form.bucket,)}
        if form.weight:
            shapes["weight_difference"] = (outputs, inputs)
        if form.bias:
            shapes["bias_difference"] = (outputs,)
        return shapes

    def forward(self, x: Tensor) -> Tensor:
        return self.beside(x, self.base(x))

    def beside(self, x: Tensor, y: Tensor) -> Tensor:
        """`y`, what the layer alone makes of `x`, with the branch's share added."""
        if not self.on:
            return y
        # In place: at 720p one more copy of the feed-forward's middle would take 2 GB.
        rows = y.view(-1, y.shape[-1])
        if self.form.bucket:
            inner = F.linear(x.to(self.down.dtype), self.down) * self.scale
            _add_product(rows, inner, self.up)
        if self.form.weight:
            _add_product(rows, x.to(self.weight_difference.dtype), self.weight_difference)
        if self.form.bias:
            rows += self.bias_difference.to(rows.dtype)
        return y


class BranchedNorm(Branched):
    """A norm with a difference of its weight or bias: the same norm with the differences in their place, added."""

    def _shapes(self, form: Form) -> dict[str, tuple[int, ...]]:
        shape = tuple(self.base.normalized_shape)
        return {f"{name}_difference": shape for name, given in (("weight", form.weight), ("bias", form.bias)) if given}

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if not self.on:
            return y
        if self.form.weight:
            shape, weight = self.base.normalized_shape, self.weight_difference
            if isinstance(self.base, nn.RMSNorm):
                y += F.rms_norm(x, shape, weight.to(x.dtype), self.base.eps)
            else:
                y += F.layer_norm(x.float(), shape, weight.float(), None, self.base.eps).to(y.dtype)
        if self.form.bias:
            y += self.bias_difference.to(y.dtype)
        return y


def branched(base: Any, form: Form, dtype: torch.dtype) -> Branched:
    """`base` with a branch of this form. `dtype` is what the model computes in."""
    norm = isinstance(base, (nn.RMSNorm, nn.LayerNorm))
    return (BranchedNorm if norm else BranchedLinear)(base, form, dtype)


def _add_product(rows: Tensor, x: Tensor, matrix: Tensor) -> None:
    """rows += x · matrixᵀ, with one rounding where the dtypes are the same."""
    x = x.reshape(-1, x.shape[-1])
    if rows.dtype == matrix.dtype:
        rows.addmm_(x, matrix.t())
    else:
        rows += F.linear(x, matrix).to(rows.dtype)


def _padded(values: Tensor, like: Tensor) -> Tensor:
    """With zeros up to the shape of `like`."""
    whole = torch.zeros(like.shape, dtype=torch.float32)
    whole[tuple(slice(0, size) for size in values.shape)] = values
    return whole
