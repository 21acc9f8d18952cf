"""VideoWriter: frames to a file, chunk by chunk. Knows nothing of where frames come from.

The same frames and recipe give the same bytes: a fixed number of encoder threads, no clocks, no library versions in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import PictureType
from numpy.typing import NDArray
from PIL import Image

from wanreel.core.errors import ExportFailed, InsufficientStorage, InvalidRequest
from wanreel.core.finishing import exact_rate
from wanreel.core.request import OutputFormat, Quality
from wanreel.host import replace_durably
from wanreel.media.animation import AnimationEncoder
from wanreel.media.containers import open_container
from wanreel.media.soundtrack import SoundStream, Soundtrack

Frames = NDArray[np.uint8]  #: [n, h, w, 3], RGB

#: constant rate factor of each quality: smaller is finer. x264 calls 18 visually lossless (its CRF guide).
_CRF: Mapping[str, Mapping[Quality, int]] = {
    "libx264": {"low": 28, "medium": 23, "high": 18, "maximum": 10},
    "libvpx-vp9": {"low": 40, "medium": 33, "high": 24, "maximum": 12},
}
#: ProRes has no such factor but profiles: proxy, standard, HQ and 4444 (FFmpeg, prores_ks).
_PRORES: Mapping[Quality, str] = {"low": "0", "medium": "2", "high": "3", "maximum": "4"}
#: The same on every machine: x264's bytes depend on how many it is told to use, not on how many cores there are.
_X264_THREADS = "8"
#: Frames that x264 looks ahead. What it has not looked at when the last one comes is waited for, so few: of its own 40 against
#: 10, at one quality, files of 5 s differ by -4 % and 0.04 dB, and the wait by a factor of 2.6 (docs/benchmarks.md).
_X264_AHEAD = "10"
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "libx264": {
        "preset": "medium",
        "threads": _X264_THREADS,
        "forced-idr": "1",
        "x264-params": f"threads={_X264_THREADS}:lookahead-threads=1:sliced-threads=0:rc-lookahead={_X264_AHEAD}",
    },
    "libvpx-vp9": {"b": "0", "threads": "1", "row-mt": "0", "cpu-used": "4"},
    "prores_ks": {"threads": "1", "vendor": "apl0"},  # editors take no other vendor's files for ProRes
}
_CODECS: Mapping[str, str] = {"mp4": "libx264", "webm": "libvpx-vp9", "mov": "prores_ks"}
_SOUND_CODECS: Mapping[str, str] = {"mp4": "aac", "webm": "libopus", "mov": "aac"}
CONTAINER_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "mp4": {"movflags": "+faststart", "fflags": "+bitexact"},
    "webm": {"fflags": "+bitexact"},
    # Comments of any length, which QuickTime's own form does not hold.
    "mov": {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"},
}
_BT709 = 1  #: primaries, transfer and matrix of HD video (ITU-T H.273)
_LIMITED = 1  #: luma 16 to 235 (AVCOL_RANGE_MPEG)
POSTER_SIDE = 512  #: px


@dataclass(frozen=True, slots=True)
class Written:
    """A finished file."""

    path: Path
    sha256: str
    size_bytes: int
    num_frames: int


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video file says of itself, its frames counted by decoding."""

    width: int
    height: int
    num_frames: int
    fps: Fraction
    codec: str
    pixel_format: str


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """How frames become a file."""

    width: int  #: px in the file; the centre of larger frames
    height: int
    fps: float
    kind: OutputFormat = "mp4"
    quality: Quality = "high"
    fresh_frame: int = 0  #: number of a frame that needs none before it, so that the file can be cut there without loss


class _Encoder(Protocol):
    def write(self, frame: Frames) -> None: ...

    def close(self) -> None: ...


class VideoWriter:
    """Writes one video; the file is there, whole and under its name, when the `with` block ends without an error.

        with VideoWriter(path, VideoFormat(832, 480, 16), metadata={"comment": recipe}) as writer:
            writer.write(frames)
        writer.result.sha256

    It grows in `partial`, a file beside `path`. An error, or leaving early, leaves neither. `sound` becomes as long as
    the video; animated pictures have none. Raises ExportFailed, InsufficientStorage, and InvalidRequest for sizes that
    video can't have.
    """

    def __init__(
        self,
        path: Path,
        video: VideoFormat,
        metadata: Mapping[str, str] | None = None,
        partial: Path | None = None,
        sound: Soundtrack | None = None,
    ) -> None:
        if video.width % 2 or video.height % 2:
            raise InvalidRequest.of("width", "out_of_range", f"{video.width}×{video.height}: video sides are even.")
        self._path = path
        self._video = video
        self._metadata = dict(metadata or {})
        self._temporary = partial or path.with_name(f".{path.name}.part{path.suffix}")
        self._sound = sound
        self._encoder: _Encoder | None = None
        self._settled = False
        self._count = 0
        self._result: Written | None = None

    @property
    def result(self) -> Written:
        """The finished file; only after the block."""
        if self._result is None:
            raise ExportFailed(f"{self._path.name} is not finished.")
        return self._result

    def write(self, frames: Frames) -> None:
        """Append frames [n, h, w, 3], 8-bit RGB."""
        with translated(self._path):
            if self._encoder is None:
                self._encoder = self._open()
            for frame in frames:
                self._encoder.write(centre(frame, self._video.width, self._video.height))
                self._count += 1

    def settle(self) -> None:
        """No more frames come: encode what is held back, so that the end of the block has little left to do."""
        if self._encoder is not None and not self._settled:
            with translated(self._path):
                self._encoder.close()
            self._settled = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._abandon()
            return
        try:
            self._finish()
        except BaseException:
            self._abandon()
            raise

    def _open(self) -> _Encoder:
        if self._video.kind == "webp" or self._video.kind == "gif":
            facts = (self._video.fps, self._video.quality, self._metadata)
            return AnimationEncoder(self._temporary, self._video.kind, *facts)
        return _StreamEncoder(self._temporary, self._video, self._metadata, self._sound)

    def _finish(self) -> None:
        if self._encoder is None:
            raise ExportFailed("A video needs at least one frame.")
        self.settle()
        with translated(self._path):
            sha256, size = digest(self._temporary)
            replace_durably(self._temporary, self._path)
        self._result = Written(self._path, sha256, size, self._count)

    def _abandon(self) -> None:
        if self._encoder is not None and not self._settled:
            # What it could not write is about to be deleted.
            with suppress(FFmpegError, OSError, ValueError):
                self._encoder.close()
        self._temporary.unlink(missing_ok=True)


class _StreamEncoder:
    """A codec and a container of PyAV."""

    def __init__(self, path: Path, video: VideoFormat, metadata: Mapping[str, str], sound: Soundtrack | None) -> None:
        codec = _CODECS[video.kind]
        # Absolute: FFmpeg takes what stands before a colon for a protocol.
        self._container = av.open(
            str(path.absolute()), "w", format=video.kind, options=dict(CONTAINER_OPTIONS[video.kind])
        )
        self._container.metadata.update(metadata)
        self._stream: Any = self._container.add_stream(codec, rate=exact_rate(video.fps))
        self._pixels = _pixel_format(video)
        self._stream.width, self._stream.height, self._stream.pix_fmt = video.width, video.height, self._pixels
        context = self._stream.codec_context
        fineness = {"profile": _PRORES[video.quality]} if codec == "prores_ks" else {"crf": _CRF[codec][video.quality]}
        context.options = {**_OPTIONS[codec], **{key: str(it) for key, it in fineness.items()}, "flags": "+bitexact"}
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        self._sound = None if sound is None else SoundStream(self._container, _SOUND_CODECS[video.kind], sound)
        self._fresh = video.fresh_frame
        self._next = 0

    def write(self, frame: Frames) -> None:
        picture: Any = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(format=self._pixels, dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.color_primaries = picture.color_trc = picture.colorspace = _BT709
        picture.color_range = _LIMITED
        if self._next == self._fresh:
            picture.pict_type = PictureType.I
        picture.pts, self._next = self._next, self._next + 1
        picture.time_base = 1 / self._stream.codec_context.framerate
        self._container.mux(self._stream.encode(picture))
        if self._sound is not None:
            self._sound.write_until(self._next / self._stream.codec_context.framerate)

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.close()
        finally:
            self._container.close()


def _pixel_format(video: VideoFormat) -> str:
    if video.kind != "mov":
        return "yuv420p"
    return "yuv444p10le" if video.quality == "maximum" else "yuv422p10le"


def centre(frame: Frames, width: int, height: int) -> Frames:
    """The middle width × height px of a frame [h, w, 3]. Raises ExportFailed for a smaller frame."""
    top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ExportFailed(f"A frame of {frame.shape[1]}×{frame.shape[0]} is smaller than {width}×{height}.")
    return np.ascontiguousarray(frame[top : top + height, left : left + width])


def probe(path: Path) -> VideoFacts:
    """Facts of a video file that Wanreel wrote. Raises InvalidRequest when it is none."""
    try:
        with path.open("rb") as file, open_container(file) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            return VideoFacts(
                stream.width,
                stream.height,
                frames,
                Fraction(stream.average_rate or 0),
                stream.codec.name,
                str(stream.pix_fmt),
            )
    except (FFmpegError, OSError, IndexError) as exc:
        raise InvalidRequest.of("video", "unreadable", f"{path.name} is no video that can be read.") from exc


def read_frames(path: Path) -> Iterator[Frames]:
    """Frames [h, w, 3] of a video file, one by one. Raises InvalidRequest when it is none."""
    try:
        with path.open("rb") as file, open_container(file) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (FFmpegError, OSError, IndexError) as exc:
        raise InvalidRequest.of("video", "unreadable", f"{path.name} is no video that can be read.") from exc


def write_png(path: Path, frame: Frames) -> None:
    """One frame [h, w, 3], without loss."""
    _write_still(path, Image.fromarray(frame), "PNG")


def write_poster(path: Path, frame: Frames) -> None:
    """One frame as a small JPEG for galleries."""
    image = Image.fromarray(frame)
    image.thumbnail((POSTER_SIDE, POSTER_SIDE), Image.Resampling.LANCZOS)
    _write_still(path, image, "JPEG")


def missing_encoders() -> tuple[str, ...]:
    """Codecs that this build of PyAV lacks."""
    wanted = (*_CODECS.values(), *_SOUND_CODECS.values())
    return tuple(dict.fromkeys(codec for codec in wanted if codec not in av.codecs_available))


def _write_still(path: Path, image: Image.Image, kind: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        with translated(path):
            image.save(temporary, kind, quality=88)
            replace_durably(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def digest(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Failures of the disk and of FFmpeg in our own words."""
    try:
        yield
    except (FFmpegError, OSError) as exc:
        if getattr(exc, "errno", None) in (28, 122):  # ENOSPC, EDQUOT
            raise InsufficientStorage(f"The disk is full: {path.name} could not be written.") from exc
        raise ExportFailed(f"{path.name} could not be written: {exc.strerror or exc}.") from exc
