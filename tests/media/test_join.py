"""Joining clips: copied without touching a bit where that can be, even at every seam, blended and drawn together where asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled, ExportFailed
from wanreel.media.colour import Look, Shift
from wanreel.media.join import Joined, Piece, join, length_of, starts_of
from wanreel.media.video import Frames, VideoFormat, VideoWriter, probe, read_frames

SIZE = (64, 48)
ERROR = 6.0  # mean difference of pixels that the codec makes at this quality, 0 to 255


def clip(
    folder: Path, name: str, numbers: list[int], *, kind: str = "mp4", fresh: int = 1, quality: str = "high"
) -> Path:
    """A clip whose frame n is made of the number n alone, so that any frame can be told from any other."""
    path = folder / f"{name}.{kind}"
    form = VideoFormat(*SIZE, 8, kind, quality, fresh)  # pyright: ignore[reportArgumentType]
    with VideoWriter(path, form, {"comment": name}) as writer:
        writer.write(np.stack([frame(n) for n in numbers]))
    return path


def frame(number: int) -> Frames:
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    shade = 40 + 5 * number
    return np.stack([(shade + x) % 256, (2 * shade + y) % 256, 255 - x - y], axis=-1).astype(np.uint8)


def pieces(folder: Path, *, kind: str = "mp4", skip: int = 1) -> list[Piece]:
    """Three clips that go on from one another: each begins with the frame that the one before ends with."""
    ranges = (range(9), range(8, 17), range(16, 25))
    return [
        Piece(clip(folder, f"{kind}{n}", list(numbers), kind=kind), 9, skip if n else 0)
        for n, numbers in enumerate(ranges)
    ]


def joined(parts: list[Piece], path: Path) -> Joined:
    return join(parts, path, "high", {"title": "All", "comment": '{"a": 1}'}, CancelToken())


def apart(path: Path, expected: list[Frames]) -> float:
    """The largest mean difference of a frame from the expected one."""
    found = list(read_frames(path))
    assert len(found) == len(expected)
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(one.astype(int) - other).mean()) for one, other in pairs)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_clips_that_go_on_are_copied_and_no_frame_comes_twice(tmp_path: Path, kind: str) -> None:
    parts = pieces(tmp_path, kind=kind)
    whole = joined(parts, tmp_path / f"whole.{kind}")
    assert whole.copied and not whole.why
    assert (whole.written.num_frames, whole.starts) == (25, (0, 9, 17))
    assert apart(whole.written.path, [frame(n) for n in range(25)]) < ERROR
    # To the bit what the clips hold: what was decoded before is decoded again.
    clips = [list(read_frames(part.path))[part.skip :] for part in parts]
    assert all(np.array_equal(a, b) for a, b in zip(read_frames(whole.written.path), sum(clips, []), strict=True))
    facts = probe(whole.written.path)
    assert (facts.num_frames, float(facts.fps)) == (25, 8.0)
    assert joined(parts, tmp_path / f"again.{kind}").written.sha256 == whole.written.sha256


def test_the_seam_is_even_within_what_the_codec_does(tmp_path: Path) -> None:
    parts = pieces(tmp_path)
    for before, after in zip(parts, parts[1:], strict=False):
        last, first = list(read_frames(before.path))[-1], next(iter(read_frames(after.path)))
        assert np.abs(last.astype(int) - first).mean() < ERROR


@pytest.mark.parametrize("how", ["fresh", "quality"])
def test_what_can_not_be_copied_is_written_again_and_said(tmp_path: Path, how: str) -> None:
    parts = pieces(tmp_path)
    odd = {"fresh": {"fresh": 0}, "quality": {"quality": "low"}}[how]
    parts[1] = Piece(clip(tmp_path, "odd", list(range(8, 17)), **odd), 9, 1)  # pyright: ignore[reportArgumentType]
    whole = joined(parts, tmp_path / "whole.mp4")
    assert not whole.copied and ("needs those before it" if how == "fresh" else "differ") in whole.why
    assert apart(whole.written.path, [frame(n) for n in range(25)]) < 2 * ERROR
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_clips_are_blended_over_the_frames_that_both_have(tmp_path: Path) -> None:
    first = Piece(clip(tmp_path, "a", list(range(9))), 9)
    # It starts three frames before the other ends, so both hold 6, 7 and 8.
    second = Piece(clip(tmp_path, "b", list(range(5, 14))), 9, skip=1, fade=3)
    whole = joined([first, second], tmp_path / "whole.mp4")
    assert (whole.copied, whole.why, whole.written.num_frames) == (False, "clips are blended", 14)
    assert whole.starts == (0, 6) == starts_of([first, second]) and length_of([first, second]) == 14
    assert apart(whole.written.path, [frame(n) for n in range(14)]) < 2 * ERROR


def test_a_cross_fade_goes_evenly_from_one_to_the_other(tmp_path: Path) -> None:
    dark, light = np.full((5, 48, 64, 3), 40, np.uint8), np.full((5, 48, 64, 3), 200, np.uint8)
    paths = [tmp_path / "dark.mp4", tmp_path / "light.mp4"]
    for path, frames in zip(paths, (dark, light), strict=True):
        with VideoWriter(path, VideoFormat(*SIZE, 8)) as writer:
            writer.write(frames)
    whole = joined([Piece(paths[0], 5), Piece(paths[1], 5, fade=3)], tmp_path / "whole.mp4")
    means = [float(it.mean()) for it in read_frames(whole.written.path)]
    assert means == pytest.approx([40, 40, 80, 120, 160, 200, 200], abs=3)


def test_colours_are_drawn_to_the_end_and_left_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    with VideoWriter(path, VideoFormat(*SIZE, 8)) as writer:
        writer.write(np.full((5, 48, 64, 3), 100, np.uint8))
    shift = Shift.between(Look.of(np.full((8, 8, 3), 100, np.uint8)), Look.of(np.full((8, 8, 3), 140, np.uint8)), 1.0)
    whole = joined([Piece(path, 5, shift=shift), Piece(path, 5)], tmp_path / "whole.mp4")
    means = [float(it.mean()) for it in read_frames(whole.written.path)]
    assert whole.why == "colours are drawn together"
    assert means[:5] == pytest.approx([100, 110, 120, 130, 140], abs=3) and means[5] == pytest.approx(100, abs=3)


def test_stopping_and_odd_sizes_leave_nothing(tmp_path: Path) -> None:
    parts = pieces(tmp_path)
    cancel = CancelToken()
    cancel.cancel("asked")
    with pytest.raises(Cancelled):
        join(parts, tmp_path / "whole.mp4", "high", None, cancel)
    with VideoWriter(tmp_path / "large.mp4", VideoFormat(128, 48, 8)) as writer:
        writer.write(np.zeros((3, 48, 128, 3), np.uint8))
    with pytest.raises(ExportFailed):
        joined([parts[0], Piece(tmp_path / "large.mp4", 3)], tmp_path / "whole.mp4")
    assert not list(tmp_path.glob("*whole*"))


def test_distance_is_zero_between_equal_colours_and_grows_with_the_difference() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert Look.of(picture).distance(Look.of(picture[::-1])) == pytest.approx(0, abs=1e-4)
    grey, lighter = (np.full((4, 4, 3), value, np.uint8) for value in (119, 144))
    # L* of sRGB 119 is 50.03 and of 144 is 59.79; grey has neither a* nor b* nor spread.
    assert Look.of(grey).distance(Look.of(lighter)) == pytest.approx(9.76, abs=0.02)
    assert Look.of(grey).mean == pytest.approx((50.03, 0, 0), abs=0.02)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_drawing_a_picture_to_another_takes_that_share_of_the_way(strength: float) -> None:
    rng = np.random.default_rng(4)
    one = rng.normal(110, 20, (40, 40, 3)).clip(0, 255).astype(np.uint8)
    other = (rng.normal(140, 15, (40, 40, 3)) + [10, 0, -10]).clip(0, 255).astype(np.uint8)
    before, wanted = Look.of(one), Look.of(other)
    after = Look.of(Shift.between(before, wanted, strength)(one))
    assert after.distance(wanted) == pytest.approx((1 - strength) * before.distance(wanted), abs=1.0)
    if not strength:
        assert Shift.between(before, wanted, 0.0)(one) is one
