"""Sweeps as asked: axes read from whatever clients send, cells in order, and every fault named."""

from __future__ import annotations

from typing import Any

import pytest

from wanreel.core.errors import InvalidRequest
from wanreel.core.lora import LoraRef
from wanreel.core.picture import PictureRef
from wanreel.core.sweep import MAX_CELLS, Sweep, parse_sweep


def sweep(_prompt: str | None = "a cat", **axes: Any) -> Sweep:
    return parse_sweep({"axes": axes} | ({"prompt": _prompt} if _prompt else {}))


def problems(**values: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRequest) as error:
        parse_sweep({"prompt": "a cat", **values})
    return [(problem.field, problem.code) for problem in error.value.problems]


def test_cells_are_all_combinations_and_the_last_axis_is_the_fastest() -> None:
    cells = sweep(seed=[1, 2, 3], guidance=["3", "3:5"]).cells()
    found = [(cell.request.seed, cell.request.guidance_high, cell.request.guidance_low) for cell in cells]
    assert found == [(1, 3, 3), (1, 3, 5), (2, 3, 3), (2, 3, 5), (3, 3, 3), (3, 3, 5)]
    assert cells[1].places == (0, 1)
    assert cells[1].labels == ("seed 1", "guidance 3 : 5")


def test_loras_are_an_axis_of_strengths() -> None:
    made = parse_sweep({"prompt": "x", "loras": ["other"], "axes": {"lora:film": [0, 0.5, [1, 0.25]]}})
    loras = [cell.request.loras for cell in made.cells()]
    assert loras[2] == (LoraRef("other"), LoraRef("film", strength_high=1.0, strength_low=0.25))
    assert [cell.labels[0] for cell in made.cells()] == ["film 0", "film 0.5", "film 1 : 0.25"]


def test_prompts_alone_need_no_prompt_beside_them() -> None:
    made = sweep(None, prompts=["a cat", "a dog"])
    assert [cell.request.prompt for cell in made.cells()] == ["a cat", "a dog"]
    assert made.cells()[0].labels == ("a cat",)


def test_an_axis_may_be_given_as_a_list_and_by_its_short_name() -> None:
    made = parse_sweep({"prompt": "x", "axes": [{"name": "steps", "values": ["4", 8]}], "title": "Steps"})
    assert [cell.request.num_inference_steps for cell in made.cells()] == [4, 8]
    assert made.title == "Steps"


@pytest.mark.parametrize(
    ("axes", "grid"),
    [
        ({"seed": [1, 2, 3]}, (1, 3)),
        ({"seed": list(range(12))}, (3, 4)),
        ({"seed": [1, 2, 3], "steps": [4, 8]}, (3, 2)),
        ({"prompt": ["a", "b"], "seed": [1, 2], "steps": [4, 8, 9]}, (4, 3)),
        ({"prompt": ["a", "b", "c"], "seed": [1, 2], "steps": [4, 8]}, (3, 4)),
    ],
)
def test_the_grid(axes: Any, grid: tuple[int, int]) -> None:
    assert sweep(**axes).grid == grid


def test_it_comes_back_from_its_record() -> None:
    picture = PictureRef("a" * 64, 64, 48, ("note",))
    values = {"prompt": "x", "image": picture, "loras": [{"name": "a", "strength": 0.5}], "seed": 3}
    made = parse_sweep({**values, "title": "T", "axes": {"guidance": [[3, 4]], "lora:b": [1], "prompt": ["y"]}})
    assert Sweep.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, ("axes", "required")),
        ({"axes": {}}, ("axes", "required")),
        ({"axes": {"width": [64, 128]}}, ("axes", "unknown_value")),
        ({"axes": {"lora:": [1]}}, ("axes", "unknown_value")),
        ({"axes": {"seed": []}}, ("axes", "wrong_type")),
        ({"axes": {"seed": 5}}, ("axes", "wrong_type")),
        ({"axes": {"seed": ["x"]}}, ("axes", "wrong_type")),
        ({"axes": {"seed": [-1]}}, ("axes", "wrong_type")),
        ({"axes": {"steps": [1000]}}, ("axes", "wrong_type")),
        ({"axes": {"guidance": [[1, 2, 3]]}}, ("axes", "wrong_type")),
        ({"axes": {"guidance": ["inf"]}}, ("axes", "wrong_type")),
        ({"axes": {"seed": [1, 1]}}, ("axes", "contradiction")),
        ({"axes": {"steps": [4], "num_inference_steps": [5]}}, ("axes", "contradiction")),
        ({"axes": {"guidance": [3], "guidance_low": [4]}}, ("axes", "contradiction")),
        ({"loras": ["a"], "axes": {"lora:a": [1]}}, ("axes", "contradiction")),
        ({"axes": {"seed": list(range(MAX_CELLS + 1))}}, ("axes", "too_many")),
        (
            {"axes": {name: [1] for name in ("seed", "steps", "shift", "guidance_high", "guided_steps")}},
            ("axes", "too_many"),
        ),
        ({"axes": {"seed": [1]}, "title": "x" * 201}, ("title", "bad_text")),
        ({"axes": {"seed": [1]}, "sead": 1}, ("sead", "unknown_field")),
    ],
)
def test_faults_are_named(values: Any, expected: tuple[str, str]) -> None:
    assert problems(**values) == [expected]


def test_too_many_cells_say_how_many_there_would_be() -> None:
    with pytest.raises(InvalidRequest, match=r"9 × 8 = 72 cells; at most 64"):
        sweep(seed=list(range(9)), steps=list(range(1, 9)))
