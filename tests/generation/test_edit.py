"""Editing: equal to Diffusers' own pipelines, cancellable between steps, one picture an instruction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from generation.studio import Studio, pixels
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.edit_models import EditSpec
from wanreel.core.errors import Cancelled, InvalidRequest
from wanreel.core.events import StepCompleted
from wanreel.core.picture_request import PictureRequest, ResolvedPicture
from wanreel.core.picture_resolve import resolve_picture
from wanreel.generation.draw import draw
from wanreel.generation.picture_export import SheetTarget
from wanreel.media.recipe import read_recipe
from wanreel.models.diffusers_edits import diffusers_edits
from wanreel.models.edit_load import load_edit_model
from wanreel.models.edit_model import EditModel
from wanreel.models.tiny_edits import build_tiny_edits, save_tiny_edits

NAME = "tiny:qwen-image-edit-2509"
INSTRUCTION = "make it night"


def spec_of(name: str) -> EditSpec:
    spec = Catalog().picture(name)
    assert isinstance(spec, EditSpec)
    return spec


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio[EditModel]:
    asked = {"prompt": INSTRUCTION, "seed": 3, "model": NAME}
    return Studio(
        tmp_path_factory.mktemp("studio"), lambda name: build_tiny_edits(spec_of(name)), 96, asked, edits=True
    )


def theirs(model: EditModel, picture: Image.Image, monkeypatch: pytest.MonkeyPatch, **asked: Any) -> Any:
    """What Diffusers' pipeline makes of the same; the areas that it has as constants are the tiny ones."""
    side = model.spec.reference_side
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", model.spec.read_side**2)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", side**2)
    whole = pipeline_qwenimage_edit.calculate_dimensions
    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", lambda _, ratio: whole(side**2, ratio))
    pipeline = diffusers_edits(model)
    pipeline.set_progress_bar_config(disable=True)
    values: dict[str, Any] = {"height": 64, "width": 96, "num_inference_steps": 4, "negative_prompt": " ", **asked}
    generator = torch.Generator().manual_seed(3)
    return pipeline(image=picture, prompt=INSTRUCTION, generator=generator, **values).images[0]


@pytest.mark.parametrize("name", ["qwen-image-edit", "qwen-image-edit-2509", "qwen-image-edit-2511"])
def test_edits_equal_diffusers(studio: Studio[EditModel], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = studio.drawing(model=f"tiny:{name}", width=96, height=64)
    other = theirs(studio.model(f"tiny:{name}"), studio.picture, monkeypatch)
    assert np.array_equal(pixels(ours.path), np.asarray(other))


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"guidance_scale": 1.0}, {"true_cfg_scale": 1.0, "negative_prompt": None}),
        ({"negative_prompt": "blurry"}, {"negative_prompt": "blurry"}),
    ],
)
def test_guidance_is_diffusers(
    studio: Studio[EditModel], asked: dict[str, Any], given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = studio.drawing(width=96, height=64, **asked)
    other = theirs(studio.model(NAME), studio.picture, monkeypatch, **given)
    assert np.array_equal(pixels(ours.path), np.asarray(other))


def test_the_model_sees_where_things_are(studio: Studio[EditModel]) -> None:
    """transformers 5 finds no places of patches by itself: with them the instruction is read in another way."""
    model = studio.model(NAME)
    read: Any = model.processor(text=["<|vision_start|><|image_pad|><|vision_end|>a"], images=[studio.picture])
    placed = model.text_encoder(**read, output_hidden_states=True).hidden_states[-1]
    read.pop("mm_token_type_ids")
    unplaced = model.text_encoder(**read, output_hidden_states=True).hidden_states[-1]
    assert not torch.equal(placed, unplaced)


def test_the_size_follows_the_picture(studio: Studio[EditModel]) -> None:
    drawing = studio.drawing(stem="follows")
    assert (drawing.width, drawing.height) == (64, 64)  # 96×64 at the area of 64², in steps of 32
    assert pixels(studio.drawing(stem="exact", width=100, height=70).path).shape == (70, 100, 3)


def test_several_edits_are_what_each_seed_makes_alone(studio: Studio[EditModel]) -> None:
    two = studio.drawing(num_images=2, stem="two")
    assert two.paths[1].read_bytes() == studio.drawing(seed=4, stem="alone").path.read_bytes()
    steps = [event for event in studio.events(num_images=2, stem="two") if isinstance(event, StepCompleted)]
    assert [(it.step, it.total_steps) for it in steps] == [(number, 8) for number in range(1, 9)]


def test_the_file_tells_how_it_was_made(studio: Studio[EditModel]) -> None:
    recipe = json.loads(read_recipe(studio.drawing(stem="told").path))
    again = ResolvedPicture.from_dict(recipe["request"])
    assert again.image == studio.given
    assert resolve_picture(again.as_request(), Catalog().picture, NAME).request == again


def test_cancelling_stops_between_steps(studio: Studio[EditModel]) -> None:
    cancel = CancelToken()
    values = PictureRequest(prompt=INSTRUCTION, model=NAME, image=studio.given)
    running = draw(
        studio.pool,
        resolve_picture(values, Catalog().picture, NAME),
        SheetTarget(studio.folder / "stopped", studio.blobs),
        cancel,
    )
    with pytest.raises(Cancelled):
        for event in running:
            if isinstance(event, StepCompleted):
                cancel.cancel()
    assert not list((studio.folder / "stopped").glob("*"))


def test_a_marker_in_an_instruction_is_plain_text(studio: Studio[EditModel]) -> None:
    drawing = studio.drawing(prompt="a <|image_pad|> here", stem="marked")
    assert drawing.path.is_file()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"image": None}, "image"),
        ({"strength": 0.5}, "strength"),
        ({"solver": "ddim"}, "solver"),
        ({"refiner_inference_steps": 4}, "refiner_inference_steps"),
        ({"model": "tiny:sdxl-base"}, "model"),
    ],
)
def test_what_an_edit_can_not_be(studio: Studio[EditModel], asked: dict[str, Any], field: str) -> None:
    values: dict[str, Any] = {"prompt": INSTRUCTION, "model": NAME, "image": studio.given, "mode": "edit", **asked}
    with pytest.raises(InvalidRequest) as raised:
        resolve_picture(PictureRequest(**values), Catalog().picture, NAME)
    assert [problem.field for problem in raised.value.problems] == [field]


def test_a_saved_model_loads_as_it_was(studio: Studio[EditModel], tmp_path: Path) -> None:
    spec = spec_of(NAME)
    loaded = load_edit_model(spec, save_tiny_edits(spec, tmp_path / "model"))
    built = studio.model(NAME)
    for name, module in built.modules.items():
        twin = loaded.modules[name].state_dict()
        assert all(torch.equal(value, twin[key]) for key, value in module.state_dict().items()), name
    studio.models[NAME] = loaded
    studio.pool.evict()
    mine = studio.drawing(stem="loaded").path.read_bytes()
    studio.models[NAME] = built
    studio.pool.evict()
    assert mine == studio.drawing(stem="built").path.read_bytes()
