"""`wanreel generate` and its neighbours as a user runs them, in this process (one torch import for all)."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wanreel.frontends.cli import main

ROOT = Path(__file__).parent.parent.parent
PHOTO = ROOT / "examples" / "cat.jpg"
QUICK = ("--model", "tiny:ti2v-5b", "--steps", "2", "--frames", "5", "--seed", "1")


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def run_json(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, Any]]:
    code, out, err = run(capsys, *words, "--json")
    assert not err.strip(), err
    return code, json.loads(out)


def test_help_names_every_command_and_knob(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for command in ("generate", "models", "presets", "doctor", "recipe"):
        assert command in out
    _, out, _ = run(capsys, "generate", "--help")
    for flag in (
        "--steps",
        "--resolution",
        "--guidance-high",
        "--flow-shift",
        "--seed",
        "--no-metadata",
        "--from",
        "--dry-run",
    ):
        assert flag in out


def test_help_imports_nothing_heavy() -> None:
    """The reason that `wanreel --help` is quick; the time itself is measured, not asserted."""
    script = (
        "import sys\nfrom wanreel.frontends.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'av', 'PIL', 'numpy', 'pydantic', 'sqlalchemy', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_video_from_a_prompt(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    code, out, err = run(capsys, "generate", "the camera slowly pushes in", *QUICK)
    assert code == 0, err
    assert out == ""
    (video,) = (data_dir / "outputs").glob("*.mp4")
    assert video.name.endswith("_the-camera-slowly-pushes-in.mp4")
    assert str(video) in err.replace("\n", "")


def test_json_has_request_adjustments_and_video(capsys: pytest.CaptureFixture[str]) -> None:
    code, row = run_json(
        capsys, "generate", PHOTO, "it moves", "--model", "tiny:i2v-a14b", "--steps", "2", "--frames", "6"
    )
    assert code == 0
    assert row["request"]["num_frames"] == 5
    assert row["request"]["mode"] == "picture"
    assert any(item["field"] == "num_frames" and item["asked"] == 6 for item in row["adjustments"])
    assert Path(row["video"]["path"]).is_file()
    assert len(row["video"]["sha256"]) == 64


def test_dry_run_makes_nothing(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    code, row = run_json(capsys, "generate", "a cat", "--dry-run")
    assert code == 0
    assert row["request"]["model"] == "demo"
    assert row["adjustments"][0]["field"] == "model"
    assert not (data_dir / "outputs").exists()


def test_out_names_the_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, row = run_json(capsys, "generate", "a cat", *QUICK, "--out", tmp_path / "here")
    assert code == 0
    assert Path(row["video"]["path"]).parent == tmp_path / "here"


def test_out_names_the_file_which_is_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    clip = tmp_path / "new" / "my clip.webm"
    for seed in ("1", "2"):
        code, row = run_json(capsys, "generate", "a cat", *QUICK, "--seed", seed, "-o", clip)
        assert code == 0
        assert row["video"]["path"] == str(clip)
        assert row["request"]["output_format"] == "webm"
    names = sorted(path.name for path in clip.parent.iterdir())
    assert names == ["my clip.last.png", "my clip.poster.jpg", "my clip.webm"]
    assert row["video"]["last_frame"] == str(clip.parent / "my clip.last.png")
    assert hashlib.sha256(clip.read_bytes()).hexdigest() == row["video"]["sha256"]
    _, again = run_json(capsys, "generate", "--from", clip, "-o", tmp_path / "again.webm")
    assert again["video"]["sha256"] == row["video"]["sha256"]


def test_a_folder_that_looks_like_a_file_is_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (folder := tmp_path / "clips.mp4").mkdir()
    code, row = run_json(capsys, "generate", "a cat", *QUICK, "-o", folder)
    assert code == 0
    assert Path(row["video"]["path"]).parent == folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a cat", "-o", "clip.avi"), "not .avi"),
        (("a cat", "-o", "clip.mp4", "--format", "gif"), "--format says gif"),
        (("tasks.jsonl", "-o", "clip.mp4"), "name a folder"),
    ],
)
def test_a_file_name_that_means_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], data_dir: Path, words: tuple[str, ...], said: str
) -> None:
    code, _, err = run(capsys, "generate", *words)
    assert code == 2
    assert said in err
    assert not (data_dir / "outputs").exists()


def test_from_makes_the_same_file_again(capsys: pytest.CaptureFixture[str]) -> None:
    _, first = run_json(capsys, "generate", PHOTO, "it moves", *QUICK)
    code, again = run_json(capsys, "generate", "--from", first["video"]["path"])
    assert code == 0
    assert again["video"]["sha256"] == first["video"]["sha256"]
    assert again["video"]["path"] != first["video"]["path"]
    _, other = run_json(capsys, "generate", "--from", first["video"]["path"], "--seed", "2")
    assert other["request"]["prompt"] == "it moves"
    assert other["video"]["sha256"] != first["video"]["sha256"]


def test_recipe_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, made = run_json(capsys, "generate", "a cat — 猫", *QUICK)
    code, out, _ = run(capsys, "recipe", made["video"]["path"])
    assert code == 0 and "a cat — 猫" in out
    _, bare = run_json(capsys, "generate", "a secret", *QUICK, "--no-metadata")
    code, out, err = run(capsys, "recipe", bare["video"]["path"])
    assert code == 2 and "recipe" in err
    assert b"a secret" not in Path(bare["video"]["path"]).read_bytes()


def test_a_folder_of_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(PHOTO.read_bytes())
    (folder / "b.png").write_bytes(b"not a picture")
    (folder / "c.jpg").write_bytes(PHOTO.read_bytes())
    (folder / "notes.txt").write_text("not even named like one")
    code, out, _ = run(capsys, "generate", folder, "it moves", *QUICK, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 6
    assert [(row["item"], row["ok"]) for row in rows] == [("a.jpg", True), ("b.png", False), ("c.jpg", True)]
    assert rows[1]["error"]["problems"][0]["field"] == "image"
    code, _, err = run(capsys, "generate", folder, "it moves", *QUICK)
    assert code == 6 and "2 of 3 done" in err and "1 failed" in err


def test_a_jsonl_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(PHOTO.read_bytes())
    tasks = tmp_path / "tasks.jsonl"
    rows = [{"prompt": "one", "seed": 4}, {"prompt": "two", "image": "cat.jpg"}, {"prompt": "three", "stepz": 2}]
    tasks.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    code, out, _ = run(capsys, "generate", tasks, *QUICK, "--json")
    made = [json.loads(line) for line in out.splitlines()]
    assert code == 6
    assert [row["ok"] for row in made] == [True, True, False]
    assert made[0]["request"]["seed"] == 4 and made[1]["request"]["seed"] == 1
    assert made[1]["request"]["mode"] == "picture"


BAD: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    (("",), 2, ("prompt", "empty")),
    ((), 2, ("prompt",)),
    (("a cat", "--steps", "0", "--seed", "-9"), 2, ("num_inference_steps", "0 is not within 1 to 100", "seed")),
    (("a cat", "--model", "nope"), 2, ("'nope'",)),
    (("a cat", "--model", "wan-vace"), 2, ("VACE", "not supported")),
    (("a cat", "--model", "tiny:i2v-a14b"), 2, ("starts from a picture",)),
    (("missing.jpg", "a cat"), 2, ("missing.jpg", "can't be read")),
    (("a", "b", "c"), 2, ("quotes",)),
    (("a cat", "--steps", "many"), 2, ("many",)),
    (("a cat", "--preset", "ultra"), 2, ("ultra", "draft")),
    (("a cat", "--model", "t2v-14b"), 3, ("not installed", "t2v-14b")),
    (("a cat", "--device", "cuda:99"), 2, ("cuda:99",)),
    (("a cat", "--device", "quantum"), 2, ("quantum",)),
    (("nosuch.jsonl",), 2, ("nosuch.jsonl",)),
    (("--from", "nosuch.mp4"), 2, ("nosuch.mp4",)),
]


@pytest.mark.parametrize(("words", "code", "parts"), BAD, ids=[" ".join(row[0])[:40] or "nothing" for row in BAD])
def test_bad_input(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    got, out, err = run(capsys, "generate", *words)
    assert got == code, err
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    assert out == ""


def test_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, row = run_json(capsys, "generate", "a cat", "--steps", "0")
    assert code == 2
    assert row["error"]["code"] == "invalid_request"
    assert row["error"]["problems"][0]["field"] == "num_inference_steps"


def test_bad_settings_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_MAX_QUEUE_SIZE", "none")
    code, _, err = run(capsys, "generate", "a cat", "--dry-run")
    assert code == 2
    assert "max_queue_size" in err and "Traceback" not in err


def test_rows_of_the_operator(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "config.toml").write_text('[models.mine]\nbase = "i2v-a14b"\nfolder = "/nowhere/mine"\nsteps = 30\n')
    code, out, _ = run(capsys, "models", "--json")
    mine = next(row for row in json.loads(out) if row["name"] == "mine")
    assert code == 0
    assert (mine["steps"], mine["boundary_ratio"], mine["installed"]) == (30, 0.9, False)
    code, _, err = run(capsys, "generate", PHOTO, "it moves", "--model", "mine")
    assert code == 3 and "/nowhere/mine" in err


def test_models_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "models")
    assert code == 0 and "i2v-a14b" in out and "demo" in out
    code, out, _ = run(capsys, "presets", "--json", "--model", "t2v-a14b")
    facts = json.loads(out)["t2v-a14b"]
    assert facts["steps"]["draft"] == 20 and facts["sizes"]["480P"]["flow_shift"] == 12
    code, out, _ = run(capsys, "presets")
    assert code == 0 and "fastwan2.2-ti2v-5b" in out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor", "--json")
    found = {finding["subject"]: finding for finding in json.loads(out)}
    assert code == 0, found
    assert found["torch"]["status"] == "ok"
    assert "demo" in found["models"]["text"]
    code, out, _ = run(capsys, "doctor")
    assert code == 0 and "✓" in out


def test_a_mistyped_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "genrate", "a cat")
    assert code == 2 and "generate" in err


def test_qualify_compares_with_diffusers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, _, err = run(capsys, "models", "qualify", "tiny:i2v-a14b", "--out", report)
    assert code == 0, err
    assert "qualified" in err and "equal to the bit" in err
    facts = json.loads(report.read_text())
    assert facts["passed"] is True
    assert str(tmp_path) not in report.read_text(), "a report to share holds no paths"
    code, _, err = run(capsys, "models", "qualify", "t2v-14b")
    assert code == 3 and "not installed" in err
    code, _, err = run(capsys, "models", "qualify", "tiny:t2v-14b", "--folder", tmp_path)
    assert code == 3, err
