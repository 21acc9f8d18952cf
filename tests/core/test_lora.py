"""Names, strengths and schedules of LoRAs; few-step presets that take them from the shelf."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanreel.core.catalog import MODELS, Catalog, ModelSpec
from wanreel.core.errors import InvalidRequest
from wanreel.core.few_step import RECIPES, without_recipe
from wanreel.core.lora import (
    LoraFacts,
    LoraRef,
    ResolvedLora,
    bucket_for,
    factor_at,
    problems_of,
    shares,
    stem_of_pair,
    target_of,
)
from wanreel.core.machines import Machine
from wanreel.core.memory import price
from wanreel.core.picture import PictureRef
from wanreel.core.placement import Placement
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.workload import Workload

I2V_HIGH = "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022"
I2V_LOW = I2V_HIGH.replace("high", "low")
T2V_HIGH = "wan2.2_t2v_A14b_high_noise_lora_rank64_lightx2v_4step_1217"
T2V_LOW = T2V_HIGH.replace("high", "low")
GPU = Machine(gpu="H200", gpu_total=141 << 30, gpu_free=141 << 30, capability=(9, 0), host_free=200 << 30)
PICTURE = PictureRef("0" * 64, 1280, 720)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        (I2V_HIGH, "high"),
        (I2V_LOW, "low"),
        ("high_noise_model", "high"),
        ("low_noise_model.safetensors", "low"),
        ("Wan22_A14B_T2V_LOW_Lightning_4steps_lora_250928_rank64_fp16", "low"),
        ("MyStyleHighNoise", "high"),
        ("style-HIGH", "high"),
        ("Wan2.2-Fun-A14B-InP-low-noise-HPS2.1", "low"),
        ("highway-at-night", "both"),
        ("slow_motion", "both"),
        ("follow-cam", "both"),
        ("gold", "both"),
        ("style_high_low_merged", "both"),
    ],
)
def test_a_name_says_which_expert(name: str, target: str) -> None:
    assert target_of(name) == target


def test_pairs_have_one_stem_and_others_have_not() -> None:
    for one, other in ((I2V_HIGH, I2V_LOW), ("a-HIGH", "a-low"), ("StyleHighNoise", "StyleLowNoise")):
        assert stem_of_pair(one) == stem_of_pair(other)
    assert stem_of_pair(I2V_HIGH) != stem_of_pair(T2V_LOW)


@pytest.mark.parametrize(
    ("schedule", "total", "factors"),
    [
        ("", 3, [1, 1, 1]),
        ("0.5", 3, [0.5, 0.5, 0.5]),
        ("0,1", 4, [0, 0, 1, 1]),
        ("0,1", 5, [0, 0, 0, 1, 1]),
        ("1,0,0.25", 3, [1, 0, 0.25]),
        ("0>1", 5, [0, 0.25, 0.5, 0.75, 1]),
        ("1>0", 1, [1]),
        ("0,0>1,1", 9, [0, 0, 0, 0, 0.5, 1, 1, 1, 1]),
        (" -1 , 2 ", 2, [-1, 2]),
        ("0,1,1,1,1,1,1,1", 8, [0, 1, 1, 1, 1, 1, 1, 1]),
        ("1,2,3,4", 2, [1, 3]),
    ],
)
def test_schedules(schedule: str, total: int, factors: list[float]) -> None:
    assert [factor_at(schedule, step, total) for step in range(total)] == pytest.approx(factors)


@pytest.mark.parametrize("schedule", ["x", "1,,2", "1>2>3", "nan", "1,inf", "11", "1;2", ",".join(["1"] * 101)])
def test_schedules_that_mean_nothing(schedule: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        shares(schedule)
    assert [problem.code for problem in problems_of(LoraRef("a", schedule=schedule))] == ["bad_schedule"]


@given(st.text(max_size=40))
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    codes = [problem.code for problem in problems_of(LoraRef("a", schedule=text))]
    assert codes in ([], ["bad_schedule"])
    if not codes:
        assert all(abs(factor_at(text, step, 7)) <= 10 for step in range(7))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc/passwd",
        "C:\\x",
        "-x",
        ".hidden",
        "a b",
        "ä",
        "a" * 65,
        "a\x00b",
        "a\n",
    ],
)
def test_paths_and_odd_names_are_no_loras(name: str) -> None:
    assert [problem.code for problem in problems_of(LoraRef(name))] == ["bad_name"]


def test_strengths_have_bounds() -> None:
    for bad in (11.0, -11.0, float("nan"), float("inf")):
        assert [problem.code for problem in problems_of(LoraRef("a", bad))] == ["out_of_range"]
    assert not list(problems_of(LoraRef("a", -10, 10)))


@pytest.mark.parametrize(
    ("given", "ref"),
    [
        ("gold", LoraRef("gold")),
        ({"name": "gold", "strength": "0.5"}, LoraRef("gold", strength=0.5)),
        ({"path": "gold", "scale": 0.5}, LoraRef("gold", strength=0.5)),
        ({"lora_name": "gold", "high": 1, "low": 0}, LoraRef("gold", 1.0, 0.0)),
        ({"name": "gold", "schedule": "0,1", "strength_low": None}, LoraRef("gold", schedule="0,1")),
        (LoraRef("gold"), LoraRef("gold")),
    ],
)
def test_what_clients_send(given: Any, ref: LoraRef) -> None:
    for knob in ("loras", "lora"):
        for value in ([given], given):
            assert VideoRequest.from_mapping({"prompt": "a", knob: value}).loras == (ref,)


@pytest.mark.parametrize(
    "given",
    [
        3,
        [3],
        [{}],
        [{"name": 3}],
        [{"name": "a", "path": "b"}],
        [{"name": "a", "x": 1}],
        [{"name": "a", "schedule": 1}],
    ],
)
def test_what_is_no_lora(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="loras"):
        VideoRequest.from_mapping({"prompt": "a", "loras": given})


def test_the_same_twice_and_too_many() -> None:
    codes = {problem.code for problem in VideoRequest(prompt="a", loras=(LoraRef("a"), LoraRef("a", 0.5))).problems()}
    assert codes == {"contradiction"}
    many = tuple(LoraRef(f"a{number}") for number in range(17))
    assert {problem.code for problem in VideoRequest(prompt="a", loras=many).problems()} == {"too_many"}


# In requests


def facts(ref: LoraRef, spec: ModelSpec) -> LoraFacts:
    """A shelf where every name is a file that fits."""
    if ref.name == "missing":
        raise InvalidRequest.of("loras", "no_lora", "there is no LoRA 'missing' here.")
    partner = ref.name.replace("high", "*").replace("low", "high").replace("*", "low")
    return LoraFacts(ref.name, "a" * 64, target_of(ref.name), partner if partner != ref.name else "")


def resolved(*names: str, **asked: Any) -> Resolution:
    """With `names` on the shelf."""
    defaults = Defaults(
        {"text": "t2v-a14b", "picture": "i2v-a14b"},
        frozenset(spec.name for spec in MODELS),
        lora_names=names,
        lora=facts,
    )
    values: dict[str, Any] = {"prompt": "a cat"} | asked
    return resolve(VideoRequest(**values), Catalog(), defaults, lambda: 7)


def said(resolution: Resolution, field: str) -> str:
    return "; ".join(str(adjustment) for adjustment in resolution.adjustments if adjustment.field == field)


def test_a_file_for_one_expert_is_put_there_and_said() -> None:
    resolution = resolved(model="t2v-a14b", loras=(LoraRef("x-high", strength=0.8),))
    assert resolution.request.loras == (ResolvedLora("x-high", "a" * 64, 0.8, 0.0),)
    assert "high-noise expert alone" in said(resolution, "loras") and "x-low was not asked for" in said(
        resolution, "loras"
    )
    both = resolved(model="t2v-a14b", loras=(LoraRef("x-high"), LoraRef("x-low")))
    assert [(lora.strength_high, lora.strength_low) for lora in both.request.loras] == [(1, 0), (0, 1)]
    assert "alone" not in said(both, "loras")


def test_one_file_for_both_experts_is_explained() -> None:
    resolution = resolved(model="t2v-a14b", loras=(LoraRef("style"),))
    assert (resolution.request.loras[0].strength_high, resolution.request.loras[0].strength_low) == (1, 1)
    assert "one file for both experts" in said(resolution, "loras")


def test_strengths_asked_for_win_over_the_name() -> None:
    resolution = resolved(model="t2v-a14b", loras=(LoraRef("x-high", 0.3, 0.4),))
    assert (resolution.request.loras[0].strength_high, resolution.request.loras[0].strength_low) == (0.3, 0.4)
    assert not said(resolution, "loras")


def test_one_expert_has_one_strength() -> None:
    resolution = resolved(model="t2v-14b", loras=(LoraRef("x-low", strength=0.6),))
    assert (resolution.request.loras[0].strength_high, resolution.request.loras[0].strength_low) == (0.6, 0.6)
    other = resolved(model="t2v-14b", loras=(LoraRef("x", 0.3, 0.4),))
    assert "one expert" in said(other, "loras")


def test_every_problem_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolved(model="t2v-a14b", loras=(LoraRef("missing"), LoraRef("x")))
    assert [problem.code for problem in caught.value.problems] == ["no_lora"]


def test_strength_by_step_and_expert() -> None:
    lora = ResolvedLora("x", "a" * 64, 2.0, 0.5, "0,1")
    assert [lora.at(step, 4, 0) for step in range(4)] == [0, 0, 2, 2]
    assert [lora.at(step, 4, 1) for step in range(4)] == [0, 0, 0.5, 0.5]
    assert lora.used_on(0, 4) and not ResolvedLora("x", "", 0.0, 1.0).used_on(0, 4)
    assert not ResolvedLora("x", "", 1.0, 1.0, "0").used_on(0, 4)


# Few-step presets


def test_fast_takes_the_pair_and_its_recipe() -> None:
    resolution = resolved(I2V_HIGH, I2V_LOW, "gold", model="i2v-a14b", image=PICTURE, preset="fast")
    request = resolution.request
    assert (request.num_inference_steps, request.solver, request.flow_shift) == (4, "euler", 5)
    assert (request.guidance_high, request.guidance_low, request.guided_steps) == (1, 1, 0)
    assert request.boundary_ratio == 0.9
    assert request.loras == (ResolvedLora(I2V_HIGH, "a" * 64, 1, 0), ResolvedLora(I2V_LOW, "a" * 64, 0, 1))
    assert I2V_HIGH in said(resolution, "preset")


def test_motion_has_a_first_step_without_lora_and_with_guidance() -> None:
    request = resolved(I2V_HIGH, I2V_LOW, model="i2v-a14b", image=PICTURE, preset="motion").request
    assert (request.num_inference_steps, request.flow_shift, request.boundary_ratio) == (8, 3, 0.8)
    assert request.guided_steps == 1
    high, low = request.loras
    assert [high.at(step, 8, 0) for step in range(8)] == [0, 1, 1, 1, 1, 1, 1, 1]
    assert low.at(0, 8, 1) == 1


@pytest.mark.parametrize("preset", ["fast", "motion"])
def test_without_the_pair_it_says_what_to_install(preset: Any) -> None:
    for shelf in ((), (I2V_HIGH,), (T2V_HIGH, T2V_LOW)):
        with pytest.raises(InvalidRequest) as caught:
            resolved(*shelf, model="i2v-a14b", image=PICTURE, preset=preset)
        (problem,) = caught.value.problems
        assert (problem.field, problem.code) == ("preset", "not_installed")
        assert "lightx2v/Wan2.2-Distill-Loras" in problem.hint and f"{I2V_HIGH}.safetensors" in problem.hint


@pytest.mark.parametrize(
    ("model", "names", "steps", "solver", "shift"),
    [
        ("t2v-a14b", (T2V_HIGH, T2V_LOW), 4, "euler", 5),
        ("t2v-a14b", ("t2v-lightning-high", "t2v-lightning-low"), 4, "euler", 5),
        (
            "t2v-a14b",
            (
                "Wan22_A14B_T2V_HIGH_Lightning_4steps_lora_250928_rank128_fp16",
                "Wan22_A14B_T2V_LOW_Lightning_4steps_lora_250928_rank64_fp16",
            ),
            4,
            "euler",
            5,
        ),
        ("t2v-14b", ("wan2.1_t2v_14b_lora_rank64_lightx2v_4step",), 4, "distill", 5),
        ("t2v-14b", ("lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank128_bf16",), 4, "distill", 5),
        ("i2v-14b-720p", ("wan2.1_i2v_lora_rank64_lightx2v_4step",), 4, "distill", 5),
        ("ti2v-5b", ("Wan2_2_5B_FastWanFullAttn_lora_rank_128_bf16",), 3, "dmd", 5),
    ],
)
def test_recipes_know_their_loras(model: str, names: tuple[str, ...], steps: int, solver: str, shift: float) -> None:
    picture: dict[str, Any] = {"image": PICTURE} if model.startswith("i2v") else {}
    request = resolved(*names, model=model, preset="fast", **picture).request
    assert (request.num_inference_steps, request.solver, request.flow_shift) == (steps, solver, shift)
    assert tuple(lora.name for lora in request.loras) == names
    assert (request.guidance_high, request.guidance_low) == (1, 1)


def test_what_the_user_says_wins_over_the_recipe() -> None:
    request = resolved(
        T2V_HIGH, T2V_LOW, model="t2v-a14b", preset="fast", num_inference_steps=6, flow_shift=8.0, guidance_high=2.0,
        loras=(LoraRef(T2V_HIGH, 1.5, 0.0), LoraRef("style")),
    ).request  # fmt: skip
    assert (request.num_inference_steps, request.flow_shift, request.guidance_high) == (6, 8, 2)
    assert [lora.name for lora in request.loras] == [T2V_HIGH, "style", T2V_LOW]
    assert request.loras[0].strength_high == 1.5


@pytest.mark.parametrize("preset", ["fast", "motion"])
def test_a_resolved_few_step_request_resolves_to_itself(preset: Any) -> None:
    cases: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
        ("i2v-a14b", (I2V_HIGH, I2V_LOW), {"image": PICTURE}),
        ("t2v-14b", ("wan2.1_t2v_14b_lora_rank64_lightx2v_4step",), {}),
    )
    for model, names, more in cases:
        if model == "t2v-14b" and preset == "motion":
            continue
        first = resolved(*names, model=model, preset=preset, **more).request
        again = resolve(
            first.as_request(),
            Catalog(),
            Defaults({}, frozenset(), lora_names=names, lora=facts),
            lambda: pytest.fail("the seed is given"),
        ).request
        assert again == first
        assert ResolvedRequest.from_dict(first.to_dict()) == first


def test_fixed_solvers_have_their_steps() -> None:
    asked: dict[str, Any] = {"model": "t2v-14b", "loras": (LoraRef("x"),), "solver": "distill"}
    assert resolved(**asked).request.num_inference_steps == 4
    with pytest.raises(InvalidRequest, match="4 fixed steps"):
        resolved(**asked, num_inference_steps=5)
    with pytest.raises(InvalidRequest, match="does not run with distill"):
        resolved(model="t2v-14b", solver="distill")


def test_every_recipe_is_of_a_shipped_model_and_has_sources() -> None:
    names = {spec.name for spec in MODELS}
    for recipe in RECIPES:
        assert set(recipe.models) <= names and recipe.sources and recipe.pairs
        experts = {Catalog().get(name).experts for name in recipe.models}
        for pair in recipe.pairs:
            assert {1 + bool(pair.low)} == experts
            assert re.compile(pair.high) and re.compile(pair.low)


def test_the_chapter_names_every_recipe() -> None:
    text = (Path(__file__).parents[2] / "docs" / "loras.md").read_text(encoding="utf-8")
    for recipe in RECIPES:
        row = next(
            line for line in text.splitlines() if line.startswith(f"| `{recipe.preset}`") and recipe.models[0] in line
        )
        assert f"| {recipe.steps} | {recipe.solver} |" in row, row
        for pair in recipe.pairs:
            repository, _, files = pair.where.partition(": ")
            assert repository in text
            first = files.partition(".safetensors")[0].rpartition("/")[2]
            assert first in text or "--name" in pair.where


def test_a_boundary_is_for_two_experts() -> None:
    assert resolved(model="t2v-a14b", boundary_ratio=0.5).request.boundary_ratio == 0.5
    assert resolved(model="t2v-a14b").request.boundary_ratio == 0.875
    one = resolved(model="t2v-14b", boundary_ratio=0.5)
    assert one.request.boundary_ratio is None and "one expert" in said(one, "boundary_ratio")


def test_another_preset_leaves_the_recipe_behind() -> None:
    fast = resolved(T2V_HIGH, T2V_LOW, model="t2v-a14b", preset="fast", loras=(LoraRef("style"),)).request.as_request()
    values = {name: getattr(fast, name) for name in VideoRequest.__dataclass_fields__}
    kept = without_recipe(values)
    assert [lora.name for lora in kept["loras"]] == ["style"]
    assert not {"guidance_high", "flow_shift", "solver", "boundary_ratio", "guided_steps"} & set(kept)
    own = values | {"loras": (LoraRef("style"),)}
    assert without_recipe(own) == own  # nothing of a recipe: guidance that was asked for stays


def test_memory_counts_what_one_expert_carries() -> None:
    high, low, style = (
        ResolvedLora("h", "", 1, 0, rank=64),
        ResolvedLora("l", "", 0, 1, rank=32),
        ResolvedLora("s", "", 1, 1, rank=8),
    )
    assert bucket_for(()) == 0
    assert bucket_for((high, low)) == 64
    assert bucket_for((high, low, style)) == 128
    request = resolved(model="t2v-a14b").request
    spec = Catalog().get("t2v-a14b")
    bare, worn = (Workload.of(spec, replace(request, loras=loras)) for loras in ((), (high, low)))
    # 40 blocks: eight square matrices of 5120 and the feed-forward's two, rank 64, two bytes a number.
    assert (bare.lora_block, 40 * worn.lora_block) == (0, 40 * 2 * 64 * (8 * 2 * 5120 + 2 * (5120 + 13824)))
    assert price(worn, GPU, Placement()).gpu_bytes - price(bare, GPU, Placement()).gpu_bytes == 2 * 40 * worn.lora_block
