"""Which kernel a CPU takes for convolutions over time and space. Knows nothing of the VAE they belong to.

torch gives fp32 convolutions of small clips (up to 20,480 rows of pixels over all channels and frames) to a plain loop
and only larger ones to oneDNN (2.13: aten/src/ATen/native/Convolution.cpp, `use_mkldnn`). The rule was made for pictures:
over [32, 6, 66, 66] the loop needs 40 ms on two cores, oneDNN 6.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn


def prefer_onednn(module: nn.Module) -> None:
    """From now on every Conv3d in `module` runs on oneDNN where that can compute it. Rounds otherwise than torch's loop.

    That is on a CPU whose torch has oneDNN, in fp32. Elsewhere, and for padding that is not zeros, nothing changes.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv3d) and part.padding_mode == "zeros":
            convolution: Any = part
            convolution._conv_forward = MethodType(_convolved, part)  # what forward ends in, Diffusers' own too


def _convolved(conv: Any, given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _fits(given, weight):
        return torch.mkldnn_convolution(given, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
    return functional.conv3d(given, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _fits(given: Tensor, weight: Tensor) -> bool:
    on_cpu = given.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return on_cpu and given.dtype == weight.dtype == torch.float32
