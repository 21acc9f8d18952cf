"""Parts of `wanreel bench`: a warm job beside its model, reading weights, a worker's start."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wanreel.core.job import JobEvent
from wanreel.frontends.cli.app import cli
from wanreel.generation.bench import loading
from wanreel.models import stand_in
from wanreel.wiring import overhead, starting
from wanreel.wiring.overhead import Pace, Spent
from wanreel.wiring.starting import Start


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))


def measured(tmp_path: Path, *options: str) -> tuple[dict[str, Any], dict[str, float]]:
    path = tmp_path / "report.json"
    done = CliRunner().invoke(cli, ["bench", "--device", "cpu", *options, "--json", str(path)], standalone_mode=False)
    assert done.exception is None, done.output
    report = json.loads(path.read_text())
    return report, {figure["name"]: figure["seconds"] for figure in report["figures"]}


def test_a_warm_job_is_told_apart_from_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stand_in.Working(0.05, 0.1)
    monkeypatch.setattr(stand_in, "Working", lambda step, decode: found)
    monkeypatch.setattr(overhead, "Pace", partial(Pace, step=0.05, jobs=2))
    options = ("--size", "832x480", "--frames", "5", "--steps", "3", "--decode-seconds", "0.1")
    report, seconds = measured(tmp_path, "--part", "overhead", *options)
    parts = ("claim to first step", "between steps", "last step to frames", "frames to file", "file to record")
    assert seconds["all of a warm job"] == pytest.approx(sum(seconds[part] for part in parts))
    assert all(seconds[part] > 0 for part in parts[:3])
    assert (report["part"], report["subject"]["weights"], report["subject"]["passes"]) == ("overhead", "stand-in", 1)
    assert report["subject"]["plan"] == ""
    assert len(found.steps) == 2 * 3
    # Another seed needs no encoder: prompt and picture were encoded for the job before.
    assert found.encoders == 2


def test_what_a_job_spends_is_what_its_model_does_not() -> None:
    marks = {"claimed": 10.0, "denoised": 20.5, "exported": 24.0, "after_complete": 24.25}
    spent = Spent.of(marks, [(10.5, 14.0), (15.0, 20.0)], decode=3.0)
    assert spent == Spent(begin=0.5, between=1.0, close=0.5, write=0.5, record=0.25)
    assert spent.total == 2.75


def test_weights_are_read_beside_a_plain_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_TIMES", 1)
    report, seconds = measured(tmp_path, "--part", "load", "--model", "t2v-1.3b", "--blocks", "1")
    assert set(seconds) == {f"{state}: {name}" for state in ("cold", "warm") for name in ("plain read", "loader")}
    assert all(value > 0 for value in seconds.values())
    assert all("GB/s" in figure["note"] for figure in report["figures"])


@pytest.mark.parametrize("part", ["overhead", "load"])
def test_real_shapes_are_needed(part: str) -> None:
    done = CliRunner().invoke(cli, ["bench", "--part", part, "--model", "demo"], standalone_mode=False)
    assert "no real shapes" in str(done.exception)


def test_a_start_is_read_from_the_jobs_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = (
        JobEvent(1, "job", 1, "claimed", {}, 101.0),
        JobEvent(2, "job", 2, "loaded", {"seconds": 2.0}, 106.0),
        JobEvent(3, "job", 3, "encoded", {"seconds": 0.5}, 106.75),
        JobEvent(4, "job", 4, "measured", {"denoise": 0.25}, 108.0),
    )
    found = Start.of(100.0, events)
    assert found == Start(claim=1.0, libraries=3.0, model=2.0, prompts=0.75, step=0.25)
    assert found.total == 6.75
    monkeypatch.setattr(starting, "_started", lambda runtime, model: found)
    monkeypatch.setattr(starting, "_PACKAGES", ("wanreel",))
    _, seconds = measured(tmp_path, "--part", "start")
    assert seconds["cold: start to first step"] == seconds["warm: start to first step"] == 6.75


@pytest.mark.deep
def test_a_real_worker_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_TIMES", 1)
    _, seconds = measured(tmp_path, "--part", "start")
    for state in ("cold", "warm"):
        assert seconds[f"{state}: start to first step"] > seconds[f"{state}: libraries"] > 0
