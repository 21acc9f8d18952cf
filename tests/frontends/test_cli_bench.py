"""`wanreel bench` measures a tiny model on this processor, beside Diffusers, and writes what may be shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from wanreel.frontends.cli.app import cli

ARGUMENTS = ("--size", "64x64", "--frames", "5", "--steps", "2", "--device", "cpu")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "secret-place"))
    return tmp_path


def test_a_machine_is_measured_and_its_report_shared(data: Path) -> None:
    whole, shared = data / "whole.json", data / "shared.json"
    options = ("--model", "tiny:i2v-a14b", "--against", "diffusers", "--json", whole, "--share-json", shared)
    done = CliRunner().invoke(cli, ["bench", *ARGUMENTS, *map(str, options)], standalone_mode=False)
    assert done.exception is None, done.output
    report = json.loads(whole.read_text())
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert {
        "prompts",
        "prompts and pictures, warm",
        "step",
        "decode",
        "first request",
        "warm request",
    } <= figures.keys()
    assert all(figure["seconds"] > 0 for figure in figures.values())
    assert figures["step"]["ratio"] > 0
    assert figures["decode"]["ratio"] > 0
    assert figures["warm request"]["seconds"] > figures["step"]["seconds"]
    assert report["subject"] | {"plan": ""} == {
        "model": "tiny:i2v-a14b", "weights": "tiny", "compute": "exact", "mode": "picture", "width": 64, "height": 64,
        "num_frames": 5, "steps": 2, "passes": 2, "plan": "",
    }  # fmt: skip
    assert report["ceiling_tflops"] > 0
    assert str(data) not in shared.read_text()
    assert json.loads(shared.read_text())["figures"] == report["figures"]
    assert list((data / "secret-place").rglob("*.mp4")) == []


def test_weights_are_drawn_for_real_shapes_alone(data: Path) -> None:
    done = CliRunner().invoke(cli, ["bench", "--random-weights", *ARGUMENTS], standalone_mode=False)
    assert "no real shapes" in str(done.exception)


def test_a_size_that_is_none_is_refused(data: Path) -> None:
    done = CliRunner().invoke(cli, ["bench", "--size", "large", "--device", "cpu"])
    assert done.exit_code == 2
    assert "WIDTHxHEIGHT" in done.output
