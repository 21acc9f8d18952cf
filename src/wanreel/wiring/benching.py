"""Joins what `wanreel bench` measures: a model, installed or made up, a request for it, a folder that goes afterwards."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from PIL import Image

import wanreel
from wanreel.core.bench import BenchReport, Subject
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.components import known
from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import resolve
from wanreel.core.resolved import Resolution
from wanreel.media.pictures import read_picture
from wanreel.models.shelf import is_tiny
from wanreel.storage.disk import BlobStore
from wanreel.wiring.runtime import Runtime

if TYPE_CHECKING:
    from wanreel.generation.bench.run import Bench, Listening
    from wanreel.models.pool import ModelPool

PROMPT = "A cat walks on the grass, realistic style."
STEPS = 4  #: unless asked otherwise: one that may compile, one more of each expert


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure."""

    model: str = "demo"
    random: bool = False  #: weights of the real shapes, drawn
    against: bool = False  #: Diffusers' modules beside ours
    knobs: dict[str, Any] = field(default_factory=dict[str, Any])  #: of a VideoRequest, by name; None leaves one out


def bench(runtime: Runtime, wanted: Wanted, cancel: CancelToken, say: Callable[[str], None]) -> BenchReport:
    """Measure. Raises InvalidRequest, ModelNotInstalled, and what a generation raises."""
    from wanreel.generation.bench.clock import ceiling
    from wanreel.generation.bench.machine import machine_of
    from wanreel.generation.bench.run import Bench
    from wanreel.generation.export import Target

    spec = runtime.catalog.get(wanted.model)
    if wanted.random and not known(spec):
        raise InvalidRequest.of("model", "unsupported", f"{spec.name} has no real shapes to draw weights for.")
    with TemporaryDirectory() as scratch:
        pictures = BlobStore(Path(scratch) / "pictures")
        resolution = _resolution(runtime, spec, wanted, pictures)
        pool, listening = _pool(runtime, wanted)
        target = Target(Path(scratch) / "results", pictures, loras=runtime.loras)
        run = Bench(pool, listening, resolution, target, cancel, wanted.against)
        try:
            figures = tuple(run.figures(say))
            model = pool.acquire(spec).model
            return BenchReport(
                wanreel=wanreel.__version__,
                when=datetime.now(UTC).isoformat(timespec="seconds"),
                machine=machine_of(model),
                subject=_subject(resolution, wanted, run),
                ceiling_tflops=ceiling(runtime.device, model.dtype),
                figures=figures,
                notes=tuple(dict.fromkeys((*model.notes, *run.notes))),
            )
        finally:
            pool.evict()


def _resolution(runtime: Runtime, spec: ModelSpec, wanted: Wanted, pictures: BlobStore) -> Resolution:
    """The request, with a drawn picture where the model needs one."""
    given: dict[str, Any] = {"prompt": PROMPT, "model": spec.name, "seed": 0}
    given |= {"num_inference_steps": min(STEPS, spec.steps)}
    given |= {name: value for name, value in wanted.knobs.items() if value is not None}
    if "text" not in spec.modes:
        given["image"] = _ramp(pictures, flipped=False)
        given["last_image"] = _ramp(pictures, flipped=True) if "first_last" in spec.modes else None
    request = VideoRequest(**given)
    if not wanted.random:
        return runtime.resolve(request)
    defaults = replace(runtime.defaults(), installed=frozenset({spec.name}))
    return resolve(request, Catalog((spec,)), defaults)


def _ramp(pictures: BlobStore, *, flipped: bool) -> PictureRef:
    """Kept in `pictures`: no two columns or rows alike."""
    across = Image.linear_gradient("L").rotate(-90)
    down = Image.linear_gradient("L")
    image = Image.merge("RGB", (across, down, across.rotate(180))).resize((1280, 720))
    data = io.BytesIO()
    (image.rotate(180) if flipped else image).save(data, "PNG")
    picture = read_picture(data.getvalue())
    return PictureRef(pictures.put(picture.png), picture.width, picture.height, picture.notes)


def _pool(runtime: Runtime, wanted: Wanted) -> tuple[ModelPool, Listening]:
    """A pool of its own, whose planner is listened to."""
    from wanreel.generation.bench.run import Listening
    from wanreel.models.picture_planning import EveryPlanner
    from wanreel.models.pool import ModelPool
    from wanreel.models.random_weights import build_random

    listening = Listening(EveryPlanner(runtime.planner))

    def load(spec: Any, placement: Any) -> Any:
        if not wanted.random:
            return runtime.opener.open(spec, placement)
        model = build_random(spec, runtime.device, placement)
        model.kernels = runtime.opener.kernels
        return model

    return ModelPool(load, listening, runtime.planner.machine), listening


def _subject(resolution: Resolution, wanted: Wanted, run: Bench) -> Subject:
    request, spec = resolution.request, resolution.spec
    guided = request.guidance_high > 1.0 or request.guidance_low > 1.0
    weights = "random" if wanted.random else "tiny" if is_tiny(spec) else "built-in" if spec.builtin else "installed"
    return Subject(
        model=spec.name,
        weights=weights,
        compute=request.compute,
        mode=request.mode,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
        steps=request.num_inference_steps,
        passes=2 if guided else 1,
        plan=run.warm.plan,
    )
