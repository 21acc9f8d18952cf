"""Colour: how far pictures are apart in CIELAB, and drawing one towards another. Knows nothing of clips.

Per channel of CIELAB (CIE 15:2004, D65, from sRGB by IEC 61966-2-1) a picture is taken for a normal distribution. The
distance of two pictures is that of their distributions: sqrt of the sum over L*, a*, b* of (mean - mean)² + (spread -
spread)², which is the 2-Wasserstein distance, in units of ΔE. Drawing together means moving mean and spread
(Reinhard et al. 2001, Color Transfer between Images), which is one affine map of each channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  #: [h, w, 3], sRGB
_Lab = NDArray[np.float32]  # [h, w, 3]: L* 0 to 100, a* and b* about -110 to 110

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
    dtype=np.float32,
)
_WHITE = _TO_XYZ.sum(axis=1)  # D65, as the matrix has it, so that grey is grey
_FROM_XYZ = np.linalg.inv(_TO_XYZ)
_E, _K = 216 / 24389, 24389 / 27
#: Spreads are never changed by more: a nearly even picture would otherwise become noise.
_MOST = 2.0
_FLAT = 1e-3  # a spread below this is none
_LINEAR = (
    np.where(
        np.arange(256) / 255 <= 0.04045, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
    )
).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Look:
    """Mean and spread of a picture's L*, a* and b*."""

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]

    @classmethod
    def of(cls, pixels: Pixels) -> Look:
        lab = _lab(pixels).reshape(-1, 3).astype(np.float64)
        mean, spread = lab.mean(axis=0), lab.std(axis=0)
        return cls(
            (float(mean[0]), float(mean[1]), float(mean[2])), (float(spread[0]), float(spread[1]), float(spread[2]))
        )

    def distance(self, other: Look) -> float:
        """In ΔE; 0 for pictures of the same colours, however they are arranged."""
        apart = [a - b for a, b in zip((*self.mean, *self.spread), (*other.mean, *other.spread), strict=True)]
        return float(np.sqrt(np.sum(np.square(apart))))


@dataclass(frozen=True, slots=True)
class Shift:
    """An affine map of each channel of CIELAB."""

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def between(cls, before: Look, wanted: Look, strength: float) -> Shift:
        """What brings a picture that looks like `before` to `wanted`, at `strength` 1; nothing at 0."""
        gains: list[float] = []
        offsets: list[float] = []
        for mean, spread, to_mean, to_spread in zip(
            before.mean, before.spread, wanted.mean, wanted.spread, strict=True
        ):
            full = min(_MOST, max(1 / _MOST, to_spread / spread)) if spread > _FLAT else 1.0
            gain = 1.0 + strength * (full - 1.0)
            gains.append(gain)
            offsets.append(mean + strength * (to_mean - mean) - gain * mean)
        return cls((gains[0], gains[1], gains[2]), (offsets[0], offsets[1], offsets[2]))

    @property
    def none(self) -> bool:
        return self == Shift()

    def share(self, part: float) -> Shift:
        """`part` of the way from no change, 0, to this one, 1."""
        gain = tuple(1.0 + part * (value - 1.0) for value in self.gain)
        offset = tuple(part * value for value in self.offset)
        return Shift((gain[0], gain[1], gain[2]), (offset[0], offset[1], offset[2]))

    def __call__(self, pixels: Pixels) -> Pixels:
        if self.none:
            return pixels
        lab = _lab(pixels)
        return _rgb(lab * np.array(self.gain, np.float32) + np.array(self.offset, np.float32))


def _lab(pixels: Pixels) -> _Lab:
    scaled = _LINEAR[pixels] @ _TO_XYZ.T / _WHITE
    f = np.where(scaled > _E, np.cbrt(scaled), (_K * scaled + 16) / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def _rgb(lab: _Lab) -> Pixels:
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    cubed = f**3
    linear = (np.where(cubed > _E, cubed, (116 * f - 16) / _K) * _WHITE) @ _FROM_XYZ.T
    linear = np.clip(linear, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
