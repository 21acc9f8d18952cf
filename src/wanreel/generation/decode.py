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
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from numpy.typing import NDArray
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.placement import Tile
from wanreel.generation.encode import latent_statistics
from wanreel.generation.tiles import blend, windows
from wanreel.models.wan_model import WanModel

Frames = NDArray[np.uint8]  #: [n, h, w, 3], RGB


def decode(model: WanModel, latents: Tensor, cancel: CancelToken | None = None) -> Iterator[Frames]:
    """Frames of normalised latents [1, c, f, h, w]: one, then `temporal_stride` for each further latent frame.

    Raises Cancelled between chunks. Where the model's placement says tiles, these are blended over the whole length in
    host memory, so frames come only when all are done, and are cut into the same chunks.
    """
    cancel = cancel or CancelToken()
    tile = model.placement.tile
    with model.resident("vae") as vae:
        cancel.check()
        chunks = _decode_streamed(vae, latents) if tile is None else _decode_tiled(vae, latents, tile, cancel)
        for chunk in chunks:
            yield _to_frames(chunk)
            cancel.check()


def _decode_streamed(vae: Any, latents: Tensor) -> Iterator[Tensor]:
    """[1, 3, n, h, w] in -1 to 1 for each latent frame."""
    hidden = _enter(vae, latents)
    memory: list[Any] = [None] * vae._cached_conv_counts["decoder"]
    for index in range(hidden.shape[2]):
        yield _decode_one(vae, hidden[:, :, index : index + 1], memory, first=index == 0)


@torch.no_grad()
def _enter(vae: Any, latents: Tensor) -> Tensor:
    return vae.post_quant_conv(_denormalised(vae, latents))


@torch.no_grad()
def _decode_one(vae: Any, hidden: Tensor, memory: list[Any], *, first: bool) -> Tensor:
    pixels = vae.decoder(hidden, feat_cache=memory, feat_idx=[0], first_chunk=first)
    if vae.config.patch_size is not None:
        pixels = unpatchify(pixels, patch_size=vae.config.patch_size)
    return pixels.clamp(-1.0, 1.0)


def _decode_tiled(vae: Any, latents: Tensor, tile: Tile, cancel: CancelToken) -> Iterator[Tensor]:
    """The same from the host's memory, window by window."""
    space, time = vae.config.scale_factor_spatial, vae.config.scale_factor_temporal
    frames, height, width = latents.shape[2], space * latents.shape[3], space * latents.shape[4]
    canvas = torch.zeros(1, 3, 1 + time * (frames - 1), height, width)
    for window in windows(tile, height, width, space):
        done = 0
        for part in _decode_streamed(vae, window.scaled(1, space).cut(latents)):
            cancel.check()
            blend(canvas[:, :, done : done + part.shape[2]], part, window)
            done += part.shape[2]
    yield canvas[:, :, :1]
    yield from canvas[:, :, 1:].split(time, dim=2)


def _denormalised(vae: Any, latents: Tensor) -> Tensor:
    latents = latents.to(vae.device, vae.dtype)
    mean, inverse_std = latent_statistics(vae, latents)
    return latents / inverse_std + mean


def _to_frames(pixels: Tensor) -> Frames:
    """As Diffusers' VideoProcessor: to 0 … 1 in the VAE's dtype, then fp32, then rounded half to even."""
    unit = (pixels[0] * 0.5 + 0.5).clamp(0, 1).float()
    return (unit * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()
