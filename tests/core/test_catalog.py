"""The recipe table: each value again, beside the place it was read from."""

from __future__ import annotations

import pytest

from wanreel.core.catalog import MODELS, Catalog
from wanreel.core.errors import UnknownModel

# name: (hub id, steps, shift 480P, shift 720P, guidance high, low, boundary, fps, frames, latent channels, stride, multiple, solver)
# Sources: Wan-Video/Wan2.1 generate.py + README; Wan-Video/Wan2.2 wan/configs/{wan_t2v_A14B,wan_i2v_A14B,wan_ti2v_5B}.py;
# hao-ai-lab/FastVideo fastvideo/configs/pipelines/wan.py; hub ids from the model cards.
OFFICIAL = {
    "t2v-1.3b": ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 50, 8, 8, 6, 6, None, 16, 81, 16, 8, 16, "unipc"),
    "t2v-14b": ("Wan-AI/Wan2.1-T2V-14B-Diffusers", 50, 5, 5, 5, 5, None, 16, 81, 16, 8, 16, "unipc"),
    "i2v-14b-480p": ("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", 40, 3, 5, 5, 5, None, 16, 81, 16, 8, 16, "unipc"),
    "i2v-14b-720p": ("Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", 40, 3, 5, 5, 5, None, 16, 81, 16, 8, 16, "unipc"),
    "flf2v-14b-720p": ("Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers", 50, 16, 16, 5, 5, None, 16, 81, 16, 8, 16, "unipc"),
    "t2v-a14b": ("Wan-AI/Wan2.2-T2V-A14B-Diffusers", 40, 12, 12, 4, 3, 0.875, 16, 81, 16, 8, 16, "unipc"),
    "i2v-a14b": ("Wan-AI/Wan2.2-I2V-A14B-Diffusers", 40, 3, 5, 3.5, 3.5, 0.9, 16, 81, 16, 8, 16, "unipc"),
    "ti2v-5b": ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 50, 5, 5, 5, 5, None, 24, 121, 48, 16, 32, "unipc"),
    "fastwan2.1-t2v-1.3b": ("FastVideo/FastWan2.1-T2V-1.3B-Diffusers", 3, 8, 8, 1, 1, None, 16, 81, 16, 8, 16, "dmd"),
    "fastwan2.2-ti2v-5b": (
        "FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
        3,
        5,
        5,
        1,
        1,
        None,
        24,
        121,
        48,
        16,
        32,
        "dmd",
    ),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_values(name: str) -> None:
    spec = Catalog().get(name)
    assert (
        spec.hub_id,
        spec.steps,
        spec.sizes["480P"].flow_shift,
        spec.sizes["720P"].flow_shift,
        spec.guidance_high,
        spec.guidance_low,
        spec.boundary_ratio,
        spec.fps,
        spec.num_frames,
        spec.latent_channels,
        spec.spatial_stride,
        spec.size_multiple,
        spec.solver,
    ) == OFFICIAL[name]


def test_every_row_is_pinned_and_sourced() -> None:
    assert {spec.name for spec in MODELS} == set(OFFICIAL) | {"demo"}
    assert all(spec.sources for spec in MODELS)
    assert not any(spec.qualified for spec in MODELS), "qualified only with a report in docs/qualified"


def test_official_negative_prompts() -> None:
    by_name = {spec.name: spec.negative_prompt for spec in MODELS}
    assert by_name["t2v-a14b"].startswith("色调艳丽，过曝，静态")
    assert by_name["i2v-a14b"] == by_name["t2v-a14b"], "Wan 2.2 has no prefix"
    assert by_name["i2v-14b-480p"].startswith("镜头晃动，色调艳丽")
    assert by_name["flf2v-14b-720p"].startswith("镜头切换，色调艳丽")


def test_few_step_rows_carry_their_timesteps() -> None:
    for name in ("fastwan2.1-t2v-1.3b", "fastwan2.2-ti2v-5b"):
        spec = Catalog().get(name)
        assert spec.few_step_timesteps == (1000, 757, 522)
        assert spec.steps == 3
        assert spec.solvers == ("dmd",)


@pytest.mark.parametrize("name", [spec.name for spec in MODELS])
def test_rows_are_consistent(name: str) -> None:
    spec = Catalog().get(name)
    assert (spec.experts == 2) == (spec.boundary_ratio is not None)
    assert (spec.num_frames - 1) % spec.temporal_stride == 0
    assert ("text" in spec.modes) or spec.conditioning != "none"
    assert spec.solver in spec.solvers
    for size in spec.sizes.values():
        assert size.width % 2 == 0 and size.height % 2 == 0
    assert Catalog().get(f"tiny:{name}").conditioning == spec.conditioning


@pytest.mark.parametrize(
    ("name", "code", "part"),
    [
        ("t2v-a14", "unknown_model", "t2v-a14b"),
        ("sora", "unknown_model", "wanreel models"),
        ("Wan2.1-VACE-14B", "unsupported_model", "VACE"),
        ("wan2.2-animate-14b", "unsupported_model", "Animate"),
        ("wan2.2-s2v-14b", "unsupported_model", "S2V"),
    ],
)
def test_unknown_models_are_named(name: str, code: str, part: str) -> None:
    with pytest.raises(UnknownModel) as caught:
        Catalog().get(name)
    assert caught.value.problems[0].code == code
    assert name in str(caught.value)
    assert part in str(caught.value)


def test_hub_ids_and_case_are_understood() -> None:
    assert Catalog().get("Wan-AI/Wan2.2-I2V-A14B-Diffusers").name == "i2v-a14b"
    assert Catalog().get(" I2V-A14B ").name == "i2v-a14b"
