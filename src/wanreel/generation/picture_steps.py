"""picture_steps: from noise or a picture's latents to finished ones, as a generator of steps. Knows no files.

The schedule is a Diffusers scheduler's, so that a seed gives what Diffusers' own pipeline gives.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import NumericalFault
from wanreel.core.picture_models import PictureSolver
from wanreel.generation.picture_conditioning import PictureConditioning
from wanreel.models.picture_model import PictureModel

#: Module and class.
_SCHEDULERS: Mapping[PictureSolver, tuple[str, str]] = {
    "euler": ("diffusers.schedulers.scheduling_euler_discrete", "EulerDiscreteScheduler"),
    "euler-a": ("diffusers.schedulers.scheduling_euler_ancestral_discrete", "EulerAncestralDiscreteScheduler"),
    "ddim": ("diffusers.schedulers.scheduling_ddim", "DDIMScheduler"),
    "pndm": ("diffusers.schedulers.scheduling_pndm", "PNDMScheduler"),
    "lms": ("wanreel.generation.multistep", "LinearMultistep"),
    "dpm++": ("diffusers.schedulers.scheduling_dpmsolver_multistep", "DPMSolverMultistepScheduler"),
    "dpm++-single": ("diffusers.schedulers.scheduling_dpmsolver_singlestep", "DPMSolverSinglestepScheduler"),
}


def make_scheduler(solver: PictureSolver, config: Mapping[str, Any]) -> Any:
    """The solver with the model's noise levels."""
    module, name = _SCHEDULERS[solver]
    return getattr(importlib.import_module(module), name).from_config(dict(config))


@dataclass(frozen=True, slots=True)
class Course:
    """The steps of one pass through one model."""

    scheduler: Any
    timesteps: Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels passed through, the last one 0, where the solver knows them; else its timesteps."""
        known = getattr(self.scheduler, "sigmas", None)
        levels = self.timesteps if known is None else known[-len(self.timesteps) - 1 :]
        return tuple(float(level) for level in levels)


def course(model: PictureModel, solver: PictureSolver, steps: int, *, until: float | None = None) -> Course:
    """All steps from noise; `until`: only those for the first so much of the noise."""
    scheduler = make_scheduler(solver, model.scheduler_config)
    scheduler.set_timesteps(steps, device=model.device)
    timesteps = scheduler.timesteps
    if until is not None:
        timesteps = timesteps[timesteps >= _cut(scheduler, until)]
    _begin(scheduler, 0)
    return Course(scheduler, timesteps)


def course_from_picture(model: PictureModel, solver: PictureSolver, steps: int, strength: float) -> Course:
    """The last `strength` of the steps, at least one."""
    scheduler = make_scheduler(solver, model.scheduler_config)
    scheduler.set_timesteps(steps, device=model.device)
    left = min(max(1, int(steps * strength)), steps)
    start = (steps - left) * scheduler.order
    _begin(scheduler, start)
    return Course(scheduler, scheduler.timesteps[start:])


def course_after(model: PictureModel, solver: PictureSolver, steps: int, share: float) -> Course:
    """Those for what is left when `share` of the noise is gone."""
    scheduler = make_scheduler(solver, model.scheduler_config)
    scheduler.set_timesteps(steps, device=model.device)
    timesteps = scheduler.timesteps
    start = len(timesteps) - int((timesteps < _cut(scheduler, share)).sum())
    _begin(scheduler, start)
    return Course(scheduler, timesteps[start:])


def _cut(scheduler: Any, share: float) -> int:
    trained = scheduler.config.num_train_timesteps
    return round(trained - share * trained)


def _begin(scheduler: Any, index: int) -> None:
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def noise(model: PictureModel, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """[1, 4, height/8, width/8], drawn on the CPU so that a seed means the same on any device; `size` in px."""
    stride = model.spec.spatial_stride
    shape = (1, model.spec.latent_channels, size[1] // stride, size[0] // stride)
    return torch.randn(shape, generator=generator).to(model.device, model.dtype)


def noised(course: Course, latents: Tensor, noise: Tensor) -> Tensor:
    """A picture's latents with as much noise as the first step expects."""
    return course.scheduler.add_noise(latents, noise, course.timesteps[:1])


def picture_steps(  # noqa: PLR0913 - what one pass depends on
    model: PictureModel,
    course: Course,
    conditioning: PictureConditioning,
    latents: Tensor,
    guidance: float,
    generator: torch.Generator,
    cancel: CancelToken,
) -> Iterator[Tensor]:
    """The latents after each step. Raises Cancelled between steps, NumericalFault where numbers leave their range."""
    scheduler = course.scheduler
    more = {"generator": generator} if "generator" in _arguments(scheduler) else {}
    added = {"text_embeds": conditioning.pooled, "time_ids": conditioning.sizes}

    @torch.no_grad()
    def step(unet: Any, timestep: Tensor, latents: Tensor) -> Tensor:
        seen = torch.cat([latents] * 2) if conditioning.guided else latents
        seen = scheduler.scale_model_input(seen, timestep)
        found = unet(seen, timestep, conditioning.text, added_cond_kwargs=added, return_dict=False)[0]
        if conditioning.guided:
            avoided, wanted = found.chunk(2)
            found = avoided + guidance * (wanted - avoided)
        return scheduler.step(found, timestep, latents, **more, return_dict=False)[0]

    with model.resident("unet") as unet:
        for timestep in course.timesteps:
            cancel.check()
            latents = step(unet, timestep, latents)
            yield latents
    if not torch.isfinite(latents).all():
        raise NumericalFault("The picture's latents hold NaN or infinity.")


def _arguments(scheduler: Any) -> tuple[str, ...]:
    code = scheduler.step.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
