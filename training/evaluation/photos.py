"""Photographs that training never saw: those in `photographs`, and fixed cuts of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

#: Where they are; a README beside them names makers and terms.
FOLDER = Path(__file__).with_name("photographs")
_FILES = {
    "astronaut": "astronaut.png", "coffee": "coffee.png", "cat": "chelsea.png", "rocket": "rocket.jpg",
    "temple": "china.jpg", "flower": "flower.jpg",
}  # fmt: skip
#: (left, top, right, bottom) of a cut, in parts of the picture.
_CUTS = {"": (0.0, 0.0, 1.0, 1.0), " upper left": (0.0, 0.0, 0.6, 0.6), " lower right": (0.4, 0.4, 1.0, 1.0)}


def photographs() -> dict[str, Image.Image]:
    """The six photographs as they are."""
    return {name: Image.open(FOLDER / file).convert("RGB") for name, file in _FILES.items()}


def pictures(height: int, width: int, cuts: bool = True) -> dict[str, Image.Image]:
    """Each photograph and its fixed cuts, scaled and cropped about the middle to `width` x `height`."""
    chosen = _CUTS if cuts else {"": _CUTS[""]}
    return {
        name + where: _fit(_cut(photo, box), height, width)
        for name, photo in photographs().items()
        for where, box in chosen.items()
    }


def _cut(photo: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
    left, top, right, bottom = box
    return photo.crop((
        round(left * photo.width), round(top * photo.height), round(right * photo.width), round(bottom * photo.height)
    ))  # fmt: skip


def _fit(photo: Image.Image, height: int, width: int) -> Image.Image:
    scale = max(width / photo.width, height / photo.height)
    size = max(width, round(photo.width * scale)), max(height, round(photo.height * scale))
    photo = photo.resize(size, Image.Resampling.LANCZOS)
    x, y = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((x, y, x + width, y + height))


def to_tensor(picture: Image.Image) -> Tensor:
    """-> [3, h, w] in [-1, 1]."""
    pixels: Any = np.asarray(picture.convert("RGB"), np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)
