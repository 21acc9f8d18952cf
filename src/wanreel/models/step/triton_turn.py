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
def _turn(x, weight, cosine, sine, mean, scale, out, tokens, rows, step, eps, DIM: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, MEAN: tl.constexpr, EIGHT: tl.constexpr, LARGEST: tl.constexpr):  # fmt: skip
    row, batch = tl.program_id(0), tl.program_id(1)
    token = (row * step).to(tl.int64)
    at = x + (batch * tokens + token) * DIM
    column = tl.arange(0, BLOCK)
    here = column < DIM
    swapped = column ^ 1
    own = tl.load(at + column, mask=here, other=0.0).to(tl.float32)
    scaled = tl.rsqrt(tl.sum(own * own, 0) / DIM + eps)
    other = tl.load(at + swapped, mask=here, other=0.0).to(tl.float32)
    own = own * scaled * tl.load(weight + column, mask=here, other=0.0).to(tl.float32)
    other = other * scaled * tl.load(weight + swapped, mask=here, other=0.0).to(tl.float32)
    place = token * WIDTH + column % WIDTH
    turned = own * tl.load(cosine + place, mask=here, other=0.0) + other * tl.load(sine + place, mask=here, other=0.0)
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
    """Every `step`-th row of [b, tokens, dim]. mean: fp32 [b, dim], taken off; scale: fp32 [1], for e4m3."""
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
        WIDTH=cosine.shape[-1],
        BLOCK=triton.next_power_of_2(dim),
        MEAN=mean is not None,
        EIGHT=scale is not None,
        LARGEST=FP8_MAX,
        num_warps=8,
    )
    return out
