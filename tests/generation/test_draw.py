"""The picture stage: bit-equal to Diffusers' own pipelines, resumable nowhere, cancellable between steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers import scheduling_lms_discrete

from generation.studio import Studio, pixels
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.errors import Cancelled, OutOfMemory
from wanreel.core.events import PlanChanged, StepCompleted
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.picture_models import SOLVERS
from wanreel.core.picture_request import PictureRequest, ResolvedPicture
from wanreel.core.picture_resolve import resolve_picture
from wanreel.core.placement import Placement, Tile
from wanreel.generation.draw import draw
from wanreel.generation.multistep import LinearMultistep
from wanreel.generation.picture_export import SheetTarget
from wanreel.generation.picture_steps import make_scheduler
from wanreel.media.recipe import read_recipe
from wanreel.models.diffusers_pictures import diffusers_pictures
from wanreel.models.picture_model import PictureModel
from wanreel.models.pool import ModelPool
from wanreel.models.tiny_pictures import build_tiny_pictures

BASE, REFINER = Catalog().picture("tiny:sdxl-base"), Catalog().picture("tiny:sdxl-refiner")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio[PictureModel]:
    asked = {"prompt": "a red fox", "seed": 3, "model": BASE.name}
    return Studio(
        tmp_path_factory.mktemp("studio"), lambda name: build_tiny_pictures(Catalog().picture(name)), 64, asked
    )


@pytest.fixture(autouse=True)
def no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Diffusers' own LMS takes one function of SciPy; here it is a rule of ten points."""
    nodes, weights = np.polynomial.legendre.leggauss(10)

    def quad(of: Callable[[float], Any], start: float, end: float, **_: Any) -> tuple[float, float]:
        half, middle = float(end - start) / 2, float(end + start) / 2
        return half * sum(w * float(of(middle + half * x)) for x, w in zip(nodes, weights)), 0.0

    monkeypatch.setattr(scheduling_lms_discrete, "integrate", SimpleNamespace(quad=quad), raising=False)


def theirs(model: PictureModel, solver: str, *, picture: bool = False, **asked: Any) -> Any:
    """What Diffusers' pipeline makes of the same."""
    pipeline = diffusers_pictures(model, picture=picture)
    pipeline.set_progress_bar_config(disable=True)
    scheduler = make_scheduler(solver, model.scheduler_config)  # type: ignore[arg-type]
    if isinstance(scheduler, LinearMultistep):
        scheduler = scheduling_lms_discrete.LMSDiscreteScheduler.from_config(dict(model.scheduler_config))
    pipeline.scheduler = scheduler
    size = {} if picture else {"height": 64, "width": 64}
    generator = asked.pop("generator", None) or torch.Generator().manual_seed(3)
    return pipeline("a red fox", generator=generator, num_inference_steps=4, **size, **asked).images[0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("picture", [False, True])
def test_pictures_equal_diffusers(studio: Studio[PictureModel], solver: Any, picture: bool) -> None:
    asked: dict[str, Any] = {"image": studio.given, "strength": 0.75} if picture else {}
    ours = studio.drawing(solver=solver, **asked)
    given: dict[str, Any] = {"image": studio.picture, "strength": 0.75} if picture else {}
    other = theirs(studio.model(BASE.name), solver, picture=picture, **given)
    assert np.array_equal(pixels(ours.path), np.asarray(other))


@pytest.mark.parametrize("asked", [{"negative_prompt": "blurry"}, {"negative_prompt": ""}, {"guidance_scale": 1.0}])
def test_guidance_is_diffusers(studio: Studio[PictureModel], asked: dict[str, Any]) -> None:
    assert np.array_equal(
        pixels(studio.drawing(**asked).path), np.asarray(theirs(studio.model(BASE.name), "euler", **asked))
    )


@pytest.mark.parametrize("share", [None, 0.5])
def test_the_refiner_is_diffusers(studio: Studio[PictureModel], share: float | None) -> None:
    ours = studio.drawing(refiner_inference_steps=4, high_noise_frac=share, strength=0.5)
    generator = torch.Generator().manual_seed(3)
    first: dict[str, Any] = {"output_type": "latent", "generator": generator}
    first |= {"denoising_end": share} if share else {}
    latents = theirs(studio.model(BASE.name), "euler", **first)
    second: dict[str, Any] = {"image": latents.unsqueeze(0), "generator": generator}
    second |= {"denoising_start": share} if share else {"strength": 0.5}
    other = theirs(studio.model(REFINER.name), "euler", picture=True, **second)
    assert np.array_equal(pixels(ours.path), np.asarray(other))


def test_each_of_several_is_what_its_seed_makes_alone(studio: Studio[PictureModel]) -> None:
    three = studio.drawing(num_images=3, stem="three")
    assert [path.name for path in three.paths] == ["three.png", "three.2.png", "three.3.png"]
    alone = studio.drawing(seed=5, stem="alone")
    assert three.paths[2].read_bytes() == alone.path.read_bytes()


def test_the_file_tells_how_it_was_made(studio: Studio[PictureModel]) -> None:
    drawing = studio.drawing(num_images=2, width=70, height=66, stem="told")
    assert pixels(drawing.path).shape == (66, 70, 3)
    recipe = json.loads(read_recipe(drawing.paths[1]))
    again = ResolvedPicture.from_dict(recipe["request"])
    assert (again.seed, again.num_images) == (4, 1)
    resolved = resolve_picture(again.as_request(), Catalog().picture, BASE.name)
    assert resolved.request == again
    studio.drawing(metadata=False, stem="silent")
    assert b"iTXt" not in (studio.folder / "out" / "silent.png").read_bytes()


def test_cancelling_stops_between_steps_and_leaves_nothing(studio: Studio[PictureModel]) -> None:
    cancel = CancelToken()
    resolution = resolve_picture(PictureRequest(prompt="a", model=BASE.name), Catalog().picture, BASE.name)
    target = SheetTarget(studio.folder / "stopped", studio.blobs)
    done = 0

    def run() -> None:
        nonlocal done
        for event in draw(studio.pool, resolution, target, cancel):
            done += isinstance(event, StepCompleted)
            if done == 2:
                cancel.cancel()

    with pytest.raises(Cancelled):
        run()
    assert done == 2
    assert not list((studio.folder / "stopped").glob("*"))


def test_steps_are_counted_over_all_pictures_and_models(studio: Studio[PictureModel]) -> None:
    events = studio.events(num_images=2, refiner_inference_steps=4, strength=0.5)
    steps = [event for event in events if isinstance(event, StepCompleted)]
    assert [event.step for event in steps] == list(range(1, 13))
    assert {event.total_steps for event in steps} == {12}


@dataclass
class Plans:
    """Whole pictures first, then windows."""

    refused: list[str] = field(default_factory=list[str])

    def plans(self, spec: Any, request: Any, held: Placement | None) -> tuple[MemoryPlan, ...]:
        return MemoryPlan(Placement()), MemoryPlan(Placement(tile=Tile(32, 32, 8)))

    def ran(self, spec: Any, request: Any, plan: MemoryPlan, peaks: Any, steps: Any = ()) -> None: ...

    def ran_out(self, spec: Any, request: Any, plan: MemoryPlan, stage: str) -> None:
        self.refused.append(stage)


def test_where_memory_runs_out_decoding_goes_on_in_windows(
    studio: Studio[PictureModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, model = Plans(), build_tiny_pictures(BASE)
    decode: Callable[..., Any] = model.vae.decode

    def scarce(*args: Any, **more: Any) -> Any:
        if not model.vae.use_tiling:
            raise OutOfMemory("no room")
        return decode(*args, **more)

    monkeypatch.setattr(model.vae, "decode", scarce)
    pool = ModelPool(lambda spec, placement: model, plans)
    resolution = resolve_picture(PictureRequest(prompt="a", model=BASE.name, seed=1), Catalog().picture, BASE.name)
    events = list(draw(pool, resolution, SheetTarget(tmp_path, studio.blobs), CancelToken()))
    assert plans.refused == ["decode"]
    assert sum(isinstance(event, StepCompleted) for event in events) == 4  # not denoised again
    assert any(isinstance(event, PlanChanged) for event in events)


def test_another_models_refiner_is_refused() -> None:
    plain = replace(BASE, refiner=None)
    with pytest.raises(Exception, match="has no refiner"):
        resolve_picture(PictureRequest(prompt="a", refiner_inference_steps=3), lambda name: plain, "x")
