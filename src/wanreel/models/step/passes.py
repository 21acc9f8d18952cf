"""What stands between two fp8 matrices as one pass each, in Triton: every row is read once and written once. Imports triton.

Each kernel takes whole rows, so norms and row scales need no second look. Between reading and writing all is fp32: what
torch's operators round to bf16 on the way is rounded once here.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownArgumentType=false
# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportMissingTypeStubs=false
# pyright: reportOptionalMemberAccess=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false
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
    """How many rows a program takes, one after the other, and by how many warps."""

    rows: int
    warps: int


#: Found by scripts/bench_fast.py --parts launches on an H200.
NORM, GELU, TURN = Launch(16, 4), Launch(1, 16), Launch(1, 4)


@triton.jit
def _vector(start, column, DIM: tl.constexpr):
    """What all rows of a batch take: read once a program."""
    return tl.load(start + tl.program_id(1) * DIM + column, mask=column < DIM, other=0.0).to(tl.float32)


@triton.jit
def _shift(offset, mean, column, DIM: tl.constexpr, MEAN: tl.constexpr):
    shift = _vector(offset, column, DIM)
    if MEAN:
        shift = shift - _vector(mean, column, DIM)
    return shift


@triton.jit
def _part(start, place, column, there, DIM: tl.constexpr):
    return tl.load(start + place + column, mask=(column < DIM) & there, other=0.0)


@triton.jit
def _store_eight(one, two, numbers, scales, row, place, first, second, there, DIM: tl.constexpr):
    """Both pieces of a row in e4m3, with one scale."""
    scale = tl.maximum(tl.maximum(tl.max(tl.abs(one), 0), tl.max(tl.abs(two), 0)), _LEAST) / _LARGEST
    factor = 1.0 / scale
    tl.store(numbers + place + first, (one * factor).to(numbers.dtype.element_ty), mask=(first < DIM) & there)
    tl.store(numbers + place + second, (two * factor).to(numbers.dtype.element_ty), mask=(second < DIM) & there)
    tl.store(scales + row, scale, mask=there)


@triton.jit
def _norm(x, update, gate, factor, offset, mean, hidden, numbers, scales, tokens, eps, DIM: tl.constexpr, ONE: tl.constexpr, TWO: tl.constexpr, ROWS: tl.constexpr, ADD: tl.constexpr, GATE: tl.constexpr, MEAN: tl.constexpr):  # fmt: skip
    token = tl.program_id(0) * ROWS
    row = tl.program_id(1).to(tl.int64) * tokens + token
    first, second = tl.arange(0, ONE), ONE + tl.arange(0, TWO)
    factor_a, factor_b = _vector(factor, first, DIM), _vector(factor, second, DIM)
    shift_a, shift_b = _shift(offset, mean, first, DIM, MEAN), _shift(offset, mean, second, DIM, MEAN)
    if GATE:
        gate_a, gate_b = _vector(gate, first, DIM), _vector(gate, second, DIM)
    next_a, next_b = _part(x, row * DIM, first, True, DIM), _part(x, row * DIM, second, True, DIM)
    if ADD:
        more_a, more_b = _part(update, row * DIM, first, True, DIM), _part(update, row * DIM, second, True, DIM)
    for number in range(ROWS):
        there, follows = token + number < tokens, (number + 1 < ROWS) & (token + number + 1 < tokens)
        place = (row + number) * DIM
        after = place + DIM
        a, b = next_a.to(tl.float32), next_b.to(tl.float32)
        next_a, next_b = _part(x, after, first, follows, DIM), _part(x, after, second, follows, DIM)
        if ADD:
            add_a, add_b = more_a.to(tl.float32), more_b.to(tl.float32)
            more_a, more_b = _part(update, after, first, follows, DIM), _part(update, after, second, follows, DIM)
            if GATE:
                add_a, add_b = add_a * gate_a, add_b * gate_b
            kept_a, kept_b = (a + add_a).to(hidden.dtype.element_ty), (b + add_b).to(hidden.dtype.element_ty)
            tl.store(hidden + place + first, kept_a, mask=(first < DIM) & there)
            tl.store(hidden + place + second, kept_b, mask=(second < DIM) & there)
            a, b = kept_a.to(tl.float32), kept_b.to(tl.float32)
        middle = (tl.sum(a, 0) + tl.sum(b, 0)) / DIM
        a, b = a - middle, tl.where(second < DIM, b - middle, 0.0)
        root = tl.rsqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / DIM + eps)
        a, b = a * root * factor_a + shift_a, b * root * factor_b + shift_b
        _store_eight(a, b, numbers, scales, row + number, place, first, second, there, DIM)


@triton.jit
def _activated(given):
    y = given.to(tl.float32)
    # tanh(u) = 2 · sigmoid(2u) - 1, so that x/2 · (1 + tanh(u)) = x · sigmoid(2u); 2 · sqrt(2/π) · log2(e) = 2.302…
    return y / (1.0 + tl.exp2(y * (-2.302208198144325 - 0.1029432395800235 * y * y)))


@triton.jit
def _gelu(x, mean, numbers, scales, tokens, DIM: tl.constexpr, ONE: tl.constexpr, TWO: tl.constexpr, ROWS: tl.constexpr, MEAN: tl.constexpr):  # fmt: skip
    token = tl.program_id(0) * ROWS
    row = tl.program_id(1).to(tl.int64) * tokens + token
    first, second = tl.arange(0, ONE), ONE + tl.arange(0, TWO)
    if MEAN:
        mean_a, mean_b = _vector(mean, first, DIM), _vector(mean, second, DIM)
    next_a, next_b = _part(x, row * DIM, first, True, DIM), _part(x, row * DIM, second, True, DIM)
    for number in range(ROWS):
        there, follows = token + number < tokens, (number + 1 < ROWS) & (token + number + 1 < tokens)
        place = (row + number) * DIM
        a, b = _activated(next_a), _activated(next_b)
        next_a, next_b = _part(x, place + DIM, first, follows, DIM), _part(x, place + DIM, second, follows, DIM)
        if MEAN:
            a, b = a - mean_a, b - mean_b
        _store_eight(a, b, numbers, scales, row + number, place, first, second, there, DIM)


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
        turned = turned - _vector(mean, column, DIM)[None, :]
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
