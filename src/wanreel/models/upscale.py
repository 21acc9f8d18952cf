"""Upscaler: a network that enlarges one frame at a time, tile by tile. Knows nothing of videos or requests.

Swin2SR (Conde et al. 2022, arXiv:2209.11345), as transformers implements it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import BrokenWeights, OutOfMemory
from wanreel.models.folder import read_json
from wanreel.models.pretrained import read_module
from wanreel.models.upscalers import CONFIG, MARGIN

Frame = NDArray[np.uint8]  #: [h, w, 3], RGB

#: px of a tile's side that come into the result, and those around it that only are looked at. Windows divide both, so
#: that they lie in every tile as they would in the whole frame.
_TILE = 256
_SMALLEST = 64
_FRACTIONS = ("mlp_ratio", "img_range")
_log = logging.getLogger(__name__)


class Upscaler:
    """One network on a device, in fp32."""

    def __init__(self, folder: Path, device: torch.device, cancel: CancelToken, tile: int = _TILE) -> None:
        """Raises BrokenWeights."""
        self._module: Any = read_module(
            Swin2SRForImageSuperResolution, folder, folder.name, config=_config(folder), dtype=torch.float32
        )
        self._module.to(device)
        self._device = device
        self._cancel = cancel
        self._tile = tile
        self.scale: int = self._module.config.upscale

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Frame:
        """The frame `scale` times as large, [h·scale, w·scale, 3]. Raises Cancelled between tiles, OutOfMemory.

        Where memory runs out, it goes on in smaller tiles.
        """
        while True:
            try:
                return self._enlarged(frame)
            except torch.OutOfMemoryError as exc:
                if self._tile <= _SMALLEST:
                    text = f"There is no memory for tiles of {self._tile} px of the upscaler."
                    raise OutOfMemory(text, hint="Leave upscaler out, or let fewer parts of the model stay.") from exc
                self._tile //= 2
                _log.warning("the upscaler goes on in tiles of %d px, as memory ran out", self._tile)

    def _enlarged(self, frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        made = np.empty((height * self.scale, width * self.scale, 3), np.uint8)
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None].float() / 255
        # transformers' own padding of what is no multiple of the window makes no picture of that size any more.
        edge = (0, -width % MARGIN + MARGIN, 0, -height % MARGIN + MARGIN)
        whole = pad(pixels, edge, "replicate")
        for top in range(0, height, self._tile):
            for left in range(0, width, self._tile):
                self._cancel.check()
                rows, columns = slice(top, min(height, top + self._tile)), slice(left, min(width, left + self._tile))
                made[self._times(rows), self._times(columns)] = self._one(whole, rows, columns)
        return made

    def _one(self, whole: Tensor, rows: slice, columns: slice) -> Frame:
        top, left = max(0, rows.start - MARGIN), max(0, columns.start - MARGIN)
        seen = whole[..., top : _whole(rows.stop) + MARGIN, left : _whole(columns.stop) + MARGIN]
        made = self._module(pixel_values=seen).reconstruction
        inner = made[
            0, :, self._times(slice(rows.start - top, rows.stop - top)), self._times(slice(columns.start - left, columns.stop - left))
        ]  # fmt: skip
        return (inner.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    def _times(self, span: slice) -> slice:
        return slice(span.start * self.scale, span.stop * self.scale)


def _config(folder: Path) -> Swin2SRConfig:
    """As transformers wants it: whole numbers in JSON are none of its fractions. Raises BrokenWeights."""
    values = dict(read_json(folder / CONFIG))
    try:
        return Swin2SRConfig.from_dict({name: float(it) if name in _FRACTIONS else it for name, it in values.items()})
    except (StrictDataclassError, ValueError, TypeError) as exc:
        raise BrokenWeights(f"{folder.name}/{CONFIG} can't be read ({exc}).") from exc


def _whole(place: int) -> int:
    """`place`, or the next one after it where a window ends."""
    return place + -place % MARGIN
