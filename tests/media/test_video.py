"""Videos as written: exact, equal to the byte, whole or not there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from PIL import Image

from wanreel.core.errors import ExportFailed, InsufficientStorage, InvalidRequest, UnreadableRecipe
from wanreel.media.animation import durations, encode_animation
from wanreel.media.recipe import read_recipe, recipe_metadata
from wanreel.media.video import (
    VideoFormat,
    VideoWriter,
    exact_rate,
    missing_encoders,
    probe,
    read_frames,
    write_png,
    write_poster,
)
from wanreel.storage.outputs import reserve

KINDS = ("mp4", "webm", "webp", "gif", "mov")
RECIPE = json.dumps(
    {"wanreel": 1, "prompt": 'a 猫 says "hi" &amp; & <b></dc:description>\u202e\n' + "long " * 40_000},
    ensure_ascii=False,
)


def clip(frames: int = 9, width: int = 96, height: int = 64) -> Any:
    """A blue square over red, moving right by four pixels a frame."""
    made = np.zeros((frames, height, width, 3), np.uint8)
    made[..., 0] = 255
    for index in range(frames):
        made[index, 20:40, 4 * index : 4 * index + 20] = (0, 0, 255)
    return made


def write(path: Path, frames: Any, metadata: Any = None, **facts: Any) -> Any:
    facts = {"width": frames.shape[2], "height": frames.shape[1], "fps": 16, "kind": path.suffix[1:]} | facts
    with VideoWriter(path, VideoFormat(**facts), metadata) as writer:
        for frame in frames:
            writer.write(frame[None])
    return writer.result


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "h264"), ("webm", "vp9")])
@pytest.mark.parametrize("fps", [16, 24, 23.976, 7.5])
def test_frames_and_rate_are_exact(tmp_path: Path, kind: str, codec: str, fps: float) -> None:
    written = write(tmp_path / f"a.{kind}", clip(), fps=fps)
    facts = probe(written.path)
    assert (facts.width, facts.height, facts.num_frames, facts.codec, facts.pixel_format) == (
        96,
        64,
        9,
        codec,
        "yuv420p",
    )
    if kind == "mp4":
        assert facts.fps == exact_rate(fps)
        with av.open(str(written.path)) as container:
            assert container.streams.video[0].frames == 9
            assert abs((container.duration or 0) / 1e6 - 9 / fps) < 0.01
    with av.open(str(written.path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
        # WebM counts in milliseconds
        assert np.abs(np.asarray(times) - np.arange(9) / fps).max() < 0.001


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_colours_survive(tmp_path: Path, kind: str) -> None:
    palette = [
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 0),
        (0, 255, 255),
        (255, 255, 255),
        (0, 0, 0),
        (128, 128, 128),
    ]
    frames = np.concatenate([np.full((1, 64, 64, 3), colour, np.uint8) for colour in palette])
    written = write(tmp_path / f"a.{kind}", frames)
    for frame, colour in zip(read_frames(written.path), palette, strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - colour).max() <= 3


@pytest.mark.parametrize("kind", ["mp4", "webm"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 160, 30)])
def test_the_bytes_are_those_of_bt709(tmp_path: Path, kind: str, colour: tuple[int, int, int]) -> None:
    """Rec. ITU-R BT.709-6, 3.2 to 3.4. Reading through our own library could hide a wrong matrix used twice."""
    red, green, blue = (value / 255 for value in colour)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    expected = 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748
    written = write(tmp_path / f"a.{kind}", np.full((2, 64, 64, 3), colour, np.uint8), quality="maximum")
    with av.open(str(written.path)) as container:
        planes = next(container.decode(video=0)).to_ndarray().astype(float)
    found = planes[:64].mean(), planes[64:80].mean(), planes[80:].mean()
    assert np.abs(np.subtract(found, expected)).max() < 2


def test_colour_tags_are_those_of_hd_video(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path / "a.mp4", clip()).path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)


def test_an_mp4_starts_playing_before_it_is_whole(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", clip()).path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_the_centre_is_exported(tmp_path: Path) -> None:
    frames = np.zeros((2, 72, 104, 3), np.uint8)
    frames[:, 4:68, 4:100] = 200
    written = write(tmp_path / "a.mp4", frames, width=96, height=64, quality="maximum")
    assert (probe(written.path).width, probe(written.path).height) == (96, 64)
    assert next(read_frames(written.path)).min() > 190


@pytest.mark.parametrize("kind", KINDS)
def test_the_recipe_survives(tmp_path: Path, kind: str) -> None:
    written = write(tmp_path / f"a.{kind}", clip(), recipe_metadata(RECIPE, "a 猫"))
    assert read_recipe(written.path) == RECIPE


def test_the_description_of_a_webp_is_xml(tmp_path: Path) -> None:
    written = write(tmp_path / "a.webp", clip(2), recipe_metadata(RECIPE, "t"))
    with Image.open(written.path) as image:
        described = ElementTree.fromstring(image.info["xmp"]).find(".//{http://purl.org/dc/elements/1.1/}description")
    assert described is not None and described.text == RECIPE


def test_other_programs_find_the_title_where_they_look(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mp4", clip(), recipe_metadata(RECIPE, " two\nlines\x00of  it ")).path.read_bytes()
    assert b"\xa9nam" in data and b"\xa9cmt" in data
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["title"] == "two lines of it"


@pytest.mark.parametrize("kind", KINDS)
def test_half_characters_are_read_back(tmp_path: Path, kind: str) -> None:
    """They come from command lines that are no UTF-8."""
    recipe = json.dumps({"wanreel": 1, "prompt": "a \udce9\ud83d\x00 b"}, ensure_ascii=False)
    written = write(tmp_path / f"a.{kind}", clip(2), recipe_metadata(recipe, "a \udce9"))
    assert json.loads(read_recipe(written.path)) == json.loads(recipe)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_that_is_no_json_is_none(tmp_path: Path, kind: str) -> None:
    written = write(tmp_path / f"a.{kind}", clip(2), recipe_metadata(RECIPE[:-10], "t"))
    with pytest.raises(UnreadableRecipe, match="cut short"):
        read_recipe(written.path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_nothing_of_this_machine(tmp_path: Path, kind: str) -> None:
    data = write(tmp_path / f"a.{kind}", clip(2), recipe_metadata(RECIPE, "t")).path.read_bytes()
    assert os.fsencode(tmp_path.name) not in data
    assert not re.search(rb"Lavf\d|Lavc\d|Pillow", data)


@pytest.mark.parametrize(
    "list_", ["ffconcat version 1.0\nfile a.mp4\n", "#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n"]
)
def test_lists_of_files_open_no_other_file(tmp_path: Path, list_: str) -> None:
    write(tmp_path / "a.mp4", clip(2), recipe_metadata(RECIPE, "t"))
    path = tmp_path / "list.mp4"
    path.write_text(list_)
    with pytest.raises(UnreadableRecipe):
        read_recipe(path)
    with pytest.raises(InvalidRequest):
        probe(path)
    with pytest.raises(InvalidRequest):
        next(read_frames(path))


def test_a_colon_in_a_folder_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("no such names there")
    (tmp_path / "http:").mkdir()
    monkeypatch.chdir(tmp_path)
    written = write(Path("http:/a.mp4"), clip(2), recipe_metadata(RECIPE, "t"))
    assert probe(written.path).num_frames == 2
    assert read_recipe(written.path) == RECIPE


def test_the_partial_file_is_the_one_that_was_held(tmp_path: Path) -> None:
    reservation = reserve(tmp_path, datetime(2026, 11, 21), "a cat", ".mp4")
    with VideoWriter(reservation.path, VideoFormat(96, 64, 16), partial=reservation.partial) as writer:
        writer.write(clip(2))
        assert [path.name for path in tmp_path.iterdir()] == [reservation.partial.name]
    assert list(tmp_path.iterdir()) == [reservation.path]


@pytest.mark.parametrize("kind", KINDS)
def test_without_metadata_nothing_is_told(tmp_path: Path, kind: str) -> None:
    written = write(tmp_path / f"a.{kind}", clip())
    with pytest.raises(UnreadableRecipe, match="no recipe"):
        read_recipe(written.path)


def test_finer_quality_is_larger_and_nearer(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), np.uint8)
    sizes, errors = [], []
    for quality in ("low", "medium", "high", "maximum"):
        written = write(tmp_path / f"{quality}.mp4", noise, quality=quality)
        sizes.append(written.size_bytes)
        read = np.stack(list(read_frames(written.path))).astype(float)
        errors.append(np.abs(read.mean(axis=-1) - noise.mean(axis=-1)).mean())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


_ELSEWHERE = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_video import clip, write, RECIPE, recipe_metadata
for path in sys.argv[3:]:
    print(write(Path(path), clip(), recipe_metadata(RECIPE, "t")).sha256)
"""


def test_the_same_frames_give_the_same_files_in_another_process(tmp_path: Path) -> None:
    here = [write(tmp_path / f"a.{kind}", clip(), recipe_metadata(RECIPE, "t")).sha256 for kind in KINDS]
    root = str(Path(__file__).parent)
    command = [sys.executable, "-c", _ELSEWHERE, "", root, *(str(tmp_path / f"b.{kind}") for kind in KINDS)]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert there == here and len(set(here)) == len(KINDS)


def test_an_error_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", VideoFormat(96, 64, 16)) as writer:
        writer.write(clip())
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_settled_file_is_whole_but_not_there_before_the_end(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.mp4", tmp_path / "settled.mp4"
    for target in (plain, path):
        with VideoWriter(target, VideoFormat(96, 64, 16.0)) as writer:
            writer.write(clip())
            if target == path:
                writer.settle()
                assert not path.exists()
                assert [it.read_bytes() for it in tmp_path.glob(".settled*")] == [plain.read_bytes()]
    assert path.read_bytes() == plain.read_bytes()


def test_an_error_after_settling_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(tmp_path / "v.mp4", VideoFormat(96, 64, 16.0)) as writer:
        writer.write(clip())
        writer.settle()
        raise KeyError("after")
    assert list(tmp_path.iterdir()) == []


def test_no_frames_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed), VideoWriter(tmp_path / "a.mp4", VideoFormat(96, 64, 16)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_odd_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="95×64"):
        VideoWriter(tmp_path / "a.mp4", VideoFormat(95, 64, 16))


def test_a_killed_writer_leaves_no_file_under_the_final_name(tmp_path: Path) -> None:
    script = _ELSEWHERE.split("for path")[0] + (
        "import os, signal\nfrom wanreel.media.video import *\n"
        "with VideoWriter(Path(sys.argv[1]), VideoFormat(96, 64, 16)) as writer:\n"
        "    writer.write(clip(90))\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.mp4"), root], check=False)
    assert done.returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {".a.mp4.part.mp4"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.with_name(f".a.{kind}.part.{kind}").symlink_to("/dev/full")
    with pytest.raises(InsufficientStorage, match=f"a.{kind}"):
        write(path, clip())
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match=r"a\.mp4"):
        write(tmp_path / "nowhere" / "a.mp4", clip())


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x00\x00\x00\x20ftypisom" + bytes(100), b"GIF89a", b"RIFF\x00\x00\x00\x00WEBPVP8 "]
)
def test_foreign_files_have_no_recipe(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    with pytest.raises(UnreadableRecipe):
        read_recipe(path)


def test_a_missing_file_has_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRecipe, match=r"gone\.mp4"):
        read_recipe(tmp_path / "gone.mp4")


def test_stills(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 1024, 3), np.uint8)
    write_png(tmp_path / "a.png", frame)
    write_poster(tmp_path / "a.jpg", frame)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), frame)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.size == (512, 32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.png"]


def test_animations_last_as_long_as_they_should() -> None:
    assert sum(durations(81, 16, 1)) == round(1000 * 81 / 16)
    assert sum(durations(16, 24, 10)) in (660, 670)
    data = encode_animation(list(clip()), fps=8)
    import io

    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, getattr(image, "n_frames", 1), image.size) == ("WEBP", 9, (96, 64))


def test_rates() -> None:
    assert exact_rate(16) == 16
    assert exact_rate(23.976) == Fraction(24000, 1001)
    assert exact_rate(29.97) == Fraction(30000, 1001)
    assert exact_rate(7.5) == Fraction(15, 2)


def test_the_wheel_has_every_encoder() -> None:
    assert missing_encoders() == ()
