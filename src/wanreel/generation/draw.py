"""draw: the spine of the picture stage. From a resolved request to pictures on disk, as typed events.

Knows nothing of jobs, queues or front ends. The caller owns the loop: closing the iterator, or an error, leaves no file.
A picture takes seconds, so nothing is saved on the way: a killed run begins anew.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from wanreel.core.cancel import CancelToken
from wanreel.core.drawing import Drawing
from wanreel.core.edit_models import EditSpec
from wanreel.core.events import Decoded, Denoised, Drawn, Event, Exported
from wanreel.core.picture_resolve import PictureResolution
from wanreel.generation.checkpoint import latents_digest
from wanreel.generation.edit import EditWork
from wanreel.generation.environment import environment_of
from wanreel.generation.ladder import Kept, descend
from wanreel.generation.picture_export import SheetTarget
from wanreel.generation.picture_work import PictureWork
from wanreel.models.held import Held
from wanreel.models.pool import ModelPool


def draw(pool: ModelPool, resolution: PictureResolution, target: SheetTarget, cancel: CancelToken) -> Iterator[Event]:
    """Runs one request, ending with Drawn. Raises ModelError, MachineError, GenerationError (Cancelled is one)."""
    began = time.monotonic()
    kind = EditWork if isinstance(resolution.spec, EditSpec) else PictureWork
    work = kind(resolution.request, target.pictures, cancel)
    last, finish = resolution, work.begin
    if resolution.refiner is not None:
        yield from descend(pool, resolution, work.begin)
        last, finish = replace(resolution, spec=resolution.refiner), work.refine

    def attempt(model: Any, kept: Kept) -> Generator[Event, None, Drawing]:
        yield from finish(model, kept)
        return (yield from _export(model, kept, work, target))

    drawing = yield from descend(pool, last, attempt)
    yield Drawn(drawing, time.monotonic() - began)


def _export(model: Held, kept: Kept, work: PictureWork, target: SheetTarget) -> Generator[Event, None, Drawing]:
    """Decodes and writes what is denoised."""
    first = work.sheets[0].latents
    kept.latents = first
    yield Denoised(latents_digest(first), work.sigmas, environment_of(model))
    kept.enter("decode")
    began, request = time.monotonic(), work.request
    with target.open(request) as sheet:
        for number, made in enumerate(work.sheets, 1):
            work.cancel.check()
            sheet.add(work.decoded(model, made.latents), number - 1)
            yield Decoded(number, request.num_images)
        waited = time.monotonic() - began
        drawing = sheet.finish()
    yield Exported(drawing, time.monotonic() - began, waited)
    return drawing
