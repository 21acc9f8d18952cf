"""Queries and keys in one pass in Triton: normalised over all heads, turned by position, in bf16 or e4m3. Imports triton.

Compiled from torch's own operators the same takes three passes, one of them in fp32.
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

from wanreel.models.step.eight import FP8, FP8_MAX


@triton.jit
def _turn(x, weight, cosine, sine, mean, scale, out, tokens, rows, step, eps, DIM: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr, MEAN: tl.constexpr, EIGHT: tl.constexpr, LARGEST: tl.constexpr):  # fmt: skip
    row, batch = tl.program_id(0), tl.program_id(1)
    token = (row * step).to(tl.int64)
    column = tl.arange(0, BLOCK)
    here = column < DIM
    given = tl.load(x + (batch * tokens + token) * DIM + column, mask=here, other=0.0).to(tl.float32)
    normed = given * tl.rsqrt(tl.sum(given * given, 0) / DIM + eps)
    normed = normed * tl.load(weight + column, mask=here, other=0.0).to(tl.float32)
    first, second = tl.split(tl.reshape(normed, (BLOCK // 2, 2)))
    angle = token * HALF + tl.arange(0, BLOCK // 2) % HALF
    cos, sin = tl.load(cosine + angle), tl.load(sine + angle)
    turned = tl.reshape(tl.join(first * cos - second * sin, first * sin + second * cos), (BLOCK,))
    if MEAN:
        turned = turned - tl.load(mean + batch * DIM + column, mask=here, other=0.0)
    if EIGHT:
        turned = turned / tl.load(scale)
        turned = tl.minimum(tl.maximum(turned, -LARGEST), LARGEST)
    where = out + (batch * rows + row).to(tl.int64) * DIM + column
    tl.store(where, turned.to(out.dtype.element_ty), mask=here)


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
    """Every `step`-th row of [b, tokens, dim]. cosine, sine: fp32 [tokens, d / 2], of each pair; mean: fp32 [b, dim], taken off; scale: fp32 [1], for e4m3."""
    batch, tokens, dim = x.shape
    rows = -(-tokens // step)
    x = x.contiguous()
    out = torch.empty(batch, rows, dim, dtype=x.dtype if scale is None else FP8, device=x.device)
    _turn[(rows, batch)](
        x,
        weight,
        cosine,
        sine,
        x if mean is None else mean,
        x if scale is None else scale,
        out,
        tokens,
        rows,
        step,
        eps,
        DIM=dim,
        HALF=cosine.shape[-1],
        BLOCK=triton.next_power_of_2(dim),
        MEAN=mean is not None,
        EIGHT=scale is not None,
        LARGEST=FP8_MAX,
        num_warps=8,
    )
    return out
