"""fp8 numbers with scales: how activations are rounded on their way into matrices and attention. Knows no layers.

e4m3 has three bits of mantissa over 15 binades, so its error is relative: what a scale must do is keep values in range, and
finer scales gain nothing (measured: docs/speed.md). That is why one scale found on a sample of the tokens, with room for
16 times as much, is enough for a whole tensor. What all tokens have in common, their middle, is what can be spared the
rounding: it is one row, and goes its way in fp32.
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


class Mixed(NamedTuple):
    """rest + middle."""

    rest: Tensor | Scaled  #: [b, tokens, ...]
    middle: Tensor  #: fp32 [b, 1, ...]: what is the same for all tokens


def wide(found: Tensor | Scaled | Mixed, dtype: torch.dtype) -> Tensor:
    """The numbers themselves. Those of a `Scaled` with one scale keep their shape."""
    if isinstance(found, Mixed):
        return (wide(found.rest, torch.float32) + found.middle).to(dtype)
    if isinstance(found, Scaled):
        return (found.numbers.float() * found.scale).to(dtype)
    return found.to(dtype)


def by_rows(x: Tensor, mean: Tensor | None = None) -> Scaled:
    """`x` [b, ..., columns], less `mean` [b, 1, columns] if given, as rows with a scale each."""
    if mean is not None and (torch.compiler.is_compiling() or mean.shape[0] > 1):
        x, mean = x.float() - mean, None
    rows = x.flatten(0, -2)
    # Compiled, nothing is made empty and filled by parts: Triton knows no e4m3 constants to fill it with (pytorch#141396).
    if torch.compiler.is_compiling() or rows.shape[0] <= _ROWS:
        return _rounded(rows, mean)
    numbers = torch.empty(rows.shape, dtype=FP8, device=rows.device)
    scale = torch.empty(rows.shape[0], 1, dtype=torch.float32, device=rows.device)
    for start in range(0, rows.shape[0], _ROWS):  # at once, it takes memory in fp32
        part = slice(start, start + _ROWS)
        numbers[part], scale[part] = _rounded(rows[part], mean)
    return Scaled(numbers, scale)


def _rounded(rows: Tensor, mean: Tensor | None) -> Scaled:
    if mean is not None:
        rows = rows.float() - mean[0]
    scale = rows.abs().amax(1, keepdim=True).float().clamp_min(_TINY) / FP8_MAX
    return Scaled((rows.float() / scale).to(FP8), scale)


def sampled(x: Tensor) -> Tensor:
    """Every 16th token of [b, tokens, ...]."""
    return x[:, ::SAMPLE]


def middle(x: Tensor) -> Tensor:
    """fp32 [b, 1, ...]: the mean of the sample's tokens. Any row would do where it is taken off and put back."""
    return sampled(x).float().mean(1, keepdim=True)


def centred(x: Tensor) -> tuple[Scaled, Tensor]:
    """[b, tokens, ...] in e4m3 with its middle taken off, and the middle."""
    some = sampled(x).float()
    mean = some.mean(1, keepdim=True)
    return whole(x.float() - mean, some - mean), mean


def roomy(sample: Tensor) -> Tensor:
    """One scale for what `sample` is a part of: fp32, a single number."""
    return sample.abs().amax().float().clamp_min(_TINY) * (ROOM / FP8_MAX)


def whole(x: Tensor, sample: Tensor) -> Scaled:
    """`x` with one scale, found on `sample`, a part of it."""
    scale = roomy(sample)
    return Scaled((x.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale)


def spread(row: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """row · weightᵀ, fp32 [b, 1, out], nothing of `row` rounded: fp32 [b, 1, in]. It reads the weights once."""
    return ((row * weight.float()).sum(2) * weight_scale.squeeze(1)).unsqueeze(1)


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
