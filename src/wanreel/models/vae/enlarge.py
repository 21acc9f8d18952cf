"""enlarged: pictures twice as large by nearest neighbours, then convolved 3 × 3, in one step.

A window of 3 × 3 pixels of the large picture covers 2 × 2 of the small one, so summing the weights of what is the same pixel
leaves 4 products of 9 for each number, and the large picture's copies are never written. Exact but for rounding;
weights are summed before they are rounded. Knows nothing of the VAE, of frames' order or of what is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from wanreel.models.ranks.bands import Bands

#: "copied": as the model's authors have it. "transposed": one transposed convolution, 4 × 4 with stride 2.
#: "phases": a convolution 2 × 2 for each of the four places in a square of the large picture, and their numbers put in order.
Kind = Literal["copied", "transposed", "phases"]
KIND: Kind = "phases"
_WORDS = (torch.complex128, torch.int64, torch.int32, torch.int16)  # of 16, 8, 4 and 2 bytes


def folded(weight: Tensor) -> Tensor:
    """What `enlarged` takes for a convolution's weight [o, i, 3, 3], which should still be fp32."""
    return _FORMS[KIND].fold(weight)


def enlarged(pictures: Tensor, weight: Tensor, bands: Bands | None = None) -> Tensor:
    """[n, o, 2 h, 2 w] of [n, i, h, w], both channels-last; with `bands`, of this rank's rows."""
    return _FORMS[KIND].run(pictures, weight, bands)


@dataclass(frozen=True, slots=True)
class _Form:
    fold: Callable[[Tensor], Tensor]
    run: Callable[[Tensor, Tensor, Bands | None], Tensor]


def _copied(pictures: Tensor, weight: Tensor, bands: Bands | None) -> Tensor:
    wide = functional.interpolate(pictures, scale_factor=2.0, mode="nearest-exact")
    return functional.conv2d(*_edged(wide, bands, weight))


def _transposed(pictures: Tensor, weight: Tensor, bands: Bands | None) -> Tensor:
    given = pictures if bands is None else bands.widened(pictures)
    return functional.conv_transpose2d(given, weight, stride=2, padding=(1 if bands is None else 3, 1))


def _transposed_weight(weight: Tensor) -> Tensor:
    for dim in (2, 3):
        first, second, third = weight.unbind(dim)
        weight = torch.stack([third, second + third, first + second, first], dim)
    return weight.transpose(0, 1)


def _phases(pictures: Tensor, weight: Tensor, bands: Bands | None) -> Tensor:
    """The convolution gives [n, h + 1, w + 1, 2, 2, o]: a place in the lower row is one further down, and so for columns.

    They lie like that already but where a device's convolutions are not channels-last.
    """
    height, width = pictures.shape[-2:]
    rows = functional.conv2d(*_edged(pictures, bands, weight)).permute(0, 2, 3, 1).contiguous()
    count, channels = rows.shape[0], rows.shape[-1] // 4
    size = channels * rows.element_size()
    rows = rows.view(next(word for word in _WORDS if size % word.itemsize == 0))
    step = rows.shape[-1]
    line, part = (width + 1) * step, step // 4
    strides = ((height + 1) * line, line, line + 2 * part, step, step + part, 1)
    # One copy, of words as long as they come: by single numbers it would take longer than the convolution.
    whole = rows.as_strided((count, height, 2, width, 2, part), strides, rows.storage_offset()).contiguous()
    return whole.view(pictures.dtype).view(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def _phases_weight(weight: Tensor) -> Tensor:
    return torch.cat([part for rows in _halves(weight, 2) for part in _halves(rows, 3)])


def _halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """For the first place of two, and for the second."""
    first, second, third = weight.unbind(dim)
    return torch.stack([first, second + third], dim), torch.stack([first + second, third], dim)


def _edged(pictures: Tensor, bands: Bands | None, weight: Tensor) -> tuple[Tensor, Tensor, None, int, tuple[int, int]]:
    """Arguments of conv2d: one pixel more on each side."""
    if bands is None:
        return pictures, weight, None, 1, (1, 1)
    return bands.widened(pictures), weight, None, 1, (0, 1)


_FORMS: dict[Kind, _Form] = {
    "copied": _Form(lambda weight: weight, _copied),
    "transposed": _Form(_transposed_weight, _transposed),
    "phases": _Form(_phases_weight, _phases),
}
