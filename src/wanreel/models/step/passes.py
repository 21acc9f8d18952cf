"""What stands between two fp8 matrices as one pass each, in Triton: every row is read once and written once. Imports triton.

Each kernel takes whole rows, so norms and row scales need no second look. Rounding is that of the operators that they
stand for: bf16 where those give bf16, fp32 between.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownArgumentType=false
# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportMissingTypeStubs=false
# pyright: reportOptionalMemberAccess=false, reportGeneralTypeIssues=false
# ruff: noqa: PLR0913, ANN001, ANN202, E501

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanreel.models.eight import FP8, FP8_MAX

_TINY = 1e-12
_LARGEST = tl.constexpr(FP8_MAX)
_LEAST = tl.constexpr(_TINY)


@triton.jit
def _store_eight(y, numbers, scales, row, column, here, DIM: tl.constexpr):
    scale = tl.maximum(tl.max(tl.abs(y), 0), _LEAST) / _LARGEST
    tl.store(numbers + row * DIM + column, (y / scale).to(numbers.dtype.element_ty), mask=here)
    tl.store(scales + row, scale)


@triton.jit
def _norm(x, update, gate, factor, offset, mean, hidden, numbers, scales, tokens, eps, DIM: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr, GATE: tl.constexpr, MEAN: tl.constexpr):  # fmt: skip
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(0) // tokens
    column = tl.arange(0, BLOCK)
    here = column < DIM
    h = tl.load(x + row * DIM + column, mask=here, other=0.0).to(tl.float32)
    if ADD:
        more = tl.load(update + row * DIM + column, mask=here, other=0.0).to(tl.float32)
        if GATE:
            more = more * tl.load(gate + batch * DIM + column, mask=here, other=0.0)
        kept = (h + more).to(hidden.dtype.element_ty)
        tl.store(hidden + row * DIM + column, kept, mask=here)
        h = kept.to(tl.float32)
    off = tl.where(here, h - tl.sum(h, 0) / DIM, 0.0)
    y = off * tl.rsqrt(tl.sum(off * off, 0) / DIM + eps)
    y = y * tl.load(factor + batch * DIM + column, mask=here, other=0.0)
    y = (y + tl.load(offset + batch * DIM + column, mask=here, other=0.0)).to(x.dtype.element_ty).to(tl.float32)
    if MEAN:
        y = y - tl.load(mean + batch * DIM + column, mask=here, other=0.0)
    _store_eight(y, numbers, scales, row, column, here, DIM)


@triton.jit
def _gelu(x, mean, numbers, scales, tokens, DIM: tl.constexpr, BLOCK: tl.constexpr, MEAN: tl.constexpr):
    row, batch = tl.program_id(0).to(tl.int64), tl.program_id(0) // tokens
    column = tl.arange(0, BLOCK)
    here = column < DIM
    y = tl.load(x + row * DIM + column, mask=here, other=0.0).to(tl.float32)
    # tanh(u) = 2 · sigmoid(2u) - 1, so that x/2 · (1 + tanh(u)) = x · sigmoid(2u).
    y = y * tl.sigmoid(1.5957691216057308 * (y + 0.044715 * y * y * y))
    y = y.to(x.dtype.element_ty).to(tl.float32)
    if MEAN:
        y = y - tl.load(mean + batch * DIM + column, mask=here, other=0.0)
    _store_eight(y, numbers, scales, row, column, here, DIM)


@triton.jit
def _turn(x, weight, cosine, sine, mean, scale, out, tokens, rows, step, eps, DIM: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr, EIGHT: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    batch, token = row // rows, (row % rows) * step
    given = x + (batch * tokens + token).to(tl.int64) * DIM
    written = out + row.to(tl.int64) * DIM
    column, pair = tl.arange(0, COLUMNS), tl.arange(0, COLUMNS // 2)
    squares = tl.zeros([COLUMNS], tl.float32)
    for start in tl.static_range(0, DIM, COLUMNS):
        part = tl.load(given + start + column).to(tl.float32)
        squares += part * part
    root = tl.rsqrt(tl.sum(squares, 0) / DIM + eps)
    cos, sin = (tl.load(table + token * HALF + pair % HALF) for table in (cosine, sine))
    for start in tl.static_range(0, DIM, COLUMNS):
        part = tl.load(given + start + column).to(tl.float32)  # the second time from the cache
        normed = part * root * tl.load(weight + start + column).to(tl.float32)
        normed = normed.to(x.dtype.element_ty).to(tl.float32)
        first, second = tl.split(tl.reshape(normed, (COLUMNS // 2, 2)))
        turned = tl.reshape(tl.join(first * cos - second * sin, first * sin + second * cos), (COLUMNS,))
        turned = turned.to(x.dtype.element_ty)
        if EIGHT:
            off = (turned.to(tl.float32) - tl.load(mean + batch * DIM + start + column)) / tl.load(scale)
            turned = tl.minimum(tl.maximum(off, -_LARGEST), _LARGEST).to(out.dtype.element_ty)
        tl.store(written + start + column, turned)


def enter(x: Tensor, factor: Tensor, offset: Tensor, mean: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    """layer_norm(x) · factor + offset, less mean, in e4m3 with a scale a row: [rows, dim] and fp32 [rows, 1].

    x: [b, tokens, dim]; factor, offset, mean: fp32 [b, 1, dim].
    """
    _, numbers, scales = _entered(x, None, None, factor, offset, mean, eps)
    return numbers, scales


def add_enter(
    x: Tensor, update: Tensor, gate: Tensor | None, factor: Tensor, offset: Tensor, mean: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x + update · gate, and what `enter` makes of it."""
    return _entered(x, update, gate, factor, offset, mean, eps)


def gelu(x: Tensor, mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """gelu(x), tanh's, less mean, as `enter` gives its result."""
    x = x.contiguous()
    dim, tokens = x.shape[-1], x.shape[1]
    numbers, scales = _empty(x)
    block = triton.next_power_of_2(dim)
    mean = None if mean is None else mean.contiguous()
    _gelu[(numbers.shape[0],)](
        x, x if mean is None else mean, numbers, scales, tokens, DIM=dim, BLOCK=block, MEAN=mean is not None,
        num_warps=_warps(block),
    )  # fmt: skip
    return numbers, scales


def turn(
    x: Tensor,
    weight: Tensor,
    cosine: Tensor,
    sine: Tensor,
    mean: Tensor | None,
    scale: Tensor | None,
    step: int,
    eps: float,
) -> Tensor:
    """Every `step`-th token of [b, tokens, dim], normalised over all heads and turned by position.

    cosine, sine: fp32 [tokens, d / 2], of each pair. In x's dtype, or less mean (fp32 [b, 1, dim]) and over scale
    (fp32, one number) in e4m3. Raises ValueError where heads do not fit into the columns taken at a time.
    """
    x = x.contiguous()
    batch, tokens, dim = x.shape
    columns = min(1024, dim & -dim)
    if columns % (2 * cosine.shape[-1]):
        raise ValueError(f"heads {2 * cosine.shape[-1]} wide do not fit into {columns} columns of {dim}")
    rows = -(-tokens // step)
    out = torch.empty(batch, rows, dim, dtype=x.dtype if scale is None else FP8, device=x.device)
    _turn[(batch * rows,)](
        x, weight, cosine, sine, x if mean is None else mean.contiguous(), x if scale is None else scale, out, tokens, rows, step, eps,
        DIM=dim, HALF=cosine.shape[-1], COLUMNS=columns, EIGHT=scale is not None, num_warps=4,
    )  # fmt: skip
    return out


def _entered(
    x: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    factor: Tensor,
    offset: Tensor,
    mean: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    x, factor, offset = x.contiguous(), factor.contiguous(), offset.contiguous()
    update, gate, mean = (None if it is None else it.contiguous() for it in (update, gate, mean))
    dim, tokens = x.shape[-1], x.shape[1]
    hidden = x if update is None else torch.empty_like(x)
    numbers, scales = _empty(x)
    block = triton.next_power_of_2(dim)
    _norm[(numbers.shape[0],)](
        x, x if update is None else update, x if gate is None else gate, factor, offset, x if mean is None else mean,
        hidden, numbers, scales, tokens, eps, DIM=dim, BLOCK=block, ADD=update is not None, GATE=gate is not None,
        MEAN=mean is not None, num_warps=_warps(block),
    )  # fmt: skip
    return hidden, numbers, scales


def _empty(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.shape[0] * x.shape[1]
    numbers = torch.empty(rows, x.shape[2], dtype=FP8, device=x.device)
    return numbers, torch.empty(rows, 1, dtype=torch.float32, device=x.device)


def _warps(block: int) -> int:
    """32 numbers a thread."""
    return max(1, min(16, block // 1024))
