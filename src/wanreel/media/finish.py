"""Stages that change the frames of a video between decoding and the file. Know nothing of models, files or sound.

Each takes frames one at a time and gives what is ready, so that no stage holds more than a few: a boomerang's way back
lies on the disk meanwhile.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
import numpy as np
from av.error import BlockingIOError as NothingYet
from av.error import EOFError as AtEnd
from av.error import FFmpegError
from av.filter import Graph
from numpy.typing import NDArray
from PIL import Image

from wanreel.core.errors import ExportFailed, InsufficientStorage
from wanreel.core.finishing import Finishing, exact_rate, scaled
from wanreel.media.video import centre, write_png, write_poster

Frame = NDArray[np.uint8]  #: [h, w, 3], RGB

#: Frames that the filter wants to see beyond the one it makes (libavfilter 11, vf_minterpolate.c, NB_FRAMES 4).
_AHEAD = 3
#: Originals that are kept until the filter has passed them. Its look-ahead, and a few to spare.
_KEPT = 2 * _AHEAD + 2
#: Motion of overlapped blocks, searched both ways, of varying size where edges lie.
_MOTION = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1"


class Stage(Protocol):
    """One step of finishing."""

    def feed(self, frame: Frame) -> Iterator[Frame]:
        """The frames that are ready once `frame` has come."""
        ...

    def finish(self) -> Iterator[Frame]:
        """What is left when no more frames come."""
        ...

    def close(self) -> None:
        """Give up whatever is held. Twice is no fault."""
        ...


class Line:
    """Stages one after another, closed with the `with` block."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages

    def feed(self, frame: Frame) -> Iterator[Frame]:
        """What comes out at the end. Raises ExportFailed, InsufficientStorage."""
        return self._through(0, frame)

    def finish(self) -> Iterator[Frame]:
        """The rest, stage by stage."""
        for place, stage in enumerate(self._stages):
            for made in stage.finish():
                yield from self._through(place + 1, made)

    def _through(self, place: int, frame: Frame) -> Iterator[Frame]:
        if place == len(self._stages):
            yield frame
            return
        for made in self._stages[place].feed(frame):
            yield from self._through(place + 1, made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as closing:
            for stage in self._stages:
                closing.callback(stage.close)


def stages_of(
    asked: Finishing, frames: int, fps: float, scratch: Path, network: Callable[[Frame], Frame] | None = None
) -> list[Stage]:
    """Those that a trimmed video of `frames` frames passes. `scratch` is a folder for what does not fit in memory.

    `network` enlarges a frame by a factor of its own.
    """
    stages: list[Stage] = []
    looped = asked.looped(frames, fps)
    overlap = asked.overlap(frames, fps)
    if overlap:
        stages.append(Seamless(frames, overlap))
    elif looped > frames:
        stages.append(Boomerang(frames, scratch))
    pace = asked.pace(fps)
    count = max(1, round(looped / pace))
    if asked.interpolate_fps is not None and pace < 1 and looped > 1:
        rate = exact_rate(asked.interpolate_fps)
        stages.append(Interpolate(pace, rate, count, around=asked.loop != "none"))
    elif pace != 1:
        stages.append(Resample(pace, count))
    if asked.upscale != 1:
        stages.append(Enlarge(asked.upscale, network))
    return stages


class _Plain:
    """What most stages do with the end."""

    def finish(self) -> Iterator[Frame]:
        return iter(())

    def close(self) -> None:
        """Nothing is held."""


class Trim(_Plain):
    """Lets pass the frames of these numbers."""

    def __init__(self, kept: range) -> None:
        self._kept = kept
        self._number = -1

    def feed(self, frame: Frame) -> Iterator[Frame]:
        self._number += 1
        if self._number in self._kept:
            yield frame


class Crop(_Plain):
    """The middle of larger frames."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)

    def feed(self, frame: Frame) -> Iterator[Frame]:
        yield centre(frame, *self._size)


class Stills:
    """Lets every frame pass, and keeps two of them as pictures: the middle one, and the last one without loss.

    That one is compressed in a thread, beside what becomes of the frames; the line's end waits for it.
    """

    def __init__(self, frames: int, poster: Path, last_frame: Path) -> None:
        self._middle, self._last = frames // 2, frames - 1
        self._poster = poster
        self._last_frame = last_frame
        self._number = -1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="last-frame")
        self._written: Future[None] | None = None
        self._finished = False

    def feed(self, frame: Frame) -> Iterator[Frame]:
        self._number += 1
        if self._number == self._middle:
            write_poster(self._poster, frame)
        if self._number == self._last:
            self._written = self._thread.submit(write_png, self._last_frame, frame)
        yield frame

    def finish(self) -> Iterator[Frame]:
        self._finished = True
        return iter(())

    def close(self) -> None:
        """Raises ExportFailed, InsufficientStorage, unless something else failed before."""
        self._thread.shutdown()
        if self._written is not None and self._finished:
            self._written.result()


class Keepsakes:
    """Lets every frame pass, and keeps those that others go on from as pictures without loss."""

    def __init__(self, frames: int, wanted: Mapping[int, Path]) -> None:
        self._wanted = {frames - 1 - back: path for back, path in wanted.items()}  # by how far before the last one
        self._number = -1

    def feed(self, frame: Frame) -> Iterator[Frame]:
        self._number += 1
        if (path := self._wanted.get(self._number)) is not None:
            write_png(path, frame)
        yield frame

    def finish(self) -> Iterator[Frame]:
        return iter(())

    def close(self) -> None:
        pass


class Boomerang:
    """Forward and back again. Neither end is shown twice, so that it repeats evenly."""

    def __init__(self, frames: int, scratch: Path) -> None:
        self._frames = frames
        self._shape: tuple[int, ...] = ()
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `close`

    def feed(self, frame: Frame) -> Iterator[Frame]:
        self._shape = frame.shape
        try:
            self._file.write(np.ascontiguousarray(frame).data)
        except OSError as exc:
            raise InsufficientStorage(f"The disk can't hold the way back of a boomerang: {exc.strerror}.") from exc
        yield frame

    def finish(self) -> Iterator[Frame]:
        size = int(np.prod(self._shape))
        for number in range(self._frames - 2, 0, -1):
            self._file.seek(number * size)
            data = self._file.read(size)
            if len(data) < size:
                raise ExportFailed("The way back of a boomerang is not whole.")
            yield np.frombuffer(data, np.uint8).reshape(self._shape)

    def close(self) -> None:
        self._file.close()


class Seamless(_Plain):
    """The end becomes the beginning, so that the last frame goes on with the first one."""

    def __init__(self, frames: int, overlap: int) -> None:
        self._turn = frames - overlap  # number of the first frame that is blended
        self._overlap = overlap
        self._head: list[Frame] = []
        self._number = -1

    def feed(self, frame: Frame) -> Iterator[Frame]:
        self._number += 1
        if self._number < self._overlap:
            self._head.append(frame.copy())
        elif self._number < self._turn:
            yield frame
        else:
            place = self._number - self._turn
            share = (place + 1) / (self._overlap + 1)
            mixed = (1 - share) * frame.astype(np.float32) + share * self._head[place].astype(np.float32)
            yield np.rint(mixed).astype(np.uint8)


class Resample(_Plain):
    """Another number of frames in the same time, each the newest there was."""

    def __init__(self, pace: Fraction, count: int) -> None:
        self._pace = pace  # frames that come in for each that goes out
        self._count = count
        self._seen = 0
        self._made = 0

    def feed(self, frame: Frame) -> Iterator[Frame]:
        self._seen += 1
        while self._made < self._count and int(self._made * self._pace) < self._seen:
            self._made += 1
            yield frame


class Enlarge(_Plain):
    """Every frame larger, by Lanczos' windowed sinc; by a network first, where there is one."""

    def __init__(self, factor: float, network: Callable[[Frame], Frame] | None = None) -> None:
        self._factor = factor
        self._network = network

    def feed(self, frame: Frame) -> Iterator[Frame]:
        size = (scaled(frame.shape[1], self._factor), scaled(frame.shape[0], self._factor))
        made = frame if self._network is None else self._network(frame)
        whole = made.shape[1::-1] == size
        yield made if whole else np.asarray(Image.fromarray(made).resize(size, Image.Resampling.LANCZOS))


class Interpolate:
    """Frames in between, by the motion of blocks (FFmpeg's minterpolate). Frames that were there stay as they are."""

    def __init__(self, pace: Fraction, rate: Fraction, count: int, *, around: bool) -> None:
        self._pace = pace  # frames that come in for each that goes out
        self._rate = rate
        self._count = count
        self._around = around  # a loop: after the last frame comes the first one
        self._first: list[Frame] = []
        self._known: deque[tuple[int, Frame]] = deque(maxlen=_KEPT)
        self._graph: Graph | None = None
        self._pushed = 0
        self._made = 0

    def feed(self, frame: Frame) -> Iterator[Frame]:
        if self._around and len(self._first) < _AHEAD:
            self._first.append(frame.copy())
        self._known.append((self._pushed, frame))
        self._push(frame)
        yield from self._ready()

    def finish(self) -> Iterator[Frame]:
        if not self._known:
            return
        after = self._first if self._around else [self._known[-1][1]]
        for number in range(_AHEAD):
            self._push(after[number % len(after)])
            yield from self._ready()
        self._push(None)
        yield from self._ready()
        if self._made < self._count:
            raise ExportFailed(f"{self._made} of {self._count} frames were interpolated.")

    def close(self) -> None:
        self._graph = None

    def _push(self, frame: Frame | None) -> None:
        try:
            if self._graph is None and frame is not None:
                self._graph = self._opened(frame)
            picture = None if frame is None else av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if picture is not None:
                picture.pts, picture.time_base = self._pushed, 1 / (self._rate * self._pace)
                self._pushed += 1
            if self._graph is not None:
                self._graph.vpush(picture)
        except FFmpegError as exc:
            raise ExportFailed(f"Frames could not be interpolated: {exc.strerror or exc}.") from exc

    def _ready(self) -> Iterator[Frame]:
        while self._made < self._count and self._graph is not None:
            try:
                made = self._graph.vpull()
            except (NothingYet, AtEnd):
                return
            except FFmpegError as exc:
                raise ExportFailed(f"Frames could not be interpolated: {exc.strerror or exc}.") from exc
            place, self._made = self._made * self._pace, self._made + 1
            original = next((frame for number, frame in self._known if number == place), None)
            yield _pixels(made) if original is None else original

    def _opened(self, frame: Frame) -> Graph:
        height, width = frame.shape[:2]
        graph = Graph()
        pixels: Any = "rgb24"  # declared as an object of its own, and taken by name too
        source = graph.add_buffer(width=width, height=height, format=pixels, time_base=1 / (self._rate * self._pace))
        # 4:4:4, as halving the colours' resolution is the file's matter.
        planes = graph.add("format", "pix_fmts=yuv444p")
        filter_: Any = graph.add("minterpolate", f"fps={self._rate.numerator}/{self._rate.denominator}:{_MOTION}")
        graph.link_nodes(source, planes, filter_, graph.add("buffersink")).configure()
        return graph


def _pixels(picture: Any) -> Frame:
    return picture.to_ndarray(format="rgb24")
