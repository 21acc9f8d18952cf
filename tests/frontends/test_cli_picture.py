"""`wanreel picture` as a user runs it, with tiny models, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wanreel.frontends.cli import main
from wanreel.media.recipe import read_recipe

PHOTO = Path(__file__).parents[2] / "examples" / "cat.jpg"
TINY = ("--model", "tiny:sdxl-base", "--steps", "2", "--seed", "7")


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    monkeypatch.setenv("WANREEL_MIN_FREE_GB", "0.05")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is broken, however long the paths of this machine are."""
    monkeypatch.setenv("COLUMNS", "500")


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def run_json(capsys: pytest.CaptureFixture[str], *words: str | Path) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    assert code == 0 and not err.strip(), (out, err)
    return json.loads(out)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_the_file_that_was_named_with_its_recipe(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    code, out, err = run(capsys, "picture", "a red fox — 狐", *TINY, "-o", "first.png")
    assert (code, out) == (0, ""), err
    assert "first.png" in err and size_of(Path("first.png")) == (64, 64)
    asked = json.loads(read_recipe(Path("first.png")))["request"]
    assert (asked["prompt"], asked["model"], asked["seed"], asked["num_inference_steps"]) == (
        "a red fox — 狐",
        "tiny:sdxl-base",
        7,
        2,
    )
    assert not (data_dir / "outputs").exists()
    code, out, _ = run(capsys, "recipe", "first.png")
    assert code == 0 and "a red fox — 狐" in out
    run_json(capsys, "picture", "--from", "first.png", "-o", "again.png")
    assert Path("again.png").read_bytes() == Path("first.png").read_bytes()


def test_several_in_a_folder_without_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "picture", "a secret", *TINY, "-n", "2", "--no-metadata", "-o", "v1.2")
    paths = [Path(path) for path in made["picture"]["paths"]]
    assert [path.parent.name for path in paths] == ["v1.2", "v1.2"]
    assert paths[0].read_bytes() != paths[1].read_bytes()
    assert not any(b"a secret" in path.read_bytes() for path in paths)


def test_from_a_picture_through_the_refiner(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(
        capsys, "picture", PHOTO, "the same at night", *TINY, "--refiner-steps", "2", "--strength", "0.9", "-o", "n.png"
    )
    assert made["request"]["image"]["sha256"] and made["request"]["refiner"] == "tiny:sdxl-refiner"
    width, height = size_of(Path("n.png"))
    assert width > height, "the shape is the photo's"
    other = run_json(capsys, "picture", "the same at night", *TINY, "-o", "other.png")
    assert other["picture"]["sha256"] != made["picture"]["sha256"]


def test_animate_makes_the_video_that_begins_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    animate = ("--animate", "it turns", "--video-model", "demo")
    made = run_json(capsys, "picture", "a red fox", *TINY, "-o", "f.png", *animate)
    video = Path(made["video"]["path"])
    assert video.is_file() and video.parent == Path("f.png").resolve().parent
    asked = json.loads(read_recipe(video))["request"]
    assert (asked["prompt"], asked["mode"], asked["seed"]) == ("it turns", "picture", 7)
    assert (asked["image"]["width"], asked["image"]["height"]) == size_of(Path("f.png"))


def test_queued_and_made_by_a_worker(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    queued = run_json(capsys, "picture", "a red fox", *TINY, "--queue")
    assert queued["status"] == "queued" and not (data_dir / "outputs").exists()
    assert run_json(capsys, "show", queued["id"])["result"] is None
    code, _, err = run(capsys, "worker", "--once", "--quiet")
    assert code == 0, err
    done = run_json(capsys, "show", queued["id"][:8])
    assert done["status"] == "completed", done
    result = done["result"]
    assert result["media_type"] == "image/png" and set(result["files"]) == {"picture", "poster", "manifest"}
    assert json.loads(read_recipe(Path(result["path"])))["request"]["seed"] == 7
    here = run_json(capsys, "picture", "a red fox", *TINY, "-o", "here.png")
    assert here["picture"]["sha256"] == result["sha256"], "the same as made at once"


BAD: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = [
    ((), 2, ("prompt", "empty")),
    (("a", "b", "c"), 2, ("At most a picture and a prompt",)),
    (("missing.jpg", "a cat"), 2, ("missing.jpg", "can't be read")),
    (("a cat", "--steps", "0", "--seed", "-9"), 2, ("num_inference_steps", "seed")),
    (("a cat", "--model", "nope"), 2, ("'nope'",)),
    (("a cat", "--model", "tiny:sdxl-refiner"), 2, ("starts from a picture",)),
    (("a cat", "--model", "tiny:sdxl-base", "--width", "512"), 2, ("more than tiny:sdxl-base makes",)),
    (("a cat", "--solver", "magic"), 2, ("magic", "euler")),
    (("a cat", "--no-download"), 3, ("sdxl-base", "not installed")),
    (("a cat", "-o", "first.jpg"), 2, ("PNG", "first.png")),
    (("a cat", "--queue", "-o", "first.png"), 2, ("--queue",)),
    (("a cat", *TINY, "--video-model", "demo"), 2, ("--animate",)),
    (("a cat", *TINY, "-o", "first.png", "--animate", "it moves", "--video-model", "nope"), 2, ("'nope'",)),
    (("--from", "nosuch.png"), 2, ("nosuch.png",)),
    (("--from", str(PHOTO)), 2, ("cat.jpg",)),
]


@pytest.mark.parametrize(("words", "code", "parts"), BAD, ids=[" ".join(row[0])[-40:] or "nothing" for row in BAD])
def test_bad_input(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], code: int, parts: tuple[str, ...]
) -> None:
    got, out, err = run(capsys, "picture", *words)
    assert (got, out) == (code, ""), err
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    assert not list(tmp_path.glob("*.png")) and not (tmp_path / "first.jpg").exists()


def test_a_videos_recipe_is_not_a_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    video = run_json(capsys, "generate", "it", "--model", "demo", "--frames", "5", "--steps", "1", "-o", "v")["video"]
    code, _, err = run(capsys, "picture", "--from", video["path"])
    assert code == 2 and "is a video" in err and "wanreel generate --from" in err


EDIT = ("--model", "tiny:qwen-image-edit-2509", "--steps", "2", "--seed", "7")


def test_a_picture_is_changed_by_instruction(capsys: pytest.CaptureFixture[str]) -> None:
    made = run_json(capsys, "picture", "edit", PHOTO, "make it {night|day}", *EDIT, "-o", "night.png")
    asked = json.loads(read_recipe(Path("night.png")))["request"]
    assert asked["original_prompt"] == "make it {night|day}" and asked["prompt"] in ("make it night", "make it day")
    assert made["request"]["image"]["sha256"] == asked["image"]["sha256"]
    code, _, err = run(capsys, "picture", "edit", "make it night", *EDIT)
    assert code == 2 and "a picture and a prompt" in err
    code, _, err = run(capsys, "picture", "edit", PHOTO, "make it night", *TINY)
    assert code == 2 and "changes no pictures by instruction" in err


def test_picture_edit_animate_in_one_call(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--edit-prompt", "make it night", "--edit-model", "tiny:qwen-image-edit-2509", "--model", "tiny:ti2v-5b")
    size = ("--width", "64", "--height", "64", "--num-frames", "5", "--steps", "2", "--seed", "3")
    made = run_json(capsys, "generate", PHOTO, "it purrs", *words, *size)
    video = Path(made["video"]["path"])
    assert min(size_of(video.with_suffix(".keyframe.png"))) >= 32
    again = run_json(capsys, "generate", "--from", video)
    assert again["video"]["sha256"] == made["video"]["sha256"]
