"""Conditioning: what a generation is steered by, as tensors. Knows nothing of prompts, pictures or how it was made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wanreel.core.catalog import ModelSpec
from wanreel.core.resolved import ResolvedRequest

_TENSORS = ("text", "negative", "channels", "first_frame", "clip")
PATCH = 2  #: latent pixels a token is wide and high, in every Wan model


@dataclass(frozen=True, eq=False, slots=True)
class Conditioning:
    """The text, and the picture in the one way that the model takes it."""

    shape: tuple[int, int, int, int, int]  #: of the latents: [1, c, f, h, w]
    text: Tensor  #: [1, tokens, text_dim], zeros after the prompt's end
    negative: Tensor | None = None  #: like `text`; None when no expert is guided
    channels: Tensor | None = None  #: [1, 4 + c, f, h, w] fp32: mask and picture latents, appended to the latents
    first_frame: Tensor | None = None  #: [1, c, 1, h, w] fp32: clean latents that replace the first latent frame
    clip: Tensor | None = None  #: [pictures, tokens, image_dim]
    notes: tuple[str, ...] = ()  #: what the user should know, "the prompt was cut …"

    def apply(self, latents: Tensor) -> Tensor:
        """The transformer's input [1, c or 2c + 4, f, h, w] for latents [1, c, f, h, w]."""
        if self.channels is not None:
            return torch.cat([latents, self.channels], dim=1)
        return self.hold(latents)

    def hold(self, latents: Tensor) -> Tensor:
        """The latents with the picture in the place of the first latent frame, for models that take it so."""
        if self.first_frame is None:
            return latents
        return torch.cat([self.first_frame, latents[:, :, 1:]], dim=2)

    def token_timesteps(self, timestep: float, device: torch.device) -> Tensor:
        """[1, tokens] fp32: every token at `timestep`, those of a clean first frame at 0."""
        _, _, frames, height, width = self.shape
        row = torch.full((frames, height // PATCH, width // PATCH), timestep, dtype=torch.float32, device=device)
        if self.first_frame is not None:
            row[0] = 0.0
        return row.flatten().unsqueeze(0)

    def to(self, device: torch.device) -> Conditioning:
        """The same bits on another device."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})

    def fingerprint(self) -> str:
        """SHA-256 over every tensor's bytes: equal conditioning, equal text."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for name in _TENSORS:
            tensor: Tensor | None = getattr(self, name)
            digest.update(f"{name}:{None if tensor is None else (tensor.dtype, tuple(tensor.shape))};".encode())
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def latent_shape(spec: ModelSpec, request: ResolvedRequest) -> tuple[int, int, int, int, int]:
    """[1, c, f, h, w] of the latents that `request` makes."""
    return (
        1,
        spec.latent_channels,
        spec.latent_frames(request.num_frames),
        request.height // spec.spatial_stride,
        request.width // spec.spatial_stride,
    )


def tokens_of(spec: ModelSpec, request: ResolvedRequest) -> int:
    """How many tokens a step of `request` goes over."""
    _, _, frames, height, width = latent_shape(spec, request)
    return frames * (height // PATCH) * (width // PATCH)
