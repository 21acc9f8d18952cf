"""What stands between two fp8 matrices as one pass each, in Triton: every row is read once and written once. Imports triton.

Each kernel takes whole rows, so norms and row scales need no second look. Between reading and writing all is fp32: what
torch's operators round to bf16 on the way is rounded once here.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownArgumentType=false
# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportMissingTypeStubs=false
# pyright: reportOptionalMemberAccess=false, reportGeneralTypeIssues=false
# ruff: noqa: PLR0913, ANN001, ANN202, E501

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from wanreel.models.eight import FP8, FP8_MAX

_LARGEST = tl.constexpr(FP8_MAX)
_LEAST = tl.constexpr(1e-12)


@dataclass(frozen=True, slots=True)
class Launch:
    """How many rows a program takes, so that they share what all rows need, and by how many warps."""

    rows: int
    warps: int


#: Found by scripts/bench_fast.py --parts launches on an H200.
NORM, GELU, TURN = Launch(2, 8), Launch(1, 16), Launch(1, 4)


@triton.jit
def _vector(start, column, DIM: tl.constexpr):
    return tl.load(start + tl.program_id(1) * DIM + column, mask=column < DIM, other=0.0).to(tl.float32)[None, :]


@triton.jit
def _sum(x, update, gate, hidden, place, column, there, DIM: tl.constexpr, ADD: tl.constexpr, GATE: tl.constexpr):
    """x + update · gate, kept in `hidden` as it is rounded."""
    at, here = place + column[None, :], there[:, None] & (column < DIM)[None, :]
    h = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
    if ADD:
        more = tl.load(update + at, mask=here, other=0.0).to(tl.float32)
        if GATE:
            more = more * _vector(gate, column, DIM)
        kept = (h + more).to(hidden.dtype.element_ty)
        tl.store(hidden + at, kept, mask=here)
        h = kept.to(tl.float32)
    return h


@triton.jit
def _modulated(h, root, factor, offset, mean, column, DIM: tl.constexpr, MEAN: tl.constexpr):
    more = _vector(offset, column, DIM)
    if MEAN:
        more = more - _vector(mean, column, DIM)
    return h * root * _vector(factor, column, DIM) + more


@triton.jit
def _store_eight(one, two, numbers, scales, row, place, first, second, there, DIM: tl.constexpr):
    """Both pieces of the rows in e4m3, with one scale for each row."""
    largest = tl.maximum(tl.maximum(tl.max(tl.abs(one), 1), tl.max(tl.abs(two), 1)), _LEAST)
    scale = largest / _LARGEST
    factor = (1.0 / scale)[:, None]
    kind = numbers.dtype.element_ty
    tl.store(numbers + place + first[None, :], (one * factor).to(kind), mask=there[:, None] & (first < DIM)[None, :])
    tl.store(numbers + place + second[None, :], (two * factor).to(kind), mask=there[:, None] & (second < DIM)[None, :])
    tl.store(scales + row, scale, mask=there)


@triton.jit
def _norm(x, update, gate, factor, offset, mean, hidden, numbers, scales, tokens, eps, DIM: tl.constexpr, ONE: tl.constexpr, TWO: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr, GATE: tl.constexpr, MEAN: tl.constexpr):  # fmt: skip
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row, there = tl.program_id(1).to(tl.int64) * tokens + token, token < tokens
    place = (row * DIM)[:, None]
    first, second = tl.arange(0, ONE), ONE + tl.arange(0, TWO)
    a = _sum(x, update, gate, hidden, place, first, there, DIM, ADD, GATE)
    b = _sum(x, update, gate, hidden, place, second, there, DIM, ADD, GATE)
    middle = ((tl.sum(a, 1) + tl.sum(b, 1)) / DIM)[:, None]
    a, b = a - middle, tl.where((second < DIM)[None, :], b - middle, 0.0)
    root = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / DIM + eps)[:, None]
    a = _modulated(a, root, factor, offset, mean, first, DIM, MEAN)
    b = _modulated(b, root, factor, offset, mean, second, DIM, MEAN)
    _store_eight(a, b, numbers, scales, row, place, first, second, there, DIM)


@triton.jit
def _activated(x, mean, place, column, there, DIM: tl.constexpr, MEAN: tl.constexpr):
    here = there[:, None] & (column < DIM)[None, :]
    y = tl.load(x + place + column[None, :], mask=here, other=0.0).to(tl.float32)
    # tanh(u) = 2 · sigmoid(2u) - 1, so that x/2 · (1 + tanh(u)) = x · sigmoid(2u); 2 · sqrt(2/π) · log2(e) = 2.302…
    y = y / (1.0 + tl.exp2(y * (-2.302208198144325 - 0.1029432395800235 * y * y)))
    if MEAN:
        y = y - _vector(mean, column, DIM)
    return y


@triton.jit
def _gelu(x, mean, numbers, scales, tokens, DIM: tl.constexpr, ONE: tl.constexpr, TWO: tl.constexpr, ROWS: tl.constexpr, MEAN: tl.constexpr):  # fmt: skip
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row, there = tl.program_id(1).to(tl.int64) * tokens + token, token < tokens
    place = (row * DIM)[:, None]
    first, second = tl.arange(0, ONE), ONE + tl.arange(0, TWO)
    a = _activated(x, mean, place, first, there, DIM, MEAN)
    b = _activated(x, mean, place, second, there, DIM, MEAN)
    _store_eight(a, b, numbers, scales, row, place, first, second, there, DIM)


@triton.jit
def _read(x, given, column, there, DIM: tl.constexpr):
    return tl.load(x + given + column[None, :], mask=there[:, None] & (column < DIM)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _turned(part, root, weight, cosine, sine, mean, scale, out, token, written, column, there, START: tl.constexpr, COUNT: tl.constexpr, DIM: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, MEAN: tl.constexpr, EIGHT: tl.constexpr):  # fmt: skip
    here = (column < DIM)[None, :]
    normed = part * root * tl.load(weight + column, mask=column < DIM, other=0.0).to(tl.float32)[None, :]
    pair = (START // 2 + tl.arange(0, COUNT // 2)) % HALF
    at, known = token[:, None] * HALF + pair[None, :], there[:, None]
    cos = tl.load(cosine + at, mask=known, other=0.0)
    sin = tl.load(sine + at, mask=known, other=0.0)
    first, second = tl.split(tl.reshape(normed, (ROWS, COUNT // 2, 2)))
    turned = tl.reshape(tl.join(first * cos - second * sin, first * sin + second * cos), (ROWS, COUNT))
    if MEAN:
        turned = turned - _vector(mean, column, DIM)
    if EIGHT:
        turned = tl.minimum(tl.maximum(turned * (1.0 / tl.load(scale)), -_LARGEST), _LARGEST)
    tl.store(out + written + column[None, :], turned.to(out.dtype.element_ty), mask=there[:, None] & here)


@triton.jit
def _turn(x, weight, cosine, sine, mean, scale, out, tokens, rows, step, eps, DIM: tl.constexpr, ONE: tl.constexpr, TWO: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, MEAN: tl.constexpr, EIGHT: tl.constexpr):  # fmt: skip
    which = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    token, there = which * step, which < rows
    written = ((tl.program_id(1).to(tl.int64) * rows + which) * DIM)[:, None]
    given = ((tl.program_id(1).to(tl.int64) * tokens + token) * DIM)[:, None]
    first, second = tl.arange(0, ONE), ONE + tl.arange(0, TWO)
    a, b = _read(x, given, first, there, DIM), _read(x, given, second, there, DIM)
    root = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / DIM + eps)[:, None]
    _turned(a, root, weight, cosine, sine, mean, scale, out, token, written, first, there, 0, ONE, DIM, HALF, ROWS, MEAN, EIGHT)  # fmt: skip
    _turned(b, root, weight, cosine, sine, mean, scale, out, token, written, second, there, ONE, TWO, DIM, HALF, ROWS, MEAN, EIGHT)  # fmt: skip


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
    """gelu(x), tanh's, less mean, as `enter` gives its result. mean in any dtype."""
    x = x.contiguous()
    numbers, scales = _empty(x)
    mean = None if mean is None else mean.contiguous()
    _gelu[_grid(x.shape[0], x.shape[1], GELU)](
        x, x if mean is None else mean, numbers, scales, x.shape[1], **_pieces(x.shape[2]), ROWS=GELU.rows,
        MEAN=mean is not None, num_warps=GELU.warps,
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
    (fp32, one number) in e4m3. Raises ValueError where dim is no whole number of heads.
    """
    x = x.contiguous()
    batch, tokens, dim = x.shape
    if dim % (2 * cosine.shape[-1]):
        raise ValueError(f"heads {2 * cosine.shape[-1]} wide do not fit into {dim}")
    rows = -(-tokens // step)
    out = torch.empty(batch, rows, dim, dtype=x.dtype if scale is None else FP8, device=x.device)
    _turn[_grid(batch, rows, TURN)](
        x, weight, cosine, sine, x if mean is None else mean.contiguous(), x if scale is None else scale, out, tokens, rows, step, eps,
        **_pieces(dim), HALF=cosine.shape[-1], ROWS=TURN.rows, MEAN=mean is not None, EIGHT=scale is not None,
        num_warps=TURN.warps,
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
    hidden = x if update is None else torch.empty_like(x)
    numbers, scales = _empty(x)
    _norm[_grid(x.shape[0], x.shape[1], NORM)](
        x, x if update is None else update, x if gate is None else gate, factor, offset, x if mean is None else mean,
        hidden, numbers, scales, x.shape[1], eps, **_pieces(x.shape[2]), ROWS=NORM.rows, ADD=update is not None,
        GATE=gate is not None, MEAN=mean is not None, num_warps=NORM.warps,
    )  # fmt: skip
    return hidden, numbers, scales


def _empty(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.shape[0] * x.shape[1]
    numbers = torch.empty(rows, x.shape[2], dtype=FP8, device=x.device)
    return numbers, torch.empty(rows, 1, dtype=torch.float32, device=x.device)


def _grid(batch: int, rows: int, launch: Launch) -> tuple[int, int]:
    return -(-rows // launch.rows), batch


def _pieces(dim: int) -> dict[str, int]:
    """A row as two pieces, as a program's numbers come in powers of two: 5,120 are 4,096 and 1,024."""
    one = triton.next_power_of_2(dim) // 2
    return {"DIM": dim, "ONE": one, "TWO": triton.next_power_of_2(dim - one)}
