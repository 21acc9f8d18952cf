"""Sheets: pictures or videos in a grid, each with its words. Knows nothing of what they show or how they were made."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from wanreel.core.cancel import CancelToken
from wanreel.core.finishing import exact_rate
from wanreel.media.video import VideoFormat, VideoWriter, Written, read_frames

Frame = NDArray[np.uint8]  #: [h, w, 3], RGB

CELL = 384  #: px, the longer side of a cell's picture on a sheet
MOST = (1920, 2160)  #: px of a video of cells, across and down
_LEAST = 64  # px of a cell, however many there are
_GAP, _MARGIN = 12, 24  # px between cells and around all of them
_LINE, _LINES = 20, 2  # px of a line of words, and lines under a cell
_PAPER, _INK, _FAINT = (250, 250, 248), (28, 28, 30), (214, 214, 210)
#: The built-in font has Latin letters and these.
_DRAWABLE = frozenset(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x180)))) | frozenset("–—‘’“”…€×")


@dataclass(frozen=True, slots=True)
class Tile:
    """One cell."""

    words: Sequence[str]  #: what it differs by
    picture: Path | None = None  #: a still; None for a cell that has none
    video: Path | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Where cells lie: pixels, all even."""

    columns: int
    rows: int
    width: int  #: of a cell's picture
    height: int
    head: int = 0  #: px above the first row

    @property
    def size(self) -> tuple[int, int]:
        """Of the whole."""
        across = 2 * _MARGIN + self.columns * (self.width + _GAP) - _GAP
        down = 2 * _MARGIN + self.head + self.rows * (self.height + self.caption + _GAP) - _GAP
        return across + across % 2, down + down % 2

    @property
    def caption(self) -> int:
        """Height of the words under a picture."""
        return _LINE * _LINES + 4

    def corner(self, place: int) -> tuple[int, int]:
        """Left upper corner of the picture of a cell, counted from 0, row by row."""
        row, column = divmod(place, self.columns)
        left = _MARGIN + column * (self.width + _GAP)
        return left, _MARGIN + self.head + row * (self.height + self.caption + _GAP)


def layout_of(grid: tuple[int, int], size: tuple[int, int], longest: int = CELL, head: int = 0) -> Layout:
    """For rows and columns of pictures of this size, each no longer than `longest` px."""
    share = min(1.0, longest / max(size))
    width, height = (max(2, 2 * round(side * share / 2)) for side in size)
    return Layout(grid[1], grid[0], width, height, head)


def write_sheet(path: Path, tiles: Sequence[Tile], grid: tuple[int, int], size: tuple[int, int], title: str) -> Layout:
    """A PNG of the tiles' stills under a title. Returns where they lie."""
    layout = layout_of(grid, size, head=_LINE + _GAP if title else 0)
    sheet = _paper(layout, tiles)
    if title:
        room = (layout.size[0] - 2 * _MARGIN) // 8
        ImageDraw.Draw(sheet).text((_MARGIN, _MARGIN - 4), _shortened(title, room), _INK, _font(18))
    for place, tile in enumerate(tiles):
        if tile.picture is not None:
            with Image.open(tile.picture) as picture:
                fitted = picture.convert("RGB").resize((layout.width, layout.height), Image.Resampling.LANCZOS)
            sheet.paste(fitted, layout.corner(place))
    temporary = path.with_name(f".{path.name}.part")
    try:
        sheet.save(temporary, "PNG")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return layout


def write_side_by_side(
    path: Path, tiles: Sequence[Tile], grid: tuple[int, int], shape: tuple[int, int, float], cancel: CancelToken
) -> tuple[Layout, Written]:
    """An MP4 of all tiles' videos playing at once, each frame shown at its own time; a shorter one stays on its last
    frame. `shape`: width, height and rate. Raises Cancelled between frames."""
    width, height, fps = shape
    longest = CELL
    layout = layout_of(grid, (width, height), longest)
    while longest > _LEAST and (layout.size[0] > MOST[0] or layout.size[1] > MOST[1]):
        longest -= 8
        layout = layout_of(grid, (width, height), longest)
    page = np.array(_paper(layout, tiles))
    playing = {place: _Player(tile.video, layout) for place, tile in enumerate(tiles) if tile.video is not None}
    form = VideoFormat(*layout.size, fps)
    with VideoWriter(path, form, {"title": path.stem}) as writer:
        number = 0
        while playing:
            cancel.check()
            moved = False
            for place, player in playing.items():
                frame, fresh = player.at(Fraction(number) / exact_rate(fps), exact_rate(fps))
                moved = moved or fresh
                left, top = layout.corner(place)
                page[top : top + layout.height, left : left + layout.width] = frame
            if not moved:
                break
            writer.write(page[None])
            number += 1
    return layout, writer.result


class _Player:
    """The frames of one video, small, in the order of time."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._frames = _frames_of(path)
        self._size = (layout.width, layout.height)
        self._now: Frame | None = None
        self._shown = -1

    def at(self, seconds: Fraction, fps: Fraction) -> tuple[Frame, bool]:
        """The frame at this time, and whether it is one that was not shown before."""
        wanted, fresh = int(seconds * fps), False
        while self._shown < wanted:
            frame = next(self._frames, None)
            if frame is None:
                break
            self._shown += 1
            fresh = True
            small = Image.fromarray(frame).resize(self._size, Image.Resampling.BILINEAR)
            self._now = np.asarray(small, dtype=np.uint8)
        if self._now is None:
            self._now = np.full((self._size[1], self._size[0], 3), _FAINT, np.uint8)
        return self._now, fresh


def _frames_of(path: Path) -> Iterator[Frame]:
    if path.suffix != ".webp":
        yield from read_frames(path)
        return
    with Image.open(path) as picture:
        for frame in ImageSequence.Iterator(picture):
            yield np.asarray(frame.convert("RGB"), dtype=np.uint8)


def _paper(layout: Layout, tiles: Sequence[Tile]) -> Image.Image:
    """The sheet without its pictures: words under each place."""
    sheet = Image.new("RGB", layout.size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), _font(14)
    for place, tile in enumerate(tiles):
        left, top = layout.corner(place)
        draw.rectangle((left, top, left + layout.width - 1, top + layout.height - 1), _FAINT)
        room = max(8, layout.width // 8)
        lines = textwrap.wrap(" · ".join(_drawable(word, place) for word in tile.words), room) or [""]
        shown = (
            lines[:_LINES]
            if len(lines) <= _LINES
            else [*lines[: _LINES - 1], _shortened(lines[_LINES - 1] + "…", room)]
        )
        for number, line in enumerate(shown):
            draw.text((left, top + layout.height + 4 + number * _LINE), line, _INK, font)
    return sheet


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _drawable(word: str, place: int) -> str:
    """The word, or the cell's number where the font has no letters for it; tables have all words whole."""
    return word if set(word) <= _DRAWABLE else f"no. {place + 1}"


def _shortened(text: str, room: int) -> str:
    plain = "".join(character for character in text if character in _DRAWABLE)
    return plain if len(plain) <= room else f"{plain[: room - 1]}…"
