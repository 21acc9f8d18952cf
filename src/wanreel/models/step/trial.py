"""Whether our own kernels work on a device: tried once a process on a few rows, against torch's operators.

They are written for NVIDIA's e4m3 and were measured on Hopper alone; where one does not compile, or gives something else,
blocks go without them. Knows nothing of models.
"""
# ruff: noqa: PLR0913 - as the kernels are called

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wanreel.models.clock import error_of
from wanreel.models.eight import FP8, FP8_MAX, by_rows
from wanreel.models.step.kernels import kernel_faults
from wanreel.models.step.own import Own, has_own, own

_log = logging.getLogger(__name__)
_TOKENS = 40
_EPS = 1e-6
_WITHIN = 0.02  #: an e4m3 that falls the other way here and there; a fault is far more


@dataclass(frozen=True, slots=True)
class Rows:
    """What a kernel is compiled for."""

    dim: int  #: of a block's input
    inner: int  #: of the feed-forward
    width: int  #: of a head


@cache
def works(device: torch.device, rows: Rows) -> bool:
    """Whether blocks of this shape can take our own kernels on `device`."""
    if device.type != "cuda" or not has_own():
        return False
    try:
        fault = fault_of(own(), device, rows)
    except kernel_faults() as error:
        fault = f"{type(error).__name__}: {error}"[:200]
    if fault:
        _log.warning("our own kernels between fp8 matrices do not work here: %s", fault)
    return not fault


@torch.no_grad()
def fault_of(kernels: Own, device: torch.device, rows: Rows) -> str:
    """The first of `kernels` that does not give what torch's operators do; empty if all do."""
    plain, draw = reference(), torch.Generator(device).manual_seed(0)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32

    def drawn(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size, device=device, generator=draw).to(dtype)

    x, update, inner = (drawn(1, _TOKENS, size, dtype=kind) for size in (rows.dim, rows.dim, rows.inner))
    gate, factor, offset, mean = (drawn(1, 1, rows.dim) for _ in range(4))
    angles, broad, scale = (
        drawn(_TOKENS, rows.width // 2),
        drawn(1, 1, rows.inner),
        torch.full((1,), 0.02, device=device),
    )
    turning = (x, factor[0, 0].to(kind), angles.cos(), angles.sin())
    given: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("enter", (x, factor, offset, mean, _EPS)),
        ("add_enter", (x, update, gate, factor, offset, mean, _EPS)),
        ("add_enter", (x, update, None, factor, offset, None, _EPS)),
        ("gelu", (inner, broad)),
        ("gelu", (inner, None)),
        ("turn", (*turning, None, None, 16, _EPS)),
        ("turn", (*turning, mean, scale, 1, _EPS)),
    )
    for name, inputs in given:
        found, wanted = (_numbers(getattr(it, name)(*inputs)) for it in (kernels, plain))
        off = max(error_of(one, two) for one, two in zip(found, wanted, strict=True))
        if not off <= _WITHIN:  # nor a NaN
            return f"{name} is off by {off:.3f}"
    return ""


def _numbers(found: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Rows with their scales, and what stands before them."""
    if isinstance(found, Tensor):
        return [found.float()]
    *before, numbers, scale = found
    return [*(it.float() for it in before), numbers.float() * scale]


@cache
def reference() -> Own:
    """What our own kernels compute, by torch's operators."""

    def add_enter(x: Tensor, update: Any, gate: Any, factor: Tensor, offset: Tensor, mean: Any, eps: float) -> Any:
        hidden = x if update is None else (x.float() + update.float() * (1 if gate is None else gate)).type_as(x)
        given = F.layer_norm(hidden.float(), x.shape[-1:], eps=eps) * factor + offset
        return (hidden, *by_rows(given, mean))

    def turn(
        x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor, mean: Any, scale: Any, step: int, eps: float
    ) -> Any:
        cosine, sine = cosine[::step, None], sine[::step, None]
        normed = F.rms_norm(x[:, ::step].float(), x.shape[-1:], weight.float(), eps)
        one, two = normed.unflatten(2, (-1, cosine.shape[-1], 2)).unbind(-1)
        found = torch.stack([one * cosine - two * sine, one * sine + two * cosine], -1).flatten(2)
        if scale is None:
            return found.type_as(x)
        return ((found - mean) / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8)

    def gelu(x: Tensor, mean: Any) -> Any:
        return by_rows(F.gelu(x.float(), approximate="tanh"), mean)

    def enter(x: Tensor, factor: Tensor, offset: Tensor, mean: Any, eps: float) -> Any:
        return add_enter(x, None, None, factor, offset, mean, eps)[1:]

    return Own(enter, add_enter, gelu, turn)
