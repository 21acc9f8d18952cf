"""normed: sum, norm over channels and SiLU in one pass over memory. Knows nothing of convolutions or of the VAE.

On CUDA a Triton kernel reads every number once and writes once, in channels-last order; elsewhere torch does the same in
fp32 step by step. The formula is WanRMS_norm's (diffusers 0.42.1, models/autoencoders/autoencoder_kl_wan.py): a vector
of channels over its length, times sqrt(channels), times a learnt factor.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

_EPSILON = 1e-12  #: of F.normalize
_ELEMENTS = 4096  #: numbers that one program of the kernel holds


@dataclass(frozen=True, slots=True)
class Terms:
    """A tensor as a sum that nobody has added up yet: value + bias + residual."""

    value: Tensor  #: [1, c, t, h, w]
    bias: Tensor | None = None  #: [c]
    residual: Tensor | None = None  #: like `value`

    @property
    def plain(self) -> bool:
        return self.bias is None and self.residual is None

    def total(self) -> Tensor:
        """The sum, in the dtype of `value`, which it may overwrite."""
        if self.plain:
            return self.value
        total = self.value
        if self.bias is not None:
            total = total.add_(self.bias.view(1, -1, 1, 1, 1))
        return total if self.residual is None else total.add_(self.residual)


def normed(terms: Terms, gamma: Tensor, out: Tensor) -> Tensor:
    """Write silu(norm(sum) · gamma) to `out` and return the sum, rounded to the dtype of `out`.

    gamma: [c], fp32. `out`: [1, c, t, h, w], a part of a channels-last tensor on CUDA. Arithmetic is fp32 throughout.
    """
    if _on_triton(terms, out):
        return _launch(terms, gamma, out)
    total = terms.total()
    wide = total.float()
    unit = functional.normalize(wide, dim=1, eps=_EPSILON) * (gamma * gamma.numel() ** 0.5).view(1, -1, 1, 1, 1)
    out.copy_(functional.silu(unit))
    return total


def _on_triton(terms: Terms, out: Tensor) -> bool:
    if out.device.type != "cuda" or _kernel() is None:
        return False
    given = (terms.value, out, *(() if terms.residual is None else (terms.residual,)))
    return all(_rows_of_channels(tensor) for tensor in given)


def _rows_of_channels(tensor: Tensor) -> bool:
    """Whether the numbers lie as [t, h, w, c] without gaps."""
    return tensor.shape[0] == 1 and tensor.permute(0, 2, 3, 4, 1).is_contiguous()


def _launch(terms: Terms, gamma: Tensor, out: Tensor) -> Tensor:
    value, channels = terms.value, gamma.numel()
    rows = value.numel() // channels
    width = 1 << (channels - 1).bit_length()
    height = max(1, _ELEMENTS // width)
    total = value if terms.plain else torch.empty_like(value)
    kernel = _kernel()
    assert kernel is not None
    kernel[(-(-rows // height),)](
        value,
        value if terms.bias is None else terms.bias,
        value if terms.residual is None else terms.residual,
        total,
        gamma,
        out,
        rows,
        channels**0.5,
        channels,
        width,
        height,
        terms.bias is not None,
        terms.residual is not None,
    )
    return total


@functools.cache
def _kernel() -> Any | None:
    """The kernel, where Triton is installed; torch brings it for CUDA on Linux."""
    try:
        from wanreel.models.vae.kernel import sum_norm_silu
    except ImportError:
        return None
    return sum_norm_silu
