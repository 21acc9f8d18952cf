"""draw: the spine of the picture stage. From a resolved request to pictures on disk, as typed events.

Knows nothing of jobs, queues or front ends. The caller owns the loop: closing the iterator, or an error, leaves no file.
A picture takes seconds, so nothing is saved on the way: a killed run begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.drawing import Drawing
from wanreel.core.errors import GenerationError
from wanreel.core.events import Decoded, Denoised, Drawn, Encoded, Event, Exported, StepCompleted
from wanreel.core.picture_request import PictureResolution, ResolvedPicture
from wanreel.generation.checkpoint import latents_digest
from wanreel.generation.environment import environment_of
from wanreel.generation.ladder import Kept, descend
from wanreel.generation.picture_conditioning import PictureConditioning, condition, decoded, picture_latents, pixels
from wanreel.generation.picture_export import SheetTarget
from wanreel.generation.picture_steps import (
    Course,
    course,
    course_after,
    course_from_picture,
    noise,
    noised,
    picture_steps,
)
from wanreel.media.pictures import open_picture
from wanreel.models.picture_model import PictureModel
from wanreel.models.pool import ModelPool
from wanreel.storage.disk import Blobs


def draw(pool: ModelPool, resolution: PictureResolution, target: SheetTarget, cancel: CancelToken) -> Iterator[Event]:
    """Runs one request, ending with Drawn. Raises ModelError, MachineError, GenerationError (Cancelled is one)."""
    began, work = time.monotonic(), _Work(resolution.request, target.pictures, cancel)
    last, finish = resolution, work.begin
    if resolution.refiner is not None:
        yield from descend(pool, resolution, work.begin)
        last, finish = replace(resolution, spec=resolution.refiner), work.refine

    def attempt(model: PictureModel, kept: Kept) -> Generator[Event, None, Drawing]:
        yield from finish(model, kept)
        return (yield from _export(model, kept, work, target))

    drawing = yield from descend(pool, last, attempt)
    yield Drawn(drawing, time.monotonic() - began)


def _export(model: PictureModel, kept: Kept, work: _Work, target: SheetTarget) -> Generator[Event, None, Drawing]:
    """Decodes and writes what is denoised."""
    first = work.sheets[0].latents
    kept.latents = first
    yield Denoised(latents_digest(first), work.sigmas, environment_of(model))
    kept.enter("decode")
    began, request = time.monotonic(), work.request
    with target.open(request) as sheet:
        for number, made in enumerate(work.sheets, 1):
            work.cancel.check()
            sheet.add(decoded(model, made.latents), number - 1)
            yield Decoded(number, request.num_images)
        waited = time.monotonic() - began
        drawing = sheet.finish()
    yield Exported(drawing, time.monotonic() - began, waited)
    return drawing


@dataclass(slots=True)
class _Latents:
    """One picture on its way."""

    latents: Tensor
    generator: torch.Generator  #: its random numbers, which a second pass goes on with


@dataclass
class _Work:
    """One request on its way to finished latents. What is made already is not made again when a plan is changed."""

    request: ResolvedPicture
    pictures: Blobs
    cancel: CancelToken
    sheets: list[_Latents] = field(default_factory=list[_Latents])
    refined: int = 0  #: how many of them went through the second pass
    sigmas: tuple[float, ...] = ()
    _done: int = 0  # steps of all pictures through all models
    _seconds: list[float] = field(default_factory=list[float])  # of the steps so far

    def begin(self, model: PictureModel, kept: Kept) -> Generator[Event, None, None]:
        """From noise, or from the picture given."""
        request = self.request
        conditioning = yield from self._condition(model)
        kept.enter("denoise")
        for number in range(len(self.sheets), request.num_images):
            generator = torch.Generator().manual_seed(request.seed + number)
            steps, latents = self._start(model, generator)
            latents = yield from self._pass(model, steps, conditioning, latents, generator, len(self.sheets))
            self.sheets.append(_Latents(latents, generator))
            self.sigmas = self.sigmas or steps.sigmas

    def _start(self, model: PictureModel, generator: torch.Generator) -> tuple[Course, Tensor]:
        request, size = self.request, (self.request.width, self.request.height)
        if request.image is None:
            steps = course(model, request.solver, request.num_inference_steps, until=request.high_noise_frac)
            return steps, noise(model, size, generator) * steps.scheduler.init_noise_sigma
        steps = course_from_picture(model, request.solver, request.num_inference_steps, request.strength)
        found = picture_latents(model, pixels(self._picture(), *size), generator)
        return steps, noised(steps, found, noise(model, size, generator))

    def _picture(self) -> Image.Image:
        if self.request.image is None:
            raise GenerationError("There is no picture to begin with.")
        return open_picture(self.pictures.open(self.request.image.sha256))

    def refine(self, model: PictureModel, kept: Kept) -> Generator[Event, None, None]:
        """The second pass, through the refiner."""
        request = self.request
        conditioning = yield from self._condition(model)
        kept.enter("denoise")
        for number, sheet in enumerate(self.sheets[self.refined :], self.refined):
            latents, generator = sheet.latents.to(model.device, model.dtype), torch.Generator()
            generator.set_state(sheet.generator.get_state())
            steps = self._second(model)
            if request.high_noise_frac is None:
                latents = noised(steps, latents, noise(model, (request.width, request.height), generator))
            latents = yield from self._pass(model, steps, conditioning, latents, generator, number)
            self.sheets[number] = _Latents(latents, generator)
            self.refined += 1

    def _second(self, model: PictureModel) -> Course:
        request = self.request
        if request.high_noise_frac is not None:
            return course_after(model, request.solver, request.refiner_inference_steps, request.high_noise_frac)
        return course_from_picture(model, request.solver, request.refiner_inference_steps, request.strength)

    def _condition(self, model: PictureModel) -> Generator[Event, None, PictureConditioning]:
        began = time.monotonic()
        conditioning = condition(model, self.request, self.cancel)
        yield Encoded(time.monotonic() - began, conditioning.notes)
        return conditioning

    def _pass(
        self,
        model: PictureModel,
        steps: Course,
        conditioning: PictureConditioning,
        latents: Tensor,
        generator: torch.Generator,
        before: int,
    ) -> Generator[Event, None, Tensor]:
        """One picture through one model; `before`: pictures that came before it."""
        ahead = self.request.second_steps if len(self.sheets) == before else 0
        total = self._done + len(steps) * (self.request.num_images - before) + self.request.num_images * ahead
        running = picture_steps(
            model, steps, conditioning, latents, self.request.guidance_scale, generator, self.cancel
        )
        mark = time.monotonic()
        for found in running:
            latents, now = found, time.monotonic()
            self._seconds.append(now - mark)
            mark, self._done = now, self._done + 1
            eta = (total - self._done) * sum(self._seconds) / len(self._seconds)
            yield StepCompleted(self._done, total, self._seconds[-1], eta)
        return latents
