"""EditWork: a picture and an instruction on their way to the latents of another picture. Knows no files but that picture.

The schedule, the guidance and the numbers are those of Diffusers' QwenImageEditPipeline and QwenImageEditPlusPipeline
(diffusers 0.42.1, pipelines/qwenimage), so that a seed gives what they give.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from numpy.typing import NDArray
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import NumericalFault
from wanreel.core.events import Encoded, Event
from wanreel.generation.edit_conditioning import (
    EditConditioning,
    Sides,
    edit_conditioning,
    packed,
    packed_noise,
    unpacked,
)
from wanreel.generation.ladder import Kept
from wanreel.generation.picture_work import Latents, PictureWork
from wanreel.models.edit_model import EditModel


class EditWork(PictureWork):
    """One edit, or several of one picture with a seed each."""

    def begin(self, model: Any, kept: Kept) -> Generator[Event, None, None]:
        """From noise, steered by instruction and picture."""
        request, began = self.request, time.monotonic()
        conditioning = edit_conditioning(model, request, self.picture(), self.cancel)
        yield Encoded(time.monotonic() - began, conditioning.notes)
        kept.enter("denoise")
        for number in range(len(self.sheets), request.num_images):
            generator = torch.Generator().manual_seed(request.seed + number)
            latents = packed_noise(model, Sides(request.width, request.height), generator)
            course = edit_course(model, latents.shape[1], request.num_inference_steps)
            self.sigmas = self.sigmas or tuple(float(sigma) for sigma in course.sigmas)
            running = edit_steps(model, course, conditioning, latents, request.guidance_scale, self.cancel)
            latents = yield from self._timed(running, request.num_inference_steps)
            self.sheets.append(Latents(latents, generator))

    def decoded(self, model: Any, latents: Tensor) -> NDArray[np.uint8]:
        """Packed latents [1, tokens, channels] as a picture [h, w, 3]."""
        return edit_decoded(model, latents, Sides(self.request.width, self.request.height))


@dataclass(frozen=True, slots=True)
class EditCourse:
    """The steps of one edit."""

    scheduler: Any
    timesteps: Tensor

    @property
    def sigmas(self) -> Tensor:
        return self.scheduler.sigmas


def edit_course(model: EditModel, tokens: int, steps: int) -> EditCourse:
    """Noise levels, bent by how many tokens the picture has."""
    config: Mapping[str, Any] = model.scheduler_config
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(dict(config))
    levels = np.linspace(1.0, 1 / steps, steps)
    scheduler.set_timesteps(sigmas=levels, device=model.device, mu=tokens * slope + (low - slope * few))
    scheduler.set_begin_index(0)
    return EditCourse(scheduler, scheduler.timesteps)


def edit_steps(
    model: EditModel,
    course: EditCourse,
    conditioning: EditConditioning,
    latents: Tensor,
    guidance: float,
    cancel: CancelToken,
) -> Iterator[Tensor]:
    """The latents after each step. Raises Cancelled between steps, NumericalFault where numbers leave their range."""
    own = latents.shape[1]

    def predicted(transformer: Any, timestep: Tensor, latents: Tensor, text: Tensor) -> Tensor:
        seen = torch.cat([latents, conditioning.picture], dim=1)
        found = transformer(
            hidden_states=seen,
            timestep=timestep.expand(1).to(latents.dtype) / 1000,
            encoder_hidden_states=text,
            img_shapes=[list(conditioning.shapes)],
            return_dict=False,
        )
        return found[0][:, :own]

    @torch.no_grad()
    def step(transformer: Any, timestep: Tensor, latents: Tensor) -> Tensor:
        found = predicted(transformer, timestep, latents, conditioning.wanted)
        if conditioning.avoided is not None:
            avoided = predicted(transformer, timestep, latents, conditioning.avoided)
            guided = avoided + guidance * (found - avoided)
            length, ours = (torch.norm(it, dim=-1, keepdim=True) for it in (found, guided))
            found = guided * (length / ours)
        return course.scheduler.step(found, timestep, latents, return_dict=False)[0]

    with model.resident("transformer") as transformer:
        for timestep in course.timesteps:
            cancel.check()
            latents = step(transformer, timestep, latents)
            yield latents
    if not torch.isfinite(latents).all():
        raise NumericalFault("The picture's latents hold NaN or infinity.")


@torch.no_grad()
def edit_decoded(model: EditModel, latents: Tensor, sides: Sides) -> NDArray[np.uint8]:
    """Packed latents as a picture [h, w, 3]."""
    found = unpacked(latents.to(model.device, model.dtype), sides, model.spec.spatial_stride)
    with model.resident("vae") as vae:
        mean, spread = (_per_channel(values, found) for values in (vae.config.latents_mean, vae.config.latents_std))
        pixels = vae.decode(found / (1.0 / spread) + mean, return_dict=False)[0][0, :, 0]
    scaled = (pixels * 0.5 + 0.5).clamp(0, 1).cpu().permute(1, 2, 0).float()
    return (scaled.numpy() * 255).round().astype(np.uint8)


def _per_channel(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1).to(like.device, like.dtype)


__all__ = ["EditCourse", "EditWork", "edit_course", "edit_decoded", "edit_steps", "packed"]
