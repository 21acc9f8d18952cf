"""A video whose first picture is edited before: one call, the drawn picture kept, the recipe whole."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.errors import InvalidRequest
from wanreel.core.events import Completed, Event, KeyframeDrawn, KeyframeStep, ModelLoaded, StepCompleted
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.video import Video
from wanreel.generation.checkpoint import CheckpointStore
from wanreel.generation.export import Target
from wanreel.generation.keyframe import KEPT, render_from_keyframe
from wanreel.generation.render import Saving, render
from wanreel.media.recipe import read_recipe
from wanreel.models.open import ModelOpener
from wanreel.models.pool import ModelPool
from wanreel.models.shelf import Shelf
from wanreel.storage.disk import BlobStore

EDITOR, ANIMATOR = "tiny:qwen-image-edit-2509", "tiny:ti2v-5b"
_CPU = torch.device("cpu")


class Place:
    """A folder, a pool and a picture."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = BlobStore(folder / "pictures")
        self.pool = ModelPool(ModelOpener(Shelf(folder / "models"), _CPU).open)
        data = io.BytesIO()
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(data, "PNG")
        self.given = PictureRef(self.blobs.put(data.getvalue()), 64, 64)

    def resolution(self, **asked: Any) -> Resolution:
        values: dict[str, Any] = {
            "prompt": "it turns",
            "edit_prompt": "make it night",
            "edit_model": EDITOR,
            "model": ANIMATOR,
            "image": self.given,
            "num_frames": 5,
            "num_inference_steps": 2,
            "seed": 4,
            "width": 64,
            "height": 64,
            **asked,
        }
        models: Any = {"text": "demo", "picture": "demo", "first_last": "demo"}
        return resolve(VideoRequest(**values), Catalog(), Defaults(models, frozenset({"demo"})))

    def events(self, resolution: Resolution, stem: str, saving: Saving | None = None) -> list[Event]:
        target = Target(self.folder / "out", self.blobs, stem)
        editor = Catalog().picture(EDITOR)
        return list(render_from_keyframe(self.pool, resolution, target, CancelToken(), saving, editor))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def made(place: Place) -> tuple[list[Event], Video]:
    saving = Saving(CheckpointStore(place.folder / "states"), "job")
    events = place.events(place.resolution(), "first", saving)
    assert isinstance(events[-1], Completed)
    return events, events[-1].video


def test_the_picture_is_drawn_before_the_video(made: tuple[list[Event], Video]) -> None:
    events, _ = made
    kinds = [type(event) for event in events]
    drawn = kinds.index(KeyframeDrawn)
    assert {KeyframeStep} == set(kinds[:drawn])
    assert kinds.index(ModelLoaded) > drawn and kinds.index(StepCompleted) > drawn
    assert [event.step for event in events if isinstance(event, KeyframeStep)] == [0, 1, 2, 3, 4]


def test_the_video_begins_with_what_was_drawn(place: Place, made: tuple[list[Event], Video]) -> None:
    """The same video as from the keyframe's own file, given as a picture."""
    _, video = made
    assert video.keyframe is not None and video.files()["keyframe"] == video.keyframe
    drawn = Image.open(video.keyframe)
    again = io.BytesIO()
    drawn.convert("RGB").save(again, "PNG")
    picture = PictureRef(place.blobs.put(again.getvalue()), *drawn.size)
    alone = place.resolution(image=picture, edit_prompt=None, edit_model=None)
    target = Target(place.folder / "out", place.blobs, "alone")
    (*_, last) = render(place.pool, alone, target, CancelToken())
    assert isinstance(last, Completed)
    assert np.array_equal(np.asarray(Image.open(video.last_frame)), np.asarray(Image.open(last.video.last_frame)))


def test_the_recipe_makes_it_again(place: Place, made: tuple[list[Event], Video]) -> None:
    _, video = made
    recorded = ResolvedRequest.from_dict(json.loads(read_recipe(video.path))["request"])
    assert recorded.given == place.given and recorded.image != place.given
    asked = recorded.as_request()
    assert (asked.image, asked.edit_prompt, asked.edit_model) == (place.given, "make it night", EDITOR)
    assert video.keyframe is not None
    edit = json.loads(read_recipe(video.keyframe))["request"]
    assert edit["prompt"] == "make it night" and edit["image"]["sha256"] == place.given.sha256


def test_what_was_drawn_is_not_drawn_again(place: Place, made: tuple[list[Event], Video]) -> None:
    saving = Saving(CheckpointStore(place.folder / "states"), "job")
    events = place.events(place.resolution(), "second", saving)
    assert not [event for event in events if isinstance(event, KeyframeStep)]
    assert any(isinstance(event, KeyframeDrawn) and event.kept for event in events)
    assert not [event for event in events if isinstance(event, StepCompleted)]  # its finished latents serve too
    assert isinstance(events[-1], Completed)
    assert events[-1].video.sha256 == made[1].sha256


def test_another_instruction_draws_anew(place: Place, made: tuple[list[Event], Video]) -> None:
    folder = place.folder / "others"
    folder.mkdir()
    (folder / KEPT).write_bytes((place.folder / "states" / KEPT).read_bytes())
    events = place.events(place.resolution(edit_prompt="make it day"), "other", Saving(CheckpointStore(folder), "job"))
    assert any(isinstance(event, KeyframeStep) for event in events)


def test_a_silent_video_has_a_silent_keyframe(place: Place) -> None:
    (*_, last) = place.events(place.resolution(metadata=False), "silent")
    assert isinstance(last, Completed) and last.video.keyframe is not None
    assert b"make it night" not in last.video.keyframe.read_bytes()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"image": None, "model": "tiny:ti2v-5b"}, "image"),
        ({"edit_model": "tiny:sdxl-base"}, "edit_model"),
        ({"edit_model": "nothing"}, "edit_model"),
        ({"edit_prompt": " "}, "edit_prompt"),
    ],
)
def test_what_is_wrong_is_said_by_the_knob_that_was_given(place: Place, asked: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        place.resolution(**asked)
    assert field in [problem.field for problem in raised.value.problems]
