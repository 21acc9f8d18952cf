"""Stages of finishing: which frames come out, one by one, and that few are held."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wanreel.core.errors import ExportFailed, InsufficientStorage
from wanreel.core.finishing import Finishing
from wanreel.media.finish import Boomerang, Interpolate, Line, Resample, Stills, Trim, stages_of

FPS = 16.0


def numbered(count: int) -> list[Any]:
    """Frames whose brightness is ten times their number."""
    return [np.full((16, 24, 3), 10 * number, np.uint8) for number in range(count)]


def moving(count: int) -> list[Any]:
    """A red square that moves right by four pixels a frame."""
    frames = np.full((count, 64, 96, 3), (0, 0, 120), np.uint8)
    for number, frame in enumerate(frames):
        frame[20:40, 10 + 4 * number : 26 + 4 * number] = (250, 20, 20)
    return list(frames)


def through(stages: Any, frames: list[Any]) -> list[Any]:
    with Line(stages) as line:
        return [made.copy() for frame in frames for made in line.feed(frame)] + [made.copy() for made in line.finish()]


def finished(asked: Finishing, frames: list[Any], tmp_path: Path, fps: float = FPS) -> list[Any]:
    """As export does it, its count compared with what was foretold."""
    kept = asked.kept(len(frames), fps)
    made = through([Trim(kept), *stages_of(asked, len(kept), fps, tmp_path)], frames)
    shape = asked.shape(len(frames), fps, frames[0].shape[1], frames[0].shape[0])
    assert len(made) == shape.num_frames
    assert {frame.shape for frame in made} == {(shape.height, shape.width, 3)}
    return made


def order(frames: list[Any]) -> list[int]:
    return [int(frame[0, 0, 0]) // 10 for frame in frames]


def left_edge(frame: Any) -> int | None:
    (bright,) = np.nonzero(frame[30, :, 0] > 128)
    return int(bright[0]) if len(bright) else None


def test_nothing_asked_is_no_stage(tmp_path: Path) -> None:
    assert Finishing().plain
    assert stages_of(Finishing(), 9, FPS, tmp_path) == []
    frames = moving(5)
    for made, frame in zip(finished(Finishing(), frames, tmp_path), frames, strict=True):
        assert np.array_equal(made, frame)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"trim_start": 0.125}, [2, 3, 4, 5, 6, 7, 8]),
        ({"trim_end": 0.25}, [0, 1, 2, 3]),
        ({"trim_start": 0.125, "trim_end": 0.25}, [2, 3]),
        ({"trim_end": 100}, list(range(9))),
        ({"loop": "boomerang"}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]),
        ({"loop": "boomerang", "trim_end": 0.125}, [0, 1]),
        ({"loop": "boomerang", "trim_end": 0.1875}, [0, 1, 2, 1]),
        ({"speed": 2.0}, [0, 2, 4, 6]),
        ({"speed": 0.5}, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]),
        ({"speed": 4.0}, [0, 4]),
        ({"speed": 0.25, "trim_end": 0.125}, [0, 0, 0, 0, 1, 1, 1, 1]),
        ({"interpolate_fps": 8.0}, [0, 2, 4, 6]),
        ({"speed": 2.0, "interpolate_fps": 32.0}, list(range(9))),
        ({"trim_start": 0.125, "trim_end": 0.375, "loop": "boomerang", "speed": 2.0}, [2, 4, 4]),
    ],
)
def test_which_frames_come_out(tmp_path: Path, asked: Any, expected: list[int]) -> None:
    assert order(finished(Finishing(**asked), numbered(9), tmp_path)) == expected


def test_a_seamless_loop_ends_where_it_begins(tmp_path: Path) -> None:
    made = finished(Finishing(loop="seamless"), numbered(9), tmp_path)
    assert [int(frame[0, 0, 0]) for frame in made[:3]] == [30, 40, 50]
    # The last third becomes the first one: 3/4 of frame 6 and 1/4 of frame 0, …
    assert [int(frame[0, 0, 0]) for frame in made[3:]] == [45, 40, 35]


def test_a_long_seamless_loop_blends_half_a_second() -> None:
    assert Finishing(loop="seamless").overlap(81, 16.0) == 8
    assert Finishing(loop="seamless").looped(81, 16.0) == 73


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("loop", ["boomerang", "seamless"])
def test_what_is_too_short_to_loop_stays(tmp_path: Path, frames: int, loop: Any) -> None:
    assert order(finished(Finishing(loop=loop), numbered(frames), tmp_path)) == list(range(frames))


def test_interpolation_keeps_frames_and_makes_those_between(tmp_path: Path) -> None:
    frames = moving(9)
    made = finished(Finishing(interpolate_fps=32.0), frames, tmp_path)
    assert len(made) == 18
    for number, frame in enumerate(frames):
        assert np.array_equal(made[2 * number], frame)
    edges = [left_edge(frame) for frame in made[:17]]
    assert edges == [10 + 2 * place for place in range(17)]
    # After the last frame nothing moves any more.
    assert np.abs(made[17].astype(int) - frames[8]).max() <= 2


def test_slow_motion_is_interpolated_too(tmp_path: Path) -> None:
    made = finished(Finishing(speed=0.5, interpolate_fps=16.0), moving(5), tmp_path)
    assert [left_edge(frame) for frame in made[:9]] == [10 + 2 * place for place in range(9)]


@pytest.mark.parametrize(("fps", "wanted"), [(23.976, 60.0), (16.0, 24.0), (16.0, 59.94), (7.5, 16.0)])
def test_any_rate_has_its_number_of_frames(tmp_path: Path, fps: float, wanted: float) -> None:
    made = finished(Finishing(interpolate_fps=wanted), moving(9), tmp_path, fps)
    assert len(made) == round(9 * wanted / fps)
    assert sorted(edge for frame in made if (edge := left_edge(frame)) is not None) == [
        edge for frame in made if (edge := left_edge(frame)) is not None
    ]


def test_a_loop_is_interpolated_around_its_end(tmp_path: Path) -> None:
    frames = moving(5)
    made = finished(Finishing(loop="boomerang", interpolate_fps=32.0), frames, tmp_path)
    edges = [left_edge(frame) for frame in made]
    assert len(made) == 16
    assert edges[:9] == [10, 12, 14, 16, 18, 20, 22, 24, 26]
    assert edges[9:] == [24, 22, 20, 18, 16, 14, 12]  # on its way back to the first frame, which is at 10


def test_interpolation_is_the_same_each_time(tmp_path: Path) -> None:
    asked = Finishing(interpolate_fps=24.0)
    for one, other in zip(finished(asked, moving(6), tmp_path), finished(asked, moving(6), tmp_path), strict=True):
        assert np.array_equal(one, other)


def test_one_frame_is_repeated(tmp_path: Path) -> None:
    assert order(finished(Finishing(interpolate_fps=32.0), numbered(1), tmp_path)) == [0, 0]


def test_enlarging_keeps_what_is_shown_and_even_sides(tmp_path: Path) -> None:
    (made,) = finished(Finishing(upscale=1.55), moving(1), tmp_path)
    assert made.shape == (100, 148, 3)
    assert left_edge(made[7:]) in (15, 16)
    assert np.array_equal(made[0, 0], (0, 0, 120))


def test_all_at_once(tmp_path: Path) -> None:
    asked = Finishing(trim_start=0.125, loop="boomerang", speed=0.5, interpolate_fps=30.0, upscale=2.0)
    made = finished(asked, moving(9), tmp_path)
    assert len(made) == round(12 * 30 / 8)
    assert made[0].shape == (128, 192, 3)


class TestFewFramesAreHeld:
    def test_a_boomerang_lies_on_the_disk(self, tmp_path: Path) -> None:
        with Line([Boomerang(20, tmp_path)]) as line:
            for frame in numbered(20):
                assert len(list(line.feed(frame))) == 1
            assert len(list(line.finish())) == 18
        assert list(tmp_path.iterdir()) == []

    def test_interpolation_is_never_far_behind(self) -> None:
        with Line([Interpolate(Fraction(1, 2), Fraction(32), 80, around=False)]) as line:
            made = 0
            for number, frame in enumerate(moving(20) + moving(20)):
                made += len(list(line.feed(frame)))
                assert made >= 2 * (number - 3)
            assert made + len(list(line.finish())) == 80

    def test_resampling_gives_frames_at_once(self) -> None:
        stage = Resample(Fraction(1, 2), 6)
        assert [len(list(stage.feed(frame))) for frame in numbered(3)] == [2, 2, 2]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    stage = Boomerang(3, tmp_path)
    stage.close()
    with Path("/dev/full").open("wb", buffering=0) as full, Line([stage]) as line:
        stage._file = full  # type: ignore[assignment]
        with pytest.raises(InsufficientStorage, match="way back"):
            list(line.feed(numbered(1)[0]))


def test_a_way_back_that_is_not_whole_is_no_video(tmp_path: Path) -> None:
    with Line([Boomerang(9, tmp_path)]) as line:
        list(line.feed(numbered(1)[0]))
        with pytest.raises(ExportFailed, match="not whole"):
            list(line.finish())


class TestProblems:
    def names(self, **asked: Any) -> list[tuple[str, str]]:
        found = Finishing(**asked).problems(81, FPS, 832, 480, "mp4")
        return [(problem.field, problem.code) for problem in found]

    def test_nothing_is_left(self) -> None:
        assert self.names(trim_start=5.1) == [("trim_start", "out_of_range")]
        assert self.names(trim_start=2.0, trim_end=1.0) == [("trim_start", "out_of_range")]
        assert self.names(trim_end=0.01) == [("trim_end", "out_of_range")]

    def test_too_many_frames_or_too_large(self) -> None:
        assert self.names(speed=0.25, interpolate_fps=120.0) == []
        found = Finishing(speed=0.25, interpolate_fps=120.0, loop="boomerang").problems(961, FPS, 832, 480, "mp4")
        assert [problem.field for problem in found] == ["interpolate_fps"]
        assert [p.field for p in Finishing(upscale=4.0).problems(9, FPS, 2560, 1440, "mp4")] == ["upscale"]


def test_only_what_is_asked_for_is_kept_as_json() -> None:
    assert Finishing().to_dict() == {}
    asked = Finishing(speed=0.5, loop="boomerang", trim_end=2.0)
    assert asked.to_dict() == {"speed": 0.5, "loop": "boomerang", "trim_end": 2.0}
    assert Finishing.from_dict(asked.to_dict()) == asked
    with pytest.raises(TypeError):
        Finishing.from_dict({"sped": 1})


def test_the_last_frame_is_kept_as_it_is_and_the_middle_one_as_a_poster(tmp_path: Path) -> None:
    frames, last = moving(5), tmp_path / "last.png"
    assert len(through([Stills(5, tmp_path / "poster.jpg", last)], frames)) == 5
    np.testing.assert_array_equal(np.asarray(Image.open(last)), frames[-1])
    assert (tmp_path / "poster.jpg").is_file()


def test_a_last_frame_that_the_disk_refuses_fails_the_line(tmp_path: Path) -> None:
    with pytest.raises(ExportFailed, match="last.png"):
        through([Stills(3, tmp_path / "poster.jpg", tmp_path / "absent" / "last.png")], moving(3))


def test_what_failed_first_is_what_is_told(tmp_path: Path) -> None:
    stills = Stills(1, tmp_path / "poster.jpg", tmp_path / "absent" / "last.png")
    with pytest.raises(KeyError, match="first"), Line([stills]) as line:
        list(line.feed(moving(1)[0]))
        raise KeyError("first")
