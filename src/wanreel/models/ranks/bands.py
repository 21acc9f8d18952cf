"""Bands: a frame's rows shared out among ranks while the VAE decodes. Knows nothing of commands or of who takes frames.

Everything in the decoder but two things works on each pixel or on a column of frames by itself. A convolution over 3 × 3
pixels needs one more row above and below, which the neighbours have; attention over a frame needs the keys and values of
all rows. Both are fetched where they are needed, so each pixel is the sum of the same products as on one GPU. Kernels
may add them up in another order for another size, so bits can differ.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as functional
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanCausalConv3d
from torch import Tensor, nn

from wanreel.models.ranks.mesh import Circle, gather_into


@dataclass(frozen=True, slots=True)
class Bands:
    """The rows of latents by rank, in order; a band has at least one."""

    circle: Circle
    rows: tuple[int, ...]

    @classmethod
    def of(cls, circle: Circle, height: int) -> Bands | None:
        """`height` rows of latents in bands as equal as can be; None where there are fewer than ranks."""
        if height < circle.size or circle.size == 1:
            return None
        each, more = divmod(height, circle.size)
        return cls(circle, tuple(each + (place < more) for place in range(circle.size)))

    @property
    def own_rows(self) -> int:
        return self.rows[self.circle.place]

    def own(self, latents: Tensor) -> Tensor:
        """This rank's band of [..., h, w] latents."""
        start = sum(self.rows[: self.circle.place])
        return latents[..., start : start + self.own_rows, :].contiguous()

    def widened(self, band: Tensor) -> Tensor:
        """[..., h, w] with the row before and the row after, zeros at the frame's edges: what a convolution pads."""
        edges = torch.stack([band[..., :1, :], band[..., -1:, :]])
        all_edges = edges.new_empty(self.circle.size, *edges.shape)
        gather_into(all_edges, edges.contiguous(), self.circle.group)
        shape = (*band.shape[:-2], band.shape[-2] + 2, band.shape[-1])
        wide = torch.empty(shape, dtype=band.dtype, device=band.device, memory_format=_layout(band))
        wide[..., 1:-1, :] = band
        place, last = self.circle.place, self.circle.size - 1
        wide[..., :1, :] = all_edges[place - 1, 1] if place > 0 else 0
        wide[..., -1:, :] = all_edges[place + 1, 0] if place < last else 0
        return wide

    def whole(self, band: Tensor, dim: int) -> Tensor:
        """Every rank's band, joined along `dim`; its rows are some multiple of those of the latents."""
        scale = band.shape[dim] // self.own_rows
        tallest = max(self.rows) * scale
        sent = band.movedim(dim, 0)
        if sent.shape[0] < tallest:
            sent = torch.cat([sent, sent.new_zeros(tallest - sent.shape[0], *sent.shape[1:])])
        parts = sent.new_empty(self.circle.size, *sent.shape)
        gather_into(parts, sent.contiguous(), self.circle.group)
        joined = torch.cat([part[: rows * scale] for part, rows in zip(parts, self.rows, strict=True)])
        return joined.movedim(0, dim)

    def agreed(self, sound: Tensor) -> Tensor:
        """Whether all ranks found it so."""
        flag = sound.to(torch.float32)
        dist.all_reduce(flag, dist.ReduceOp.MIN, group=self.circle.group)
        return flag > 0


def _layout(tensor: Tensor) -> torch.memory_format:
    if tensor.ndim == 5 and tensor.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


@contextlib.contextmanager
def in_bands(decoder: nn.Module, bands: Bands) -> Generator[None]:
    """While Diffusers' decoder works on this rank's band and its convolutions and attentions fetch what they need."""
    changed: list[Any] = []
    for part in decoder.modules():
        forward = _forward_of(part, bands)
        if forward is not None:
            part.forward = forward
            changed.append(part)
    try:
        yield
    finally:
        for part in changed:
            del part.forward


def _forward_of(part: nn.Module, bands: Bands) -> Callable[..., Tensor] | None:
    if isinstance(part, WanCausalConv3d):
        return _causal(part, bands) if part.kernel_size[1] > 1 else None
    if isinstance(part, nn.Conv2d):
        return _flat(part, bands) if part.kernel_size[0] > 1 else None
    return _attention(part, bands) if isinstance(part, WanAttentionBlock) else None


def _causal(conv: Any, bands: Bands) -> Callable[..., Tensor]:
    def forward(x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        left, right, _, _, before, after = conv._padding
        if cache_x is not None and before > 0:
            x = torch.cat([cache_x.to(x.device), x], dim=2)
            before -= cache_x.shape[2]
        return nn.Conv3d.forward(conv, functional.pad(bands.widened(x), (left, right, 0, 0, before, after)))

    return forward


def _flat(conv: Any, bands: Bands) -> Callable[..., Tensor]:
    def forward(x: Tensor) -> Tensor:
        return functional.conv2d(bands.widened(x), conv.weight, conv.bias, conv.stride, (0, conv.padding[1]))

    return forward


def _attention(block: Any, bands: Bands) -> Callable[..., Tensor]:
    """The arithmetic of Diffusers' `WanAttentionBlock` with the keys and values of all bands."""

    def forward(x: Tensor) -> Tensor:
        batch, channels, time, height, width = x.shape
        flat = block.norm(x.permute(0, 2, 1, 3, 4).reshape(batch * time, channels, height, width))
        mixed = block.to_qkv(flat)
        others = bands.whole(mixed[:, channels:], 2)
        query, key, value = (
            it.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
            for it in (mixed[:, :channels], others[:, :channels], others[:, channels:])
        )
        out = functional.scaled_dot_product_attention(query, key, value)
        out = block.proj(out.squeeze(1).transpose(1, 2).reshape(batch * time, channels, height, width))
        return out.view(batch, time, channels, height, width).permute(0, 2, 1, 3, 4) + x

    return forward
