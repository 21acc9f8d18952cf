"""fp8 numbers with scales: how activations are rounded on their way into matrices and attention. Knows no layers.

e4m3 has three bits of mantissa over 15 binades, so its error is relative: what a scale must do is keep values in range, and
finer scales gain nothing (measured: docs/speed.md). That is why one scale found on a sample of the tokens, with room for
16 times as much, is enough for a whole tensor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0  #: largest finite number of e4m3
#: Every so many-th token is looked at for a tensor's scale and for the mean of the keys.
SAMPLE = 16
#: How much larger than the largest of the sample a number may be before it is cut.
ROOM = 16.0
_TINY = 1e-12
_ROWS = 8192


class Scaled(NamedTuple):
    """numbers · scale."""

    numbers: Tensor  #: e4m3
    scale: Tensor  #: fp32; [rows, 1], or a single number for all


def by_rows(x: Tensor) -> Scaled:
    """`x` [..., columns] as rows with a scale each."""
    rows = x.flatten(0, -2)
    if torch.compiler.is_compiling() or rows.shape[0] <= _ROWS:
        return _rounded(rows)
    parts = [_rounded(part) for part in rows.split(_ROWS)]  # not compiled, it takes memory in fp32
    return Scaled(torch.cat([part.numbers for part in parts]), torch.cat([part.scale for part in parts]))


def _rounded(rows: Tensor) -> Scaled:
    scale = rows.abs().amax(1, keepdim=True).float().clamp_min(_TINY) / FP8_MAX
    return Scaled((rows.float() / scale).to(FP8), scale)


def sampled(x: Tensor) -> Tensor:
    """Every 16th token of [b, tokens, ...]."""
    return x[:, ::SAMPLE]


def whole(x: Tensor, sample: Tensor) -> Scaled:
    """`x` with one scale, found on `sample`, a part of it."""
    scale = sample.abs().amax().float().clamp_min(_TINY) * (ROOM / FP8_MAX)
    return Scaled((x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale)


def product(given: Scaled, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """given · weightᵀ + bias [rows, out]. weight: e4m3 [out, in], weight_scale: fp32 [out, 1].

    Off CUDA the same numbers are multiplied in fp32: slow, for measuring errors where no GPU is.
    """
    rows = given.numbers.shape[0]
    scale = given.scale if given.scale.ndim == 2 else given.scale.reshape(1, 1).expand(rows, 1).contiguous()
    if not weight.is_cuda:
        out = given.numbers.float() @ weight.float().t() * (scale * weight_scale.t())
        return (out if bias is None else out + bias.float()).to(dtype)
    multiply: Any = torch._scaled_mm  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - the only door
    out: Tensor = multiply(
        given.numbers,
        weight.t(),
        scale_a=scale,
        scale_b=weight_scale.t(),
        bias=None if bias is None else bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return out.to(dtype)
