"""Joining clips into one video. Knows nothing of who made them, or why a seam is as it is.

Where nothing is blended or changed and all clips were written alike, their packets are copied: not a bit of any frame is
other than it was. That takes a clip whose first frames are left out to have a frame there that needs none before it
(`VideoFormat.fresh_frame`). Otherwise the frames are read, and written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import ExportFailed
from wanreel.core.request import Quality
from wanreel.host import replace_durably
from wanreel.media.colour import Shift
from wanreel.media.containers import open_container
from wanreel.media.video import (
    CONTAINER_OPTIONS,
    Frames,
    VideoFormat,
    VideoWriter,
    Written,
    digest,
    read_frames,
    translated,
)

_KINDS = {".mp4": "mp4", ".webm": "webm", ".mov": "mov"}


@dataclass(frozen=True, slots=True)
class Piece:
    """One clip, and how it meets the one before."""

    path: Path
    num_frames: int
    skip: int = 0  #: first frames that are not shown
    fade: int = 0  #: frames, after those, that are blended with as many last ones of the clip before
    shift: Shift = Shift()  #: applied to its last frame whole, to its first one not at all, and evenly between


@dataclass(frozen=True, slots=True)
class Joined:
    """What came of it."""

    written: Written
    copied: bool  #: whether no frame was encoded again
    why: str  #: why they were, in words; empty where they were not
    starts: tuple[int, ...]  #: the first frame of each clip in the whole, its blended frames included


def join(
    pieces: Sequence[Piece],
    path: Path,
    quality: Quality,
    metadata: Mapping[str, str] | None,
    cancel: CancelToken,
    progress: Callable[[int], object] = lambda done: None,
) -> Joined:
    """One video of all pieces. Leaves nothing where it fails. Raises ExportFailed, InsufficientStorage, Cancelled,
    and InvalidRequest for a file that can't be read. `progress` is told how many frames are done."""
    why = _why_not_copied(pieces, path)
    if not why:
        with translated(path):
            try:
                return Joined(_copied(pieces, path, metadata or {}, cancel), True, "", starts_of(pieces))
            except (FFmpegError, _NotAlike) as exc:
                why = f"the clips can't be copied as they are: {exc}"
    return Joined(_rewritten(pieces, path, quality, metadata, cancel, progress), False, why, starts_of(pieces))


def starts_of(pieces: Sequence[Piece]) -> tuple[int, ...]:
    """The first frame of each in the whole."""
    starts: list[int] = []
    at = 0
    for piece in pieces:
        starts.append(at - piece.fade)
        at += piece.num_frames - piece.skip - piece.fade
    return tuple(starts)


def length_of(pieces: Sequence[Piece]) -> int:
    """Frames of the whole."""
    return sum(piece.num_frames - piece.skip - piece.fade for piece in pieces)


def _why_not_copied(pieces: Sequence[Piece], path: Path) -> str:
    if any(piece.fade for piece in pieces):
        return "clips are blended"
    if not all(piece.shift.none for piece in pieces):
        return "colours are drawn together"
    if path.suffix not in _KINDS or any(piece.path.suffix != path.suffix for piece in pieces):
        return "only MP4, WebM and MOV are copied, each to its own kind"
    return ""


class _NotAlike(Exception):
    """The clips were written differently."""


# Copying


def _copied(pieces: Sequence[Piece], path: Path, metadata: Mapping[str, str], cancel: CancelToken) -> Written:
    temporary = path.with_name(f".{path.name}.part{path.suffix}")
    kind = _KINDS[path.suffix]
    try:
        with av.open(str(temporary.absolute()), "w", format=kind, options=dict(CONTAINER_OPTIONS[kind])) as target:
            target.metadata.update(metadata)
            copier = _Copier(target)
            for piece in pieces:
                cancel.check()
                copier.append(piece)
        sha256, size = digest(temporary)
        replace_durably(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Written(path, sha256, size, length_of(pieces))


class _Copier:
    """Puts the packets of one clip behind those of another."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self._stream: Any = None
        self._facts: tuple[object, ...] = ()
        self._at = 0  # the frame that comes next
        self._last: int | None = None  # the time of the last packet, for decoding

    def append(self, piece: Piece) -> None:
        with piece.path.open("rb") as file, open_container(file) as source:
            given: Any = source.streams.video[0]
            if self._stream is None:
                self._stream, self._facts = self._target.add_stream_from_template(given), _facts(given)
                self._stream.time_base = given.time_base
            elif _facts(given) != self._facts:
                raise _NotAlike("they differ in size, rate, quality or codec")
            self._copy(source, given, piece)
        self._at += piece.num_frames - piece.skip

    def _copy(self, source: Any, given: Any, piece: Piece) -> None:
        frame = 1 / (Fraction(given.average_rate) * Fraction(given.time_base))  # of the stream's own ticks
        first: int | None = None  # when the first frame is shown
        packet: Any
        for packet in source.demux(given):
            if packet.pts is None or packet.dts is None:
                continue  # the end
            begun: int = packet.pts if first is None else first
            first = begun
            number = round((packet.pts - begun) / frame)
            if number < piece.skip:
                continue
            if number == piece.skip and not packet.is_keyframe:
                raise _NotAlike(f"frame {piece.skip} of {piece.path.name} needs those before it")
            move = round((self._at - piece.skip) * frame) - begun
            packet.pts, packet.dts = packet.pts + move, packet.dts + move
            if self._last is not None and packet.dts <= self._last:
                raise _NotAlike("their frames would overlap")
            self._last = packet.dts
            packet.stream = self._stream
            self._target.mux(packet)


def _facts(stream: Any) -> tuple[object, ...]:
    """What must be equal for packets of one stream to stand behind those of another."""
    context = stream.codec_context
    rate = Fraction(stream.average_rate or 0)
    return (context.name, context.width, context.height, context.pix_fmt, bytes(context.extradata or b""), rate)


# Writing again


def _rewritten(
    pieces: Sequence[Piece],
    path: Path,
    quality: Quality,
    metadata: Mapping[str, str] | None,
    cancel: CancelToken,
    progress: Callable[[int], object],
) -> Written:
    facts = _probe(pieces[0].path)
    kind: Any = path.suffix.removeprefix(".")
    form = VideoFormat(facts[0], facts[1], float(facts[2]), kind, quality)
    with VideoWriter(path, form, metadata) as writer:
        for done, frame in enumerate(_all_frames(pieces)):
            cancel.check()
            if frame.shape[:2] != (form.height, form.width):
                raise ExportFailed("The clips differ in size.", hint="Make them again in one size.")
            writer.write(frame[None])
            progress(done + 1)
    return writer.result


def _probe(path: Path) -> tuple[int, int, Fraction]:
    with translated(path), path.open("rb") as file, open_container(file) as container:
        stream: Any = container.streams.video[0]
        return stream.width, stream.height, Fraction(stream.average_rate)


def _all_frames(pieces: Sequence[Piece]) -> Iterator[Frames]:
    """Every frame of the whole, the blended ones once."""
    held: list[Frames] = []  # last frames of the clip before, to be blended
    for number, piece in enumerate(pieces):
        keep = pieces[number + 1].fade if number + 1 < len(pieces) else 0
        fade, waiting = list(held), list[Frames]()
        for place, frame in enumerate(_shifted(piece)):
            if place < len(fade):
                frame = _blend(fade[place], frame, (place + 1) / (len(fade) + 1))
            waiting.append(frame)
            if len(waiting) > keep:
                yield waiting.pop(0)
        held = waiting
    yield from held


def _shifted(piece: Piece) -> Iterator[Frames]:
    for place, frame in enumerate(read_frames(piece.path)):
        if place >= piece.skip:
            yield piece.shift.share(place / max(1, piece.num_frames - 1))(frame)


def _blend(one: Frames, other: Frames, share: float) -> Frames:
    return np.round((1 - share) * one.astype(np.float32) + share * other.astype(np.float32)).astype(np.uint8)
