"""Joins what `wanreel bench` measures: a model, installed or made up, a request for it, a folder that goes afterwards."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, get_args

from PIL import Image

import wanreel
from wanreel.core.bench import BenchReport, Figure, Subject
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
    from wanreel.generation.bench.run import Listening
    from wanreel.models.pool import ModelPool

PROMPT = "A cat walks on the grass, realistic style."
STEPS = 4  #: unless asked otherwise: one that may compile, one more of each expert


#: What can be measured: a request and its parts, a warm job beside its model, a worker's start, reading weights.
Part = Literal["request", "overhead", "start", "load"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to measure."""

    model: str = "demo"
    part: Part = "request"
    random: bool = False  #: weights of the real shapes, drawn
    against: bool = False  #: Diffusers' modules beside ours
    blocks: int = 4  #: of the transformer, in the file that is read
    decode: float = 2.1  #: seconds that a decode is stood in for with
    knobs: dict[str, Any] = field(default_factory=dict[str, Any])  #: of a VideoRequest, by name; None leaves one out


def bench(runtime: Runtime, wanted: Wanted, cancel: CancelToken, say: Callable[[str], None]) -> BenchReport:
    """Measure. Raises InvalidRequest, ModelNotInstalled, and what a generation raises."""
    from wanreel.generation.bench.machine import machine_of
    from wanreel.generation.bench.run import Bench
    from wanreel.generation.export import Target
    from wanreel.models.clock import ceiling
    from wanreel.models.suit import step_facts

    spec = runtime.catalog.get(wanted.model)
    if (wanted.random or wanted.part in ("overhead", "load")) and not known(spec):
        raise InvalidRequest.of("model", "unsupported", f"{spec.name} has no real shapes to draw weights for.")
    if wanted.part != "request":
        return _part(runtime, spec, wanted, say)
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
                machine=machine_of(model.device, step_facts(model).get("attention", "")),
                subject=_subject(resolution, wanted, run.warm.plan),
                ceiling_tflops=ceiling(runtime.device, model.dtype),
                figures=figures,
                notes=tuple(dict.fromkeys((*model.notes, *run.notes))),
            )
        finally:
            pool.evict()


def _part(runtime: Runtime, spec: ModelSpec, wanted: Wanted, say: Callable[[str], None]) -> BenchReport:
    """A part that needs no request of its own."""
    from wanreel.generation.bench.machine import machine_of

    asked = replace(wanted, random=wanted.random or wanted.part in ("overhead", "load"))
    if wanted.part == "overhead":  # a few steps without guidance, as a distilled model makes them
        given = {name: value for name, value in wanted.knobs.items() if value is not None}
        asked = replace(asked, knobs={"guidance_high": 1.0, "guidance_low": 1.0} | given)
    with TemporaryDirectory() as scratch:
        figures = _MEASURED[wanted.part](runtime, spec, asked, Path(scratch), say)
        resolution = _resolution(runtime, spec, asked, BlobStore(Path(scratch) / "pictures"))
    return BenchReport(
        wanreel=wanreel.__version__,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine_of(runtime.device),
        subject=_subject(resolution, asked, ""),
        ceiling_tflops=0.0,
        figures=tuple(figures),
        part=wanted.part,
    )


def _overhead(
    _runtime: Runtime, spec: ModelSpec, wanted: Wanted, scratch: Path, say: Callable[[str], None]
) -> list[Figure]:
    from wanreel.wiring.overhead import Pace, overhead

    pace = Pace(spec.name, tuple(wanted.knobs.items()), decode=wanted.decode)
    return overhead(pace, _ramp_png(flipped=False), say)


def _start(
    runtime: Runtime, spec: ModelSpec, wanted: Wanted, scratch: Path, say: Callable[[str], None]
) -> list[Figure]:
    from wanreel.wiring.starting import start

    return start(runtime, spec.name, say)


def _load(runtime: Runtime, spec: ModelSpec, wanted: Wanted, scratch: Path, say: Callable[[str], None]) -> list[Figure]:
    from wanreel.generation.bench.loading import loading

    return loading(spec, wanted.blocks, scratch, runtime.device, say)


_MEASURED = {"overhead": _overhead, "start": _start, "load": _load}


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
    """Kept in `pictures`."""
    picture = read_picture(_ramp_png(flipped=flipped))
    return PictureRef(pictures.put(picture.png), picture.width, picture.height, picture.notes)


def _ramp_png(*, flipped: bool) -> bytes:
    """No two columns or rows alike."""
    across = Image.linear_gradient("L").rotate(-90)
    down = Image.linear_gradient("L")
    image = Image.merge("RGB", (across, down, across.rotate(180))).resize((1280, 720))
    data = io.BytesIO()
    (image.rotate(180) if flipped else image).save(data, "PNG")
    return data.getvalue()


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


def _subject(resolution: Resolution, wanted: Wanted, plan: str) -> Subject:
    request, spec = resolution.request, resolution.spec
    guided = request.guidance_high > 1.0 or request.guidance_low > 1.0
    weights = (
        "stand-in"
        if wanted.part == "overhead"
        else "random"
        if wanted.random
        else "tiny"
        if is_tiny(spec)
        else "built-in"
        if spec.builtin
        else "installed"
    )
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
        plan=plan,
    )
