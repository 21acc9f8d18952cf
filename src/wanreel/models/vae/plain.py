"""Decoding with Diffusers' own modules, latent frame by latent frame: equal to the bit to decoding all at once.

The memory of convolution inputs is the VAE's own (diffusers 0.42.1, models/autoencoders/autoencoder_kl_wan.py, `_decode`).
Knows nothing of tiles, latents' statistics or files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from torch import Tensor

from wanreel.models.ranks.bands import Bands, in_bands


@dataclass
class PlainDecoder:
    """Decodes latents [1, c, f, h, w], not normalised."""

    vae: Any  #: AutoencoderKLWan, on the device
    bands: Bands | None = None  #: set: the latents are this rank's rows of them

    def chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """[1, 3, n, h, w] in -1 to 1 for each latent frame."""
        hidden = self._entered(latents)
        memory: list[Any] = [None] * self.vae._cached_conv_counts["decoder"]
        for index in range(hidden.shape[2]):
            yield self._decoded(hidden[:, :, index : index + 1], memory, first=index == 0)

    @torch.no_grad()
    def _entered(self, latents: Tensor) -> Tensor:
        return self.vae.post_quant_conv(latents)

    @torch.no_grad()
    def _decoded(self, hidden: Tensor, memory: list[Any], *, first: bool) -> Tensor:
        vae = self.vae
        with contextlib.nullcontext() if self.bands is None else in_bands(vae.decoder, self.bands):
            pixels = vae.decoder(hidden, feat_cache=memory, feat_idx=[0], first_chunk=first)
        if vae.config.patch_size is not None:
            pixels = unpatchify(pixels, patch_size=vae.config.patch_size)
        return pixels.clamp(-1.0, 1.0)


def frames_of(pixels: Tensor) -> Tensor:
    """uint8 [n, h, w, 3] of pixels [1, 3, n, h, w] about -1 to 1, in fp32 and rounded half to even."""
    unit = (pixels[0].float() * 0.5 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()
