"""The tiny rows that tests run over, and inputs of the right shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wanreel.core.catalog import MODELS, ModelSpec, tiny
from wanreel.core.components import in_channels
from wanreel.models.components import two_pictures
from wanreel.models.wan_model import WanModel

ROWS: tuple[ModelSpec, ...] = tuple(tiny(spec) for spec in MODELS)
#: One row of each architecture: rows that differ in recipe or size alone are the same model when they are tiny.
TINY: tuple[ModelSpec, ...] = tuple(
    {(row.conditioning, row.clip, row.experts, row.latent_channels, row.modes): row for row in reversed(ROWS)}.values()
)


def by_name(name: str) -> ModelSpec:
    return next(spec for spec in ROWS if spec.name == f"tiny:{name}")


@dataclass(frozen=True)
class Inputs:
    """Arguments of one forward."""

    latents: Tensor
    timestep: Tensor
    text: Tensor
    image: Tensor | None


def inputs_for(model: WanModel, *, first_frame: bool = True, timestep: int = 700, batch: int = 1) -> Inputs:
    """Random inputs of 3 latent frames of 8 x 6; with `first_frame` the clean frame's tokens are at timestep 0."""
    spec, generator = model.spec, torch.Generator().manual_seed(1)
    latents = torch.randn(batch, in_channels(spec), 3, 8, 6, generator=generator)
    text = torch.randn(batch, 512, 32, generator=generator)
    image = None
    if spec.clip:
        image = torch.randn(batch * (2 if two_pictures(spec) else 1), 17, 32, generator=generator)
    steps = torch.full((batch,), timestep)
    if model.expand_timesteps:
        mask = torch.ones(3, 4, 3)
        if first_frame:
            mask[0] = 0
        steps = (mask * timestep).flatten().unsqueeze(0).expand(batch, -1)
    return Inputs(latents, steps, text, image)
