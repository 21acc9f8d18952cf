"""Knobs: declared once, read from loose values, checked."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanreel.core.errors import InvalidRequest
from wanreel.core.request import KNOBS, LoraRef, VideoRequest


def test_every_field_is_a_knob_with_help_and_bounds() -> None:
    assert [item.name for item in fields(VideoRequest)] == list(KNOBS)
    for name, knob in KNOBS.items():
        assert knob.help, name
        if knob.kind in ("integer", "number"):
            assert knob.minimum is not None and knob.maximum is not None, name


def test_aliases_reach_one_field_only() -> None:
    names = [name for knob in KNOBS.values() for name in knob.aliases] + list(KNOBS)
    assert len(names) == len(set(names))


def test_loose_values_are_read() -> None:
    request = VideoRequest.from_mapping(
        {
            "prompt": "a cat",
            "steps": "12",
            "guidance_scale_2": "3.5",
            "metadata": "false",
            "loras": ["gold", {"name": "x", "strength": 0.5}],
        }
    )
    assert request.num_inference_steps == 12
    assert request.guidance_low == 3.5
    assert request.metadata is False
    assert request.loras == (LoraRef("gold"), LoraRef("x", strength=0.5))


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({"stepz": 3}, "stepz", "unknown_field"),
        ({"steps": 3.5}, "num_inference_steps", "wrong_type"),
        ({"steps": "many"}, "num_inference_steps", "wrong_type"),
        ({"steps": True}, "num_inference_steps", "wrong_type"),
        ({"prompt": 3}, "prompt", "wrong_type"),
        ({"seed": "1e400"}, "seed", "wrong_type"),
        ({"metadata": "perhaps"}, "metadata", "wrong_type"),
        ({"image": "/etc/passwd"}, "image", "wrong_type"),
        ({"loras": [{"strength": 1}]}, "loras", "wrong_type"),
        ({"loras": [{"name": "a", "path": "/x"}]}, "loras", "wrong_type"),
        ({"steps": 3, "num_inference_steps": 4}, "num_inference_steps", "contradiction"),
    ],
)
def test_unreadable_values_are_named(values: dict[str, object], field: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        VideoRequest.from_mapping(values)
    assert [(problem.field, problem.code) for problem in caught.value.problems] == [(field, code)]


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(InvalidRequest, match="stepz") as caught:
        VideoRequest.from_mapping({"stepz": 3})
    assert "steps" in caught.value.problems[0].hint


@given(
    st.dictionaries(
        st.sampled_from([*KNOBS, "steps", "nope"]),
        st.none() | st.text(max_size=8) | st.integers() | st.floats() | st.booleans(),
    )
)
def test_anything_gives_a_request_or_an_error_of_ours(values: dict[str, object]) -> None:
    try:
        request = VideoRequest.from_mapping(values)
    except InvalidRequest as error:
        assert error.problems
    else:
        request.problems()
