"""resolve: what was asked becomes what runs, and every difference is told."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanreel.core.catalog import MODELS, Catalog
from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.sizes import best_output_size, official_size

EVERYTHING = Defaults(
    {"text": "t2v-a14b", "picture": "i2v-a14b", "first_last": "flf2v-14b-720p"},
    frozenset(spec.name for spec in MODELS),
)
NOTHING = Defaults(EVERYTHING.model_for, frozenset({"demo"}))


def picture(width: int = 1920, height: int = 1080) -> PictureRef:
    return PictureRef("0" * 64, width, height)


def resolved(defaults: Defaults = EVERYTHING, **asked: Any) -> Resolution:
    asked.setdefault("prompt", "a cat")
    return resolve(VideoRequest(**asked), Catalog(), defaults, lambda: 7)


def problems(defaults: Defaults = EVERYTHING, **asked: Any) -> set[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as caught:
        resolved(defaults, **asked)
    return {(problem.field, problem.code) for problem in caught.value.problems}


def said(resolution: Resolution, field: str) -> list[str]:
    return [str(adjustment) for adjustment in resolution.adjustments if adjustment.field == field]


def test_everything_by_default_is_official() -> None:
    request = resolved(model="t2v-a14b").request
    assert (request.width, request.height, request.num_frames, request.fps) == (1280, 720, 81, 16)
    assert (request.num_inference_steps, request.flow_shift, request.solver) == (40, 12, "unipc")
    assert (request.guidance_high, request.guidance_low) == (4, 3)
    assert request.negative_prompt.startswith("色调艳丽")


@pytest.mark.parametrize(("preset", "steps"), [("draft", 20), ("standard", 40), ("high", 50)])
def test_presets_scale_official_steps(preset: str, steps: int) -> None:
    assert resolved(model="i2v-a14b", image=picture(), preset=preset).request.num_inference_steps == steps


def test_half_steps_round_up() -> None:
    assert resolved(model="t2v-14b", preset="high").request.num_inference_steps == 63


def test_fast_preset_needs_a_few_step_model() -> None:
    assert ("preset", "contradiction") in problems(model="t2v-1.3b", preset="fast")
    assert ("preset", "not_installed") in problems(model="t2v-14b", preset="fast")
    assert resolved(model="demo", preset="fast").request.num_inference_steps == 8
    few = resolved(model="fastwan2.1-t2v-1.3b", preset="draft")
    assert few.request.num_inference_steps == 3
    assert said(few, "preset")


def test_shift_belongs_to_model_and_size_never_to_a_preset() -> None:
    for preset in ("draft", "standard", "high"):
        assert resolved(model="i2v-a14b", image=picture(), resolution="480P", preset=preset).request.flow_shift == 3
        assert resolved(model="i2v-a14b", image=picture(), resolution="720P", preset=preset).request.flow_shift == 5
    assert resolved(model="flf2v-14b-720p", image=picture(), last_image=picture()).request.flow_shift == 16
    assert resolved(model="t2v-1.3b").request.flow_shift == 8
    assert resolved(model="i2v-a14b", image=picture(), width=832, height=480).request.flow_shift == 3
    assert resolved(model="i2v-a14b", image=picture(), flow_shift=9).request.flow_shift == 9


def test_default_models_follow_the_mode() -> None:
    assert resolved().request.model == "t2v-a14b"
    assert resolved(image=picture()).request.model == "i2v-a14b"
    assert resolved(image=picture(), last_image=picture()).request.model == "flf2v-14b-720p"
    assert "default" in said(resolved(), "model")[0]


def test_the_demo_stands_in_and_says_so() -> None:
    resolution = resolved(NOTHING, image=picture(), resolution="1080P", seconds=5)
    assert resolution.request.model == "demo"
    assert "not installed" in said(resolution, "model")[0]
    assert max(resolution.request.width, resolution.request.height) <= 192
    assert said(resolution, "resolution")
    assert resolution.request.num_frames == 33
    assert "most" in said(resolution, "num_frames")[0]
    assert ("model", "not_installed") in problems(NOTHING, image=picture(), last_image=picture())


@pytest.mark.parametrize(("asked", "used"), [(1, 1), (80, 81), (81, 81), (79, 81), (78, 77), (83, 85), (3, 5), (2, 1)])
def test_frames_snap_to_the_nearest_4n_plus_1(asked: int, used: int) -> None:
    resolution = resolved(model="t2v-14b", num_frames=asked)
    assert resolution.request.num_frames == used
    assert bool(said(resolution, "num_frames")) == (asked != used or used > 81)


def test_seconds_are_at_the_models_own_rate() -> None:
    resolution = resolved(model="t2v-14b", seconds=5, fps=24)
    assert resolution.request.num_frames == 81
    assert resolution.request.fps == 24
    assert "5.06 s" in said(resolution, "num_frames")[0]
    assert "1.5 times" in said(resolution, "fps")[0]
    assert resolved(model="ti2v-5b", seconds=5).request.num_frames == 121


def test_longer_than_trained_is_allowed_with_a_note() -> None:
    resolution = resolved(model="i2v-a14b", image=picture(), num_frames=161)
    assert resolution.request.num_frames == 161
    assert "trained for 81" in said(resolution, "num_frames")[0]


@pytest.mark.parametrize(
    ("size", "p480", "p720"),
    [
        ((832, 480), (832, 480), (1264, 720)),
        ((1000, 1000), (624, 624), (960, 960)),
        ((1920, 1080), (832, 464), (1280, 720)),
        ((4032, 3024), (720, 544), (1104, 816)),
        ((3024, 4032), (544, 720), (816, 1104)),
    ],
)
def test_sizes_follow_the_picture(size: tuple[int, int], p480: tuple[int, int], p720: tuple[int, int]) -> None:
    for name, expected in (("480P", p480), ("720P", p720)):
        request = resolved(model="i2v-a14b", image=picture(*size), resolution=name).request
        assert (request.width, request.height) == expected


def test_ti2v_sizes_are_multiples_of_32() -> None:
    request = resolved(model="ti2v-5b", image=picture(1024, 1024)).request
    assert (request.width, request.height) == (960, 928)
    assert (resolved(model="ti2v-5b").request.width, resolved(model="ti2v-5b").request.height) == (1280, 704)


@given(
    st.integers(64, 8192), st.integers(64, 8192), st.sampled_from([(832 * 480, 16), (1280 * 720, 16), (1280 * 704, 32)])
)
def test_sizes_stay_near_area_and_aspect(width: int, height: int, target: tuple[int, int]) -> None:
    area, multiple = target
    if max(width, height) > 6 * min(width, height):
        return
    for rule in (official_size, best_output_size):
        w, h = rule(width, height, area, multiple)
        assert w % multiple == 0 and h % multiple == 0
        assert w * h <= area * 1.02
        assert abs(math.log((w / h) / (width / height))) < math.log((min(w, h) + multiple) / min(w, h)) + 0.02


def test_1080p_is_generated_larger_and_exported_exact() -> None:
    resolution = resolved(model="t2v-a14b", width=1920, height=1080)
    request = resolution.request
    assert (request.width, request.height) == (1920, 1088)
    assert (request.export_width, request.export_height) == (1920, 1080)
    assert any("1920×1088" in text for text in said(resolution, "width"))
    assert any("not trained" in text for text in said(resolution, "width"))


def test_odd_sizes_are_exported_as_asked() -> None:
    request = resolved(model="t2v-a14b", width=1000, height=562).request
    assert (request.width, request.height, request.export_width, request.export_height) == (1008, 576, 1000, 562)


def test_one_side_follows_the_picture() -> None:
    request = resolved(model="i2v-a14b", image=picture(1000, 500), width=832).request
    assert (request.width, request.height) == (832, 416)


def test_a_picture_of_another_shape_is_cropped_and_it_is_said() -> None:
    resolution = resolved(model="i2v-a14b", image=picture(1000, 1000), width=1280, height=720)
    assert "44% is cropped" in said(resolution, "image")[0]


def test_guidance_of_two_experts() -> None:
    both = resolved(model="t2v-a14b", guidance_scale=2)
    assert (both.request.guidance_high, both.request.guidance_low) == (2, 2)
    assert said(both, "guidance_scale")
    one = resolved(model="t2v-a14b", guidance_scale=2, guidance_low=1).request
    assert (one.guidance_high, one.guidance_low) == (2, 1)
    high = resolved(model="t2v-a14b", guidance_high=6).request
    assert (high.guidance_high, high.guidance_low) == (6, 3)


def test_one_expert_has_one_guidance() -> None:
    resolution = resolved(model="t2v-14b", guidance_scale=4, guidance_low=2)
    assert (resolution.request.guidance_high, resolution.request.guidance_low) == (4, 4)
    assert "one expert" in said(resolution, "guidance_low")[0]


def test_the_seed_drawn_is_recorded() -> None:
    for asked in (None, -1):
        resolution = resolved(seed=asked)
        assert resolution.request.seed == 7
        assert said(resolution, "seed")
    assert resolved(seed=0).request.seed == 0


BAD: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({"prompt": ""}, {("prompt", "required")}),
    ({"prompt": "   "}, {("prompt", "required")}),
    ({"prompt": "x" * 4001}, {("prompt", "too_long")}),
    ({"prompt": "a\0b"}, {("prompt", "bad_text")}),
    ({"model": "nope"}, {("model", "unknown_model")}),
    ({"model": "vace-14b"}, {("model", "unsupported_model")}),
    ({"model": "i2v-a14b"}, {("image", "required")}),
    ({"model": "t2v-a14b", "image": picture()}, {("image", "contradiction")}),
    ({"model": "flf2v-14b-720p", "image": picture()}, {("last_image", "required")}),
    ({"model": "i2v-a14b", "image": picture(), "last_image": picture()}, {("last_image", "contradiction")}),
    ({"last_image": picture()}, {("image", "required")}),
    ({"num_inference_steps": 0}, {("num_inference_steps", "out_of_range")}),
    ({"num_inference_steps": 101}, {("num_inference_steps", "out_of_range")}),
    ({"guidance_scale": math.nan}, {("guidance_scale", "out_of_range")}),
    ({"flow_shift": math.inf}, {("flow_shift", "out_of_range")}),
    ({"seed": -2}, {("seed", "out_of_range")}),
    ({"width": 63}, {("width", "out_of_range")}),
    ({"solver": "heun"}, {("solver", "unknown_value")}),
    ({"model": "t2v-14b", "solver": "dmd"}, {("solver", "contradiction")}),
    ({"model": "fastwan2.1-t2v-1.3b", "solver": "unipc"}, {("solver", "contradiction")}),
    ({"model": "fastwan2.1-t2v-1.3b", "num_inference_steps": 4}, {("num_inference_steps", "contradiction")}),
    ({"resolution": "480P", "width": 832}, {("resolution", "contradiction")}),
    ({"seconds": 5, "num_frames": 81}, {("seconds", "contradiction")}),
    ({"preset": "ultra"}, {("preset", "unknown_value")}),
    ({"output_format": "avi"}, {("output_format", "unknown_value")}),
    ({"fps": 0}, {("fps", "out_of_range")}),
]


@pytest.mark.parametrize(("asked", "expected"), BAD, ids=[str(row[0])[:40] for row in BAD])
def test_bad_requests(asked: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    assert expected <= problems(**asked)


def test_every_problem_is_named_at_once() -> None:
    found = problems(
        prompt="", model="i2v-a14b", seed=-5, num_inference_steps=1000, seconds=1, num_frames=5, fps=math.nan
    )
    assert {name for name, _ in found} == {"prompt", "image", "seed", "num_inference_steps", "seconds", "fps"}


def test_messages_name_value_and_cure() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolved(num_inference_steps=500, model="i2v-a14b")
    text = str(caught.value)
    assert "500" in text and "1 to 100" in text
    assert "starts from a picture" in text


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_resolving_again_changes_nothing(spec: Any) -> None:
    asked: dict[str, Any] = {"model": spec.name, "width": 1000, "height": 562}
    if "text" not in spec.modes:
        asked["image"] = picture()
    if "first_last" in spec.modes:
        asked["last_image"] = picture()
    first = resolved(**asked).request
    again = resolve(first.as_request(), Catalog(), NOTHING).request
    assert again == first
    assert ResolvedRequest.from_dict(json.loads(json.dumps(first.to_dict()))) == first


def test_a_photo_for_the_demo_gets_the_largest_size_and_no_guidance() -> None:
    text = resolved(NOTHING).request
    photo = resolved(NOTHING, image=picture(1000, 1000)).request
    assert (text.width, text.height, text.num_frames) == (128, 128, 17)
    assert (photo.width, photo.height, photo.num_frames) == (192, 192, 17)
    assert (text.guidance_high, photo.guidance_high, photo.guidance_low) == (3, 1, 1)


@pytest.mark.parametrize(
    ("size", "used"),
    [((1920, 1080), (192, 112)), ((100, 50), (192, 96)), ((1080, 1920), (112, 192)), ((451, 300), (192, 128))],
)
def test_the_demo_keeps_the_photos_aspect_within_its_largest_side(size: tuple[int, int], used: tuple[int, int]) -> None:
    request = resolved(NOTHING, image=picture(*size)).request
    assert (request.width, request.height) == (request.export_width, request.export_height) == used


def test_a_shift_that_changes_nothing_is_told() -> None:
    resolution = resolved(model="fastwan2.2-ti2v-5b", flow_shift=9)
    assert resolution.request.flow_shift == 5
    assert "changes nothing" in said(resolution, "flow_shift")[0]
