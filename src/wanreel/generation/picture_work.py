"""PictureWork: one request for pictures on its way to finished latents. Knows no files but the picture given."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import GenerationError
from wanreel.core.events import Encoded, Event, StepCompleted
from wanreel.core.picture_request import ResolvedPicture
from wanreel.generation.ladder import Kept
from wanreel.generation.picture_conditioning import PictureConditioning, condition, decoded, picture_latents, pixels
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
from wanreel.storage.disk import Blobs


@dataclass(slots=True)
class Latents:
    """One picture on its way."""

    latents: Tensor
    generator: torch.Generator  #: its random numbers, which a second pass goes on with


@dataclass
class PictureWork:
    """One request on its way to finished latents. What is made already is not made again when a plan is changed."""

    request: ResolvedPicture
    pictures: Blobs
    cancel: CancelToken
    sheets: list[Latents] = field(default_factory=list[Latents])
    refined: int = 0  #: how many of them went through the second pass
    sigmas: tuple[float, ...] = ()
    _done: int = 0  # steps of all pictures through all models
    _seconds: list[float] = field(default_factory=list[float])  # of the steps so far

    def begin(self, model: Any, kept: Kept) -> Generator[Event, None, None]:
        """From noise, or from the picture given."""
        request = self.request
        conditioning = yield from self._condition(model)
        kept.enter("denoise")
        for number in range(len(self.sheets), request.num_images):
            generator = torch.Generator().manual_seed(request.seed + number)
            steps, latents = self._start(model, generator)
            running = picture_steps(model, steps, conditioning, latents, request.guidance_scale, generator, self.cancel)
            latents = yield from self._timed(running, len(steps))
            self.sheets.append(Latents(latents, generator))
            self.sigmas = self.sigmas or steps.sigmas

    def _start(self, model: PictureModel, generator: torch.Generator) -> tuple[Course, Tensor]:
        request, size = self.request, (self.request.width, self.request.height)
        if request.image is None:
            steps = course(model, request.solver, request.num_inference_steps, until=request.high_noise_frac)
            return steps, noise(model, size, generator) * steps.scheduler.init_noise_sigma
        steps = course_from_picture(model, request.solver, request.num_inference_steps, request.strength)
        found = picture_latents(model, pixels(self.picture(), *size), generator)
        return steps, noised(steps, found, noise(model, size, generator))

    def decoded(self, model: Any, latents: Tensor) -> NDArray[np.uint8]:
        """Finished latents as a picture [h, w, 3]."""
        return decoded(model, latents)

    def picture(self) -> Image.Image:
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
            running = picture_steps(model, steps, conditioning, latents, request.guidance_scale, generator, self.cancel)
            latents = yield from self._timed(running, len(steps), number)
            self.sheets[number] = Latents(latents, generator)
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

    def _timed(
        self, running: Iterator[Tensor], steps: int, before: int | None = None
    ) -> Generator[Event, None, Tensor]:
        """One picture through one model, each of its `steps` told of; `before`: how many went through it before."""
        count = self.request.num_images
        first = before is None
        ahead = self.request.second_steps if first else 0
        total = self._done + steps * (count - (len(self.sheets) if before is None else before)) + count * ahead
        mark, latents = time.monotonic(), None
        for found in running:
            latents, now = found, time.monotonic()
            self._seconds.append(now - mark)
            mark, self._done = now, self._done + 1
            eta = (total - self._done) * sum(self._seconds) / len(self._seconds)
            yield StepCompleted(self._done, total, self._seconds[-1], eta)
        if latents is None:
            raise GenerationError("There was nothing to denoise.")
        return latents
