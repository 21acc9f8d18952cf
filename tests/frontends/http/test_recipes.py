"""Recipes of dropped videos: restored as far as they are the caller's, and trusted as little as any request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontends.http.places import Open, Place
from wanreel.media.recipe import recipe_metadata
from wanreel.media.video import VideoFormat, VideoWriter


def video_with(recipe: dict[str, Any], folder: Path, kind: str = "mp4") -> bytes:
    path = folder / f"made.{kind}"
    with VideoWriter(path, VideoFormat(96, 64, 16, kind), recipe_metadata(json.dumps(recipe), "t")) as writer:  # type: ignore[arg-type]
        writer.write(np.zeros((2, 64, 96, 3), np.uint8))
    return path.read_bytes()


def made(place: Place, **values: Any) -> dict[str, Any]:
    """The resolved request of a video."""
    return place.submit(**values)["wanreel"]["request"]


def read(place: Place, data: bytes, name: str = "a.mp4", **more: Any) -> Any:
    return place.client.post("/v1/recipes", files={"file": (name, data)}, **more)


@pytest.mark.parametrize("kind", ["mp4", "webm", "webp", "gif"])
def test_the_settings_come_back_and_make_the_same_again(place: Place, tmp_path: Path, kind: str) -> None:
    resolved = made(place, prompt="a 猫", seed=7, num_inference_steps=3)
    data = video_with({"wanreel": 1, "request": resolved}, tmp_path, kind)
    recipe = read(place, data, f"a.{kind}").json()
    assert recipe["filename"] == f"a.{kind}" and recipe["notes"] == []
    assert made(place, **recipe["request"]) == resolved


def test_a_picture_of_ones_own_comes_back(place: Place, tmp_path: Path, picture: bytes) -> None:
    answer = place.client.post("/v1/videos", data={"prompt": "a", "model": "demo"}, files={"image": picture}).json()
    resolved = answer["wanreel"]["request"]
    recipe = read(place, video_with({"wanreel": 1, "request": resolved}, tmp_path)).json()
    assert recipe["mode"] == "picture"
    assert recipe["request"]["image"] == recipe["pictures"]["image"]["id"]
    assert made(place, **recipe["request"])["image"]["sha256"] == resolved["image"]["sha256"]


def test_a_picture_of_somebody_else_does_not(open_place: Open, tmp_path: Path, picture: bytes) -> None:
    place = open_place(keys={"me": ("admin",)})
    ann, bob = place.as_key("ann"), place.as_key("bob")
    form = {"prompt": "a", "model": "demo"}
    answer = place.client.post("/v1/videos", data=form, files={"image": picture}, headers=ann).json()
    data = video_with({"wanreel": 1, "request": answer["wanreel"]["request"]}, tmp_path)
    recipe = read(place, data, headers=bob).json()
    assert "image" not in recipe["request"] and recipe["pictures"] == {}
    assert "not here" in recipe["notes"][0]
    assert read(place, data, headers=ann).json()["pictures"]["image"]["width"] == 96


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": 5},
        {"prompt": "x" * 5000},
        {"prompt": "\0"},
        {"seed": "many"},
        {"num_inference_steps": 10**9},
        {"export_width": 1e400},
        {"solver": "magic"},
        {"loras": [{"name": 3, "strength_high": 1, "strength_low": 1}]},
        {"loras": [{"name": "x", "strength_high": 1e9, "strength_low": 1}]},
        {"loras": 5},
        {"image": "x"},
        {"image": {"sha256": "../../keys.json", "width": "x", "height": 1}},
        {"extra": 1},
    ],
)
def test_what_a_recipe_says_is_checked(place: Place, tmp_path: Path, change: dict[str, object]) -> None:
    recipe = {"wanreel": 1, "request": made(place) | change}
    answer = read(place, video_with(recipe, tmp_path))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] in ("invalid_request", "unreadable_recipe")


def test_a_picture_named_by_a_path_is_no_picture(place: Place, tmp_path: Path) -> None:
    picture = {"sha256": "../../keys.json", "width": 64, "height": 64, "notes": []}
    recipe = {"wanreel": 1, "request": made(place) | {"image": picture, "mode": "picture"}}
    answer = read(place, video_with(recipe, tmp_path))
    assert answer.status_code == 200 and "image" not in answer.json()["request"]


@pytest.mark.parametrize("data", [b"", b"hello", b"\0\0\0\x20ftypisom" + bytes(99), b"GIF89a"])
def test_files_without_a_recipe_are_refused(shared: Place, data: bytes) -> None:
    answer = read(shared, data)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "unreadable_recipe"


def test_a_recipe_that_is_no_object_is_refused(shared: Place, tmp_path: Path) -> None:
    for recipe in ({"wanreel": 1}, {"wanreel": 1, "request": []}, {"wanreel": 1, "request": {"prompt": "a"}}):
        assert read(shared, video_with(recipe, tmp_path)).status_code == 400


def test_the_file_must_be_there(shared: Place) -> None:
    assert shared.client.post("/v1/recipes", data={"x": "1"}).status_code == 400
