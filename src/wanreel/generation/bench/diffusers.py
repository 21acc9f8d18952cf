"""Diffusers' own modules on the same weights and inputs, in the same process: what ratios are taken to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning
from wanreel.generation.decode import denormalised
from wanreel.models.clock import timed
from wanreel.models.wan_model import WanModel

_TIMESTEP = 900.0


@dataclass(frozen=True, slots=True)
class Reference:
    """Seconds, and on a GPU the peak in GiB, of Diffusers' parts."""

    step: tuple[float, float | None]
    decode: tuple[float, float | None]
    encode: tuple[float, float | None] | None  #: of the picture's clip; None without one


@torch.no_grad()
def reference(model: WanModel, conditioning: Conditioning, latents: Tensor, request: ResolvedRequest) -> Reference:
    """Measure them as the pipelines call them: the transformer once for each prompt, VAE in its own dtype.

    Everything must be on the device (the placement "resident").
    """
    device, vae = model.device, model.vae
    inputs = _inputs(model, conditioning, latents)
    transformer = model.experts[0].transformer

    def step() -> list[Tensor]:
        return [transformer(**given, return_dict=False)[0] for given in inputs]

    step()
    stepped = timed(device, step, 3)
    given = denormalised(vae, latents)
    decoded = timed(device, lambda: vae.decode(given, return_dict=False)[0])
    encoded = None
    if conditioning.channels is not None:
        video = torch.zeros(1, 3, request.num_frames, request.height, request.width, device=device, dtype=vae.dtype)
        video[:, :, 0].uniform_(-1, 1)
        encoded = timed(device, lambda: vae.encode(video, return_dict=False)[0].mode())
    return Reference(
        (stepped.seconds, stepped.peak_gib),
        (decoded.seconds, decoded.peak_gib),
        None if encoded is None else (encoded.seconds, encoded.peak_gib),
    )


def _inputs(model: WanModel, conditioning: Conditioning, latents: Tensor) -> list[dict[str, Any]]:
    """Of the forwards of one step."""
    given = conditioning.apply(latents).to(model.dtype)
    times = torch.full((1,), _TIMESTEP, device=model.device)
    if model.expand_timesteps:
        times = conditioning.token_timesteps(_TIMESTEP, model.device)
    texts = [conditioning.text] if conditioning.negative is None else [conditioning.text, conditioning.negative]
    return [
        {
            "hidden_states": given,
            "timestep": times,
            "encoder_hidden_states": text.to(model.dtype),
            "encoder_hidden_states_image": None if conditioning.clip is None else conditioning.clip.to(model.dtype),
        }
        for text in texts
    ]
