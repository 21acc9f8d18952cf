"""decode: latents to frames, a few at a time. Knows nothing of video files, sizes asked for or how latents were made.

The VAE is causal in time, so latent frames go through its decoder one by one with its own memory of convolution inputs
(diffusers 0.42.1, models/autoencoders/autoencoder_kl_wan.py, `_decode`): equal to the bit to decoding all at once, in a
fraction of the memory, and the first frames are there at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.placement import Tile
from wanreel.generation.encode import is_lean, latent_statistics
from wanreel.generation.tiles import blend, windows
from wanreel.models.ranks.leading import SharedDecoder
from wanreel.models.vae.guarded import Finish, GuardedDecoder
from wanreel.models.vae.plain import PlainDecoder, frames_of
from wanreel.models.wan_model import WanModel

Frames = NDArray[np.uint8]  #: [n, h, w, 3], RGB


class Decoding:
    """Frames of normalised latents [1, c, f, h, w], to be iterated once: one, then `temporal_stride` for each further
    latent frame.

    `lean`, by default as the model's placement has it, is fp16, and fp32 from where fp16's range ends (models/vae); without it
    every bit is Diffusers'.
    Raises Cancelled between chunks. Where the model's placement says tiles, these are blended over the whole length in
    host memory, so frames come only when all are done, and are cut into the same chunks.
    """

    def __init__(
        self, model: WanModel, latents: Tensor, cancel: CancelToken | None = None, *, lean: bool | None = None
    ) -> None:
        self._model = model
        self._latents = latents
        self._cancel = cancel or CancelToken()
        self._lean = is_lean(model) if lean is None else lean
        self.notes: tuple[str, ...] = ()  #: what the user should know, once all frames are there

    def __iter__(self) -> Iterator[Frames]:
        tile = self._model.placement.tile
        with self._model.resident("vae") as vae:
            self._cancel.check()
            bands = None if self._model.lead is None or tile is not None else self._model.lead.bands(self._latents)
            if bands is not None and self._model.lead is not None:
                chunks = self._shared(self._model.lead.decoder(vae, bands, lean=self._lean), vae)
            elif tile is not None:
                chunks = map(_to_frames, self._tiled(vae, tile))
            elif self._lean:
                chunks = self._guarded(vae, self._latents, frames_of)
            else:
                chunks = map(_to_frames, _decode_streamed(vae, self._latents))
            for chunk in chunks:
                yield chunk if isinstance(chunk, np.ndarray) else chunk.numpy()
                self._cancel.check()

    @torch.no_grad()
    def _guarded(self, vae: Any, latents: Tensor, finish: Finish) -> Iterator[Tensor]:
        decoder = GuardedDecoder(vae, finish)
        yield from decoder.chunks(denormalised(vae, latents))
        self._tell(decoder.overflowed)

    @torch.no_grad()
    def _shared(self, led: SharedDecoder, vae: Any) -> Iterator[Tensor]:
        """Frames that all ranks decode, a band of rows each."""
        yield from led.chunks(denormalised(vae, self._latents))
        self._tell(led.overflowed)

    def _tiled(self, vae: Any, tile: Tile) -> Iterator[Tensor]:
        """[1, 3, n, h, w] from the host's memory, window by window."""
        latents = self._latents
        space, time = vae.config.scale_factor_spatial, vae.config.scale_factor_temporal
        frames, height, width = latents.shape[2], space * latents.shape[3], space * latents.shape[4]
        canvas = torch.zeros(1, 3, 1 + time * (frames - 1), height, width)
        for window in windows(tile, height, width, space):
            done, part = 0, window.scaled(1, space).cut(latents)
            for pixels in self._guarded(vae, part, _clamped) if self._lean else _decode_streamed(vae, part):
                self._cancel.check()
                blend(canvas[:, :, done : done + pixels.shape[2]], pixels, window)
                done += pixels.shape[2]
        yield canvas[:, :, :1]
        yield from canvas[:, :, 1:].split(time, dim=2)

    def _tell(self, overflowed: int | None) -> None:
        text = f"vae: latent frame {overflowed} is beyond fp16; it and the rest were decoded in fp32"
        if overflowed is not None and text not in self.notes:
            self.notes += (text,)


def decode(
    model: WanModel, latents: Tensor, cancel: CancelToken | None = None, *, lean: bool | None = None
) -> Iterator[Frames]:
    """The frames of `Decoding`, for whoever needs no notes."""
    return iter(Decoding(model, latents, cancel, lean=lean))


def _decode_streamed(vae: Any, latents: Tensor) -> Iterator[Tensor]:
    """[1, 3, n, h, w] in -1 to 1 for each latent frame."""
    return PlainDecoder(vae).chunks(denormalised(vae, latents))


def denormalised(vae: Any, latents: Tensor) -> Tensor:
    latents = latents.to(vae.device, vae.dtype)
    mean, inverse_std = latent_statistics(vae, latents)
    return latents / inverse_std + mean


def _clamped(pixels: Tensor) -> Tensor:
    return pixels.clamp(-1.0, 1.0).float()


def _to_frames(pixels: Tensor) -> Frames:
    """As Diffusers' VideoProcessor: to 0 … 1 in the VAE's dtype, then fp32, then rounded half to even."""
    unit = (pixels[0] * 0.5 + 0.5).clamp(0, 1).float()
    return (unit * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()
