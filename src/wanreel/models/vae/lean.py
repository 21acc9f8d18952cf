"""LeanVae: the Wan VAE's forwards over Diffusers' weights, with nothing copied that need not be.

The same mathematics as `AutoencoderKLWan` (diffusers 0.42.1, models/autoencoders/autoencoder_kl_wan.py), frame by frame
with the same memory of what convolutions saw before; sums and norms are fp32 and rounded once, so bits differ. What is
saved: norms write straight into the convolution's input, which holds the frames before it; height and width are padded by
the convolution itself; biases and residuals are added where the next norm reads anyway; upsampling is
part of the convolution after it. Knows nothing of latents' statistics, tiles or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as functional
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor, nn

from wanreel.models.ranks.bands import Bands
from wanreel.models.vae.enlarge import enlarged, folded
from wanreel.models.vae.norm import Terms, normed

_BEHIND = 2  #: frames that a convolution over three frames looks back
_ALIGNED = 8  #: channels that tensor cores want a multiple of

#: Last frames that each convolution saw, [1, c, 1 or 2, h, w]. Tensors in it are never written to.
Memory = dict[nn.Module, Tensor]


@dataclass(frozen=True)
class LeanVae:
    """`vae`'s weights in `dtype` as the device likes them; made for one video, not kept."""

    vae: Any  #: AutoencoderKLWan, on the device
    dtype: torch.dtype
    bands: Bands | None = None  #: set: what is decoded are this rank's rows of the frames
    _weights: dict[nn.Module, Tensor] = field(default_factory=dict[nn.Module, Tensor], repr=False)
    _small: dict[nn.Module, Tensor] = field(default_factory=dict[nn.Module, Tensor], repr=False)

    @torch.no_grad()
    def decode(self, latents: Tensor, memory: Memory, *, first: bool) -> Tensor:
        """Pixels [1, 3, n, h, w], not clamped, of latents [1, c, f, h', w'] that follow those that made `memory`.

        The `first` call takes one latent frame and gives one frame; others give `temporal_stride` for each.
        """
        vae, decoder = self.vae, self.vae.decoder
        hidden = self._linear(vae.post_quant_conv, self._laid(latents))
        terms = self._entered(decoder.conv_in, hidden, memory)
        terms = self._middle(decoder.mid_block, terms, memory)
        for block in decoder.up_blocks:
            terms = self._up(block, terms, memory, first=first)
        pixels = self._left(decoder.norm_out, decoder.conv_out, terms, memory)
        return pixels if vae.config.patch_size is None else unpatchify(pixels, patch_size=vae.config.patch_size)

    def encoder_stages(self) -> list[Callable[[Tensor, Memory], Tensor]]:
        """The encoder as stages, each from a tensor [1, c, t, h, w] to the next one's; the last gives moments.

        Raises TypeError for an encoder with shortcuts around its stages (Wan 2.2's), which encodes one frame anyway.
        """
        encoder = self.vae.encoder
        if self.vae.config.is_residual:
            raise TypeError("an encoder with averaged shortcuts")

        def enter(given: Tensor, memory: Memory) -> Tensor:
            return self._entered(encoder.conv_in, self._laid(given), memory).total()

        def down(block: Any) -> Callable[[Tensor, Memory], Tensor]:
            run = self._residual if hasattr(block, "conv1") else self._down
            return lambda given, memory: run(block, Terms(given), memory).total()

        def leave(given: Tensor, memory: Memory) -> Tensor:
            terms = self._middle(encoder.mid_block, Terms(given), memory)
            return self._linear(self.vae.quant_conv, self._left(encoder.norm_out, encoder.conv_out, terms, memory))

        return [enter, *map(down, encoder.down_blocks), leave]

    def patched(self, pixels: Tensor) -> Tensor:
        """[1, 3, n, h, w] as the encoder takes them."""
        size = self.vae.config.patch_size
        return pixels if size is None else patchify(pixels, patch_size=size)

    # The parts of a VAE

    def _entered(self, conv: Any, given: Tensor, memory: Memory) -> Terms:
        buffer = self._buffer(conv, given, memory)
        buffer[:, : given.shape[1], _BEHIND:].copy_(given)
        return self._convolved(conv, buffer, memory)

    def _left(self, norm: Any, conv: Any, terms: Terms, memory: Memory) -> Tensor:
        return self._normed_and_convolved(norm, conv, terms, memory)[1].total()[:, : conv.out_channels]

    def _middle(self, block: Any, terms: Terms, memory: Memory) -> Terms:
        terms = self._residual(block.resnets[0], terms, memory)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            terms = self._residual(resnet, Terms(self._attended(attention, terms.total())), memory)
        return terms

    def _up(self, block: Any, terms: Terms, memory: Memory, *, first: bool) -> Terms:
        shortcut: Any = getattr(block, "avg_shortcut", None)
        given = None if shortcut is None else terms.total()
        terms = terms if given is None else Terms(given)
        for resnet in block.resnets:
            terms = self._residual(resnet, terms, memory)
        found: Any = getattr(block, "upsamplers", None)
        sampler = found[0] if found else getattr(block, "upsampler", None)
        if sampler is not None:
            terms = self._upsampled(sampler, terms.total(), memory, first=first)
        if shortcut is None or given is None:
            return terms
        return Terms(terms.value, terms.bias, self._laid(shortcut(given, first_chunk=first)))

    def _residual(self, block: Any, terms: Terms, memory: Memory) -> Terms:
        """Norm, SiLU, convolution, twice, beside a shortcut."""
        total, half = self._normed_and_convolved(block.norm1, block.conv1, terms, memory)
        plain = isinstance(block.conv_shortcut, nn.Identity)
        shortcut = total if plain else self._linear(block.conv_shortcut, total)
        _, out = self._normed_and_convolved(block.norm2, block.conv2, half, memory)
        return Terms(out.value, out.bias, shortcut)

    def _upsampled(self, sampler: Any, given: Tensor, memory: Memory, *, first: bool) -> Terms:
        if sampler.mode == "upsample3d" and not first:
            given = self._doubled(sampler.time_conv, given, memory)
        conv = sampler.resample[1]
        out = enlarged(_pictures(given), self._weight(conv, folded), self.bands)
        return Terms(_video(out), self._vector(conv))

    def _doubled(self, conv: Any, given: Tensor, memory: Memory) -> Tensor:
        """Twice as many frames: the two halves of the convolution's channels follow each other."""
        buffer = self._buffer(conv, given, memory)
        buffer[:, :, _BEHIND:].copy_(given)
        out = self._convolved(conv, buffer, memory).total()
        frames, half = out.shape[2], out.shape[1] // 2
        pairs = out.permute(0, 2, 3, 4, 1).unflatten(-1, (2, half))  # [1, t, h, w, 2, c]
        rows = pairs.permute(0, 1, 4, 2, 3, 5).reshape(1, 2 * frames, *out.shape[-2:], half)
        return rows.permute(0, 4, 1, 2, 3)

    def _down(self, sampler: Any, terms: Terms, memory: Memory) -> Terms:
        conv = sampler.resample[1]
        padded = functional.pad(_pictures(terms.total()), (0, 1, 0, 1))
        out = _video(functional.conv2d(padded, self._weight(conv), stride=conv.stride))
        terms = Terms(out, self._vector(conv))
        if sampler.mode != "downsample3d":
            return terms
        total, conv = terms.total(), sampler.time_conv
        before, memory[conv] = memory.get(conv), total[:, :, -1:].clone()
        if before is None:
            return Terms(total)
        whole = torch.cat([before, total], dim=2)
        return Terms(functional.conv3d(whole, self._weight(conv), stride=conv.stride), self._vector(conv))

    def _attended(self, block: Any, given: Tensor) -> Tensor:
        """Attention of one head over each frame's pixels."""
        rows = given.permute(0, 2, 3, 4, 1)[0]  # [t, h, w, c]
        frames, height, width, channels = rows.shape
        flat = rows.reshape(frames, height * width, channels)
        gamma = block.norm.gamma.flatten().float() * channels**0.5
        unit = (functional.normalize(flat.float(), dim=-1) * gamma).to(self.dtype)
        mixed = functional.linear(unit, self._weight(block.to_qkv).flatten(1), self._vector(block.to_qkv))
        query, key, value = mixed.unsqueeze(1).chunk(3, dim=-1)
        if self.bands is not None:
            others = mixed[..., channels:].reshape(frames, height, width, 2 * channels)
            key, value = self.bands.whole(others, 1).flatten(1, 2).unsqueeze(1).chunk(2, dim=-1)
        out = functional.scaled_dot_product_attention(query, key, value).squeeze(1)
        out = functional.linear(out, self._weight(block.proj).flatten(1), self._vector(block.proj)).add_(flat)
        return out.view(1, frames, height, width, channels).permute(0, 4, 1, 2, 3)

    # Convolutions and their memory

    def _normed_and_convolved(self, norm: Any, conv: Any, terms: Terms, memory: Memory) -> tuple[Tensor, Terms]:
        """The sum of `terms`, and the convolution of its activation."""
        buffer = self._buffer(conv, terms.value, memory)
        gamma = self._small.get(norm)
        if gamma is None:
            gamma = self._small[norm] = norm.gamma.flatten().float()
        total = normed(terms, gamma, buffer[:, :, _BEHIND:])
        return total, self._convolved(conv, buffer, memory)

    def _buffer(self, conv: Any, given: Tensor, memory: Memory) -> Tensor:
        """The convolution's input: the frames before, zeros where there were none, and room for those of `given`."""
        channels, (height, width) = self._weight(conv).shape[1], given.shape[-2:]
        shape = (1, channels, _BEHIND + given.shape[2], height, width)
        empty = torch.empty(shape, dtype=self.dtype, device=given.device, memory_format=torch.channels_last_3d)
        if channels != given.shape[1]:
            empty[:, given.shape[1] :, _BEHIND:].zero_()
        before = memory.get(conv)
        if before is None:
            empty[:, :, :_BEHIND].zero_()
        else:
            empty[:, :, :_BEHIND].copy_(before)
        return empty

    def _convolved(self, conv: Any, buffer: Tensor, memory: Memory) -> Terms:
        memory[conv] = buffer[:, :, -_BEHIND:].clone(memory_format=torch.channels_last_3d)
        width, _, height, *_ = conv._padding  # as F.pad takes it; `padding` itself is zero
        if self.bands is not None and height:
            buffer, height = self.bands.widened(buffer), 0
        out = functional.conv3d(buffer, self._weight(conv), padding=(0, height, width))
        return Terms(out, self._vector(conv))

    def _linear(self, conv: Any, given: Tensor) -> Tensor:
        """A convolution over single pixels."""
        weight = self._weight(conv)[: conv.out_channels, : conv.in_channels].flatten(1)
        out = functional.linear(given.permute(0, 2, 3, 4, 1), weight, self._vector(conv)[: conv.out_channels])
        return out.permute(0, 4, 1, 2, 3)

    def _weight(self, conv: Any, fold: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """In `dtype` and channels-last, with channels of zeros where there are fewer than tensor cores take.

        `fold` makes another weight of it before it is rounded; always the same for the same `conv`.
        """
        weight = self._weights.get(conv)
        if weight is None:
            missing = [_missing(conv.weight, side) for side in (1, 0)]
            weight = functional.pad(conv.weight, (*[0] * (2 * (conv.weight.ndim - 2)), 0, missing[0], 0, missing[1]))
            weight = (weight if fold is None else fold(weight.float())).to(self.dtype)
            form = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
            weight = self._weights[conv] = weight.contiguous(memory_format=form)
        return weight

    def _vector(self, conv: Any) -> Tensor:
        """The bias, as long as the weight's channels."""
        bias = self._small.get(conv)
        if bias is None:
            bias = self._small[conv] = functional.pad(conv.bias.to(self.dtype), (0, _missing(conv.bias, 0)))
        return bias

    def _laid(self, given: Tensor) -> Tensor:
        return given.to(self.dtype, memory_format=torch.channels_last_3d)


def _missing(weight: Tensor, side: int) -> int:
    """Channels of zeros that `side` of it is to get."""
    return -weight.shape[side] % _ALIGNED if weight.device.type == "cuda" else 0


def _pictures(video: Tensor) -> Tensor:
    """[t, c, h, w] of [1, c, t, h, w]; no copy of a channels-last one."""
    return video.permute(0, 2, 1, 3, 4).flatten(0, 1)


def _video(pictures: Tensor) -> Tensor:
    return pictures.unsqueeze(0).permute(0, 2, 1, 3, 4)
