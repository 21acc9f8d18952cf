"""Storyboards and chains as values: what is asked, what is wrong with it and on which line, and what each scene becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.chain import Chain, Link, Seam, chain_of, frames_back, handoff, plan_scenes, seam_of
from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Resolution
from wanreel.core.storyboard import MAX_SCENES, Storyboard, parse_storyboard
from wanreel.frontends.storyboard_file import parse_text, with_first_picture

PICTURE = PictureRef("a" * 64, 320, 180)


def take(value: object, name: str) -> PictureRef:
    if value != "pic":
        raise InvalidRequest.of(name, "missing", "is no picture.")
    return PICTURE


def read(text: str) -> Storyboard:
    found = parse_text(text)
    return parse_storyboard(found.values, take, found.lines)


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as refused:
        read(text)
    return [(problem.field, problem.message) for problem in refused.value.problems]


@pytest.fixture(scope="module")
def resolved() -> Callable[[VideoRequest], Resolution]:
    catalog = Catalog()
    defaults = Defaults(
        {"text": "demo", "picture": "demo", "first_last": "flf2v-14b-720p"}, frozenset(spec.name for spec in catalog)
    )
    return lambda request: resolve(request, catalog, defaults)


def test_a_storyboard_survives_its_own_dict() -> None:
    board = read("""
title: A walk
model: demo
colour_match: 0.5
steps: 3
scenes:
  - {prompt: a, keyframe: pic, seed: 3}
  - {motion_prompt: b, transition: crossfade, transition_frames: 4, seconds: 1.5, name: Second}
  - {prompt: c, start: anchor}
""")
    assert parse_storyboard(board.to_dict()) == board
    assert [board.start(n) for n in range(3)] == ["keyframe", "previous", "anchor"]
    assert board.values(1) == {"model": "demo", "num_inference_steps": 3, "seconds": 1.5, "prompt": "b"}
    assert [board.fade(n) for n in range(3)] == [0, 4, 0] and [board.root(n) for n in range(3)] == [0, 0, 2]


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (
            "scenes:\n  - prompt: a\n  - prompt: b\n    secnds: 3\n",
            "scenes[2].secnds",
            "line 4: there is no such field or knob.",
        ),
        ("scenes:\n  - prompt: a\n    seconds: 99\n", "scenes[1].seconds", "line 3: 99 is not within 0.05 to 60 s."),
        ("steps: none\nscenes: [{prompt: a}]\n", "num_inference_steps", "line 1: 'none' is not a whole number."),
        ("scenes:\n  - seconds: 3\n", "scenes[1].prompt", "line 2: is missing: say what happens in the scene."),
        ("scenes:\n  - prompt: ''\n", "scenes[1].prompt", "line 2: is empty."),
        ("title: x\n", "scenes", "line 1: a storyboard is a list of scenes, at least one."),
        ("scenes: []\n", "scenes", "line 1: a storyboard is a list of scenes, at least one."),
        ("scenes: [1]\n", "scenes[1]", "line 1: a scene is an object with a prompt."),
        (
            "scenes:\n  - prompt: a\n    start: previous\n",
            "scenes[1].start",
            "line 3: there is no scene before the first one.",
        ),
        (
            "scenes:\n  - prompt: a\n  - prompt: b\n    start: anchor\n",
            "scenes[2].start",
            "line 4: the first scene has no keyframe to go back to.",
        ),
        ("scenes:\n  - prompt: a\n    start: later\n", "scenes[1].start", "line 3: 'later' is not offered."),
        ("scenes:\n  - prompt: a\n    keyframe: nowhere\n", "scenes[1].keyframe", "line 3: is no picture."),
        (
            "scenes:\n  - prompt: a\n    width: 64\n",
            "scenes[1].width",
            "line 3: can't be set for all scenes, not in one.",
        ),
        ("loop: boomerang\nscenes: [{prompt: a}]\n", "loop", "line 1: can't be set in a storyboard."),
        ("colour_match: 2\nscenes: [{prompt: a}]\n", "colour_match", "line 1: 2 is not within 0 to 1."),
        (
            "scenes:\n  - prompt: a\n  - prompt: b\n    transition_frames: 99\n",
            "scenes[2].transition_frames",
            "line 4: 99 is not within 1 to 64 frames.",
        ),
        (
            "scenes:\n  - prompt: a\n    edit_prompt: at night\n",
            "scenes[1].edit_prompt",
            "line 3: there is no picture to edit: the scene starts from its text alone.",
        ),
        (
            "scenes:\n  - prompt: a\n    motion_prompt: b\n",
            "scenes[1].prompt",
            "line 2: was given twice, as motion_prompt too.",
        ),
        ("- a\n", "scenes", "line 1: a storyboard is an object with scenes."),
        ("scenes:\n  - prompt: a\n   seconds: 3\n", "storyboard", "line 3: the storyboard is neither YAML nor JSON"),
        (
            "scenes:\n  - prompt: a\n    prompt: b\n",
            "storyboard",
            "line 3: the storyboard is neither YAML nor JSON: 'prompt' stands there twice.",
        ),
        ("scenes: !!python/object/apply:os.system ['true']\n", "storyboard", "line 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_scene_and_line(text: str, field: str, message: str) -> None:
    found = problems(text)
    assert [it[0] for it in found] == [field]
    assert found[0][1].startswith(message)


def test_every_problem_is_named_at_once() -> None:
    found = problems("colour_match: x\nscenes:\n  - {prompt: a, seconds: 99}\n  - {prompt: b, stepz: 3}\n  - {}\n")
    assert [name for name, _ in found] == ["colour_match", "scenes[1].seconds", "scenes[2].stepz", "scenes[3].prompt"]
    with pytest.raises(InvalidRequest):
        parse_storyboard({"scenes": [{"prompt": "a"}] * (MAX_SCENES + 1)})


def test_json_is_read_too_and_has_lines() -> None:
    assert read('{"scenes": [{"prompt": "a"}]}').scenes[0].prompt == "a"
    assert problems('{"scenes": [\n {"prompt": "a"},\n {"prompt": 3}]}') == [
        ("scenes[2].prompt", "line 3: 3 is not text.")
    ]


def test_a_reference_picture_is_the_first_scenes_keyframe() -> None:
    given = with_first_picture(
        {"mode": "storyboard", "reference_image": "pic", "scenes": [{"prompt": "a"}, {"prompt": "b"}]}
    )
    assert given == {"scenes": [{"keyframe": "pic", "prompt": "a"}, {"prompt": "b"}]}


def test_all_scenes_have_the_size_and_rate_of_the_first(resolved: Callable[[VideoRequest], Resolution]) -> None:
    board = read(
        "model: demo\nscenes:\n  - {prompt: a, keyframe: pic}\n  - {prompt: b}\n  - {prompt: c, start: text, seconds: 1}\n"
    )
    planned = [scene for scene in plan_scenes(board, resolved) if scene is not None]
    shapes = {(it.request.export_width, it.request.export_height, it.request.fps) for it in planned}
    assert len(shapes) == 1
    image = planned[1].request.image
    assert image is not None and image.pending and (image.width, image.height) == next(iter(shapes))[:2]
    assert [scene.seam for scene in planned] == [Seam(), Seam("continue"), Seam()]


def test_what_the_model_can_not_do_is_said_by_scene(resolved: Callable[[VideoRequest], Resolution]) -> None:
    board = read(
        "scenes:\n  - {prompt: a, model: demo}\n  - {prompt: b, model: t2v-1.3b}\n  - {prompt: c, model: nothing}\n"
    )
    with pytest.raises(InvalidRequest) as refused:
        plan_scenes(board, resolved)
    assert [it.field for it in refused.value.problems] == ["scenes[2].keyframe", "scenes[3].model"]


def test_no_frame_is_in_two_cross_fades(resolved: Callable[[VideoRequest], Resolution]) -> None:
    text = "model: demo\nnum_frames: 5\ntransition: crossfade\ntransition_frames: {}\n"
    text += "scenes: [{{prompt: a}}, {{prompt: b}}, {{prompt: c}}]\n"
    plan_scenes(read(text.format(1)), resolved)
    with pytest.raises(InvalidRequest, match="in cross-fades"):
        plan_scenes(read(text.format(2)), resolved)


def test_how_scenes_meet() -> None:
    base: dict[str, Any] = {
        "scenes": [{"prompt": "a", "keyframe": PICTURE}, {"prompt": "b"}, {"prompt": "c", "start": "text"}]
    }
    faded = parse_storyboard({**base, "transition": "crossfade", "transition_frames": 3})
    assert [seam_of(faded, n) for n in range(3)] == [Seam(), Seam("overlap", 3), Seam("crossfade", 3)]
    assert (seam_of(faded, 1).skip, seam_of(faded, 1).file, seam_of(faded, 2).skip) == (1, "handoff-3", 0)
    edited = replace(faded.scenes[1], knobs={"edit_prompt": "at night"})
    other = replace(faded, scenes=(faded.scenes[0], edited, faded.scenes[2]))
    # An edited picture is no longer what the scene before ends with, so no frame is left out.
    assert seam_of(other, 1) == Seam("crossfade", 3) and other.root(1) == 1
    chain = chain_of(faded, ["x", "y", "z"])
    assert Chain.from_dict(chain.to_dict()) == chain and [chain.root(n) for n in range(3)] == [0, 0, 2]
    assert chain.then("w", Seam("continue")).links[-1] == Link("w", Seam("continue"))


@pytest.mark.parametrize(("kind", "back"), [("last_frame", 0), (handoff(4), 4), ("poster", None), ("handoff-x", None)])
def test_which_frame_a_file_is(kind: str, back: int | None) -> None:
    assert frames_back(kind) == back
