"""What the VAE computes, in operations. Pure arithmetic; knows no machine.

Counted with torch's FlopCounterMode over Diffusers' modules on the meta device; a test counts again at another size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wanreel.core.catalog import ModelSpec


@dataclass(frozen=True, slots=True)
class VaeOperations:
    """Operations (a multiply-add counts two) for each pixel of a frame, and the width of the one attention."""

    first: int  #: of the first latent frame, which is one frame
    later: int  #: of each further one, which is four
    dim: int  #: of the attention, over the latent pixels of each latent frame (2 x 2 of them in Wan 2.2)

    def of(self, width: int, height: int, latent_frames: int, stride: int) -> float:
        """`stride`: pixels that a place of the attention is wide and high."""
        places = (width // stride) * (height // stride)
        convolutions = width * height * (self.first + (latent_frames - 1) * self.later)
        return float(convolutions + latent_frames * 4 * places**2 * self.dim)


#: By latent channels: Wan 2.1's VAE (also in the A14B models) and Wan 2.2's.
_DECODE: Mapping[int, VaeOperations] = {
    16: VaeOperations(10748168, 33779528, 384),
    48: VaeOperations(22776466, 73576594, 1024),
}
_ENCODE: Mapping[int, VaeOperations] = {
    16: VaeOperations(6656864, 20011424, 384),
    48: VaeOperations(4643752, 13963112, 640),
}


def decode_operations(spec: ModelSpec, width: int, height: int, frames: int) -> float:
    """Of decoding a clip with the released VAE of `spec`'s kind. Raises KeyError for another kind."""
    return _DECODE[spec.latent_channels].of(width, height, spec.latent_frames(frames), spec.spatial_stride)


def encode_operations(spec: ModelSpec, width: int, height: int, frames: int) -> float:
    """The same of encoding all of it; a clip of one picture takes less (models/vae/steady.py)."""
    return _ENCODE[spec.latent_channels].of(width, height, spec.latent_frames(frames), spec.spatial_stride)
