"""Our own fp8 attention in Triton, for GPUs that multiply fp8 where no better kernel is installed. Imports triton.

One program takes 128 queries of a head through all keys. The softmax is fp32; probabilities are lifted by 2^8 before they
are rounded, which keeps those of long rows clear of e4m3's subnormal numbers, and the sum is lifted alike.
"""
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownArgumentType=false
# pyright: reportUntypedFunctionDecorator=false, reportIndexIssue=false, reportMissingTypeStubs=false
# pyright: reportOptionalMemberAccess=false, reportGeneralTypeIssues=false, reportUnknownLambdaType=false

# ruff: noqa: PLR0913, ANN001, ANN202, E501

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

QUERIES = 128  #: a program's
KEYS = 128  #: of a turn of its loop
LIFT = 8.0
_WARPS, _STAGES = 8, 3
_LOG2E = math.log2(math.e)


@triton.jit
def _turn(q, keys, values, acc, top, total, at, head, count, scale, offsets, MASK: tl.constexpr, LIFT: tl.constexpr, N: tl.constexpr, D: tl.constexpr):  # fmt: skip
    k = keys.load([at, head, 0]).reshape(N, D)
    logits = tl.dot(q, k.T)
    if MASK:
        logits = tl.where((offsets + at < count)[None, :], logits, float("-inf"))
    higher = tl.maximum(top, tl.max(logits, 1) * scale)
    p = tl.math.exp2(logits * scale - (higher - LIFT)[:, None])
    fade = tl.math.exp2(top - higher)
    total = total * fade + tl.sum(p, 1)
    acc = acc * fade[:, None]
    v = values.load([head, 0, at]).reshape(D, N)
    acc = tl.dot(p.to(v.dtype), v.T, acc)
    return acc, higher, total


@triton.jit
def _attend(queries, keys, values, out, scales, asked, count, row, head_row, unit, LIFT: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr):  # fmt: skip
    first, head = tl.program_id(0) * M, tl.program_id(1)
    scale, after = tl.load(scales) * unit, tl.load(scales + 1)
    q = queries.load([first, head, 0]).reshape(M, D)
    offsets = tl.arange(0, N)
    acc = tl.zeros([M, D], tl.float32)
    top = tl.full([M], float("-inf"), tl.float32)
    total = tl.zeros([M], tl.float32)
    full = (count // N) * N
    for at in tl.range(0, full, N):
        acc, top, total = _turn(q, keys, values, acc, top, total, at, head, count, scale, offsets, False, LIFT, N, D)
    if full < count:
        acc, top, total = _turn(q, keys, values, acc, top, total, full, head, count, scale, offsets, True, LIFT, N, D)
    result = acc * (after / total)[:, None]
    lines, columns = first + tl.arange(0, M), tl.arange(0, D)
    where = out + lines[:, None].to(tl.int64) * row + head * head_row + columns[None, :]
    tl.store(where, result.to(out.dtype.element_ty), mask=(lines < asked)[:, None])


def attend(query: Tensor, key: Tensor, value: Tensor, scales: Tensor) -> Tensor:
    """bf16 [b, tokens, heads, d] of e4m3 query and key like it and value [b, heads, d, keys padded to `KEYS`].

    scales: fp32 [2], what query · key and what value are to be multiplied with.
    """
    _, asked, heads, width = query.shape
    out = torch.empty(query.shape, dtype=torch.bfloat16, device=query.device)
    for q, k, v, o in zip(query, key, value, out, strict=True):
        _attend[(triton.cdiv(asked, QUERIES), heads)](
            _described(q, [QUERIES, 1, width]),
            _described(k, [KEYS, 1, width]),
            _described(v, [1, width, KEYS]),
            o,
            scales,
            asked,
            key.shape[1],
            o.stride(0),
            o.stride(1),
            _LOG2E / math.sqrt(width),
            LIFT=LIFT,
            M=QUERIES,
            N=KEYS,
            D=width,
            num_warps=_WARPS,
            num_stages=_STAGES,
        )
    return out


def turned(value: Tensor) -> Tensor:
    """Values [b, keys, heads, d] as `attend` wants them."""
    padding = -value.shape[1] % KEYS
    turned = value.permute(0, 2, 3, 1)
    return F.pad(turned.view(torch.uint8), (0, padding)).contiguous().view(value.dtype)


def _described(tensor: Tensor, block: list[int]) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), block)
