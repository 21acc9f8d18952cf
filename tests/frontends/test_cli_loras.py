"""`wanreel loras` and --lora as a user types them, and a real worker that turns things to gold."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from frontends.test_cli_jobs import Shell
from wanreel import VideoRequest, Wanreel, demo
from wanreel.core.errors import BrokenWeights

GOLD = demo.lora_paths()["gold"]
QUICK = (
    "a red circle moves right over a blue background",
    "--model",
    "demo",
    "--steps",
    "4",
    "--frames",
    "9",
    "--seed",
    "7",
)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    monkeypatch.setenv("WANREEL_MIN_FREE_GB", "0.05")
    return Shell(capsys)


def test_the_shelf(shell: Shell, tmp_path: Path) -> None:
    assert "gold" in shell("loras") and "demo" in shell("loras", "list")
    assert [row["name"] for row in shell.json("loras")] == ["gold"]
    said = shell("loras", "inspect", "gold")
    assert "64 layers" in said and "rank 8" in said and "everything turns to gold" in said and "demo: 64 layers" in said
    assert "width 5120" in shell("loras", "inspect", str(GOLD), "--model", "t2v-14b")
    assert shell.json("loras", "add", str(GOLD), "--name", "mine")["name"] == "mine"
    assert {row["name"] for row in shell.json("loras", "list", "--model", "demo")} == {"gold", "mine"}
    shell("loras", "remove", "mine")
    shell("loras", "inspect", "mine", code=2)
    assert "no LoRA" in shell.error


def test_what_is_wrong_is_said(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"\x80\x04")
    shell("loras", "add", str(tmp_path / "x.pt"), code=3)
    assert "pickle" in shell.error
    for words, text in (
        (("--lora", "silver"), "no LoRA 'silver'"),
        (("--lora", "gold", "--model", "t2v-14b"), "gold is not for t2v-14b"),
        (("--lora", "../gold"), "not the name of a LoRA"),
        (("--lora", "gold@x"), "not the name of a LoRA"),
        (("--lora", str(tmp_path / "nowhere.safetensors")), "not the name of a LoRA"),
        (("--lora", "gold:11"), "not within -10 to 10"),
    ):
        shell("generate", "a", *words, "--dry-run", code=2)
        assert text in shell.error, (words, shell.error)


@pytest.mark.parametrize(
    ("word", "lora"),
    [
        ("gold", (1, 1, "")),
        ("gold:0.5", (0.5, 0.5, "")),
        ("gold:-1", (-1, -1, "")),
        ("gold:0.5@0,1", (0.5, 0.5, "0,1")),
        ("gold@0>1", (1, 1, "0>1")),
    ],
)
def test_the_words_behind_lora(shell: Shell, word: str, lora: tuple[float, float, str]) -> None:
    (found,) = shell.json("generate", "a", "--model", "demo", "--lora", word, "--dry-run")["request"]["loras"]
    assert (found["name"], (found["strength_high"], found["strength_low"], found["schedule"])) == ("gold", lora)


def test_a_strength_for_each_expert(shell: Shell, tmp_path: Path) -> None:
    from models.lora_files import RandomLora
    from wanreel.core.catalog import Catalog
    from wanreel.testing import build_tiny

    path = tmp_path / "style.safetensors"
    RandomLora.of(build_tiny(Catalog().get("tiny:t2v-a14b")).experts[0].transformer).save(path)
    words = ("generate", "a", "--model", "tiny:t2v-a14b", "--dry-run", "--lora")
    (found,) = shell.json(*words, f"{path}:0.5:0.25")["request"]["loras"]
    assert (found["name"], found["strength_high"], found["strength_low"]) == ("style", 0.5, 0.25)
    # The file is on the shelf now, where it lies; another one of its name gets another.
    assert json.loads((tmp_path / "data" / "loras" / "style.json").read_text()) == {"path": str(path)}
    (tmp_path / "other").mkdir()
    shutil.copy(GOLD, tmp_path / "other" / "style.safetensors")
    (found,) = shell.json(
        "generate", "a", "--model", "demo", "--dry-run", "--lora", str(tmp_path / "other" / "style.safetensors")
    )["request"]["loras"]
    assert found["name"] == f"style-{found['sha256'][:8]}"


def test_the_python_door(tmp_path: Path) -> None:
    shutil.copy(GOLD, tmp_path / "shiny.safetensors")
    with Wanreel(data_dir=tmp_path / "data", gpus=()) as reel:
        lora = reel.lora(tmp_path / "shiny.safetensors")
        asked = VideoRequest(prompt="a", model="demo", loras=(replace(lora, strength=0.5),))
        (resolved,) = reel.resolve(asked).request.loras
        assert (resolved.name, resolved.strength_high, resolved.rank) == ("shiny", 0.5, 8)
        with pytest.raises(BrokenWeights, match="pickle"):
            (tmp_path / "x.pt").write_bytes(b"x")
            reel.lora(tmp_path / "x.pt")


def colours(video: Path) -> Any:
    """Mean red, green and blue of the last frame, 0 to 255."""
    with av.open(str(video)) as container:
        *_, last = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    return last.reshape(-1, 3).mean(axis=0).astype(np.float64)


@pytest.mark.timeout(280)
def test_a_worker_turns_things_to_gold_and_back(shell: Shell) -> None:
    """Three jobs of one worker: with, without, with half the strength. Then the manifest, and verify."""
    jobs = [shell.json("submit", *QUICK, *words)["id"] for words in (("--lora", "gold"), (), ("--lora", "gold:0.5"))]
    shell("worker", "--once", "--quiet")
    shown = [shell.json("show", job) for job in jobs]
    assert [job["status"] for job in shown] == ["completed"] * 3, [job["error"] for job in shown]
    gold, plain, half = (colours(Path(job["result"]["path"])) for job in shown)
    # A blue background becomes golden: red and green above blue, by far.
    assert plain[2] > plain[0] + 60 and plain[2] > plain[1] + 60
    assert gold[0] > gold[2] + 40 and gold[1] > gold[2] + 20
    assert gold[2] < half[2] < plain[2]
    assert any("LoRA gold: 64 layers, rank 8, scale 1" in note for note in shown[0]["notes"])
    assert not any("LoRA" in note for note in shown[1]["notes"])

    manifest = json.loads(Path(shown[2]["result"]["path"]).with_suffix(".json").read_text())
    assert manifest["loras"]["gold"]["model"] == {"rank": 8, "matched": 64, "unmatched": 0, "scale": [0.5, 0.5]}
    assert manifest["loras"]["gold"]["sha256"] == manifest["request"]["loras"][0]["sha256"]
    shell("verify", shown[2]["result"]["path"])


@pytest.mark.timeout(280)
def test_a_changed_file_is_refused_by_worker_and_verify(shell: Shell, tmp_path: Path) -> None:
    shelf = tmp_path / "data" / "loras"
    shell("loras", "add", str(GOLD), "--name", "mine")
    done, waiting = (
        shell.json(
            "submit", *QUICK[:1], "--model", "demo", "--steps", "2", "--frames", "5", "--seed", seed, "--lora", "mine"
        )["id"]
        for seed in ("1", "2")
    )
    shell("worker", "--once", "--quiet")
    video = shell.json("show", done)["result"]["path"]
    assert shell.json("show", waiting)["status"] == "completed"
    late = shell.json(
        "submit", *QUICK[:1], "--model", "demo", "--steps", "2", "--frames", "5", "--seed", "3", "--lora", "mine"
    )["id"]
    changed = bytearray(GOLD.read_bytes())
    changed[-1] ^= 1
    (shelf / "mine.safetensors").write_bytes(changed)
    shell("worker", "--once", "--quiet")
    failed = shell.json("show", late)
    assert failed["status"] == "failed" and "another file than the one asked for" in str(failed["error"])
    shell("verify", video, code=2)
    assert "another file now" in shell.error
