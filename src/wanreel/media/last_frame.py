"""The last frame of a video from anywhere, decoded in a process of its own that may do next to nothing (`confined`).

FFmpeg is given one demuxer (mov, which reads MP4) and no protocol but files and pipes: a playlist or a list of files opens
nothing. Only what follows the last key frame is decoded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from wanreel.core.errors import InvalidRequest
from wanreel.media.confined import Unreadable, confined

MAX_BYTES = 256 * 2**20  #: of a video
_MAX_SIDE = 4096  # px
_MAX_PIXELS = 4096 * 2304
_KIND_AT, _KIND = 4, b"ftyp"
_OPTIONS = {"protocol_whitelist": "file,pipe", "enable_drefs": "0", "use_absolute_path": "0"}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a video ends."""

    png: bytes  #: its last frame
    fps: float  #: 0 where the file does not say


def ending_of(data: bytes, knob: str = "video") -> Ending:
    """How the MP4 or MOV in `data` ends. Raises InvalidRequest naming `knob` for anything that can't be read."""
    if len(data) > MAX_BYTES:
        raise _refuse(knob, f"has more than {MAX_BYTES // 2**20} MiB.")
    if data[_KIND_AT : _KIND_AT + len(_KIND)] != _KIND:
        raise _refuse(knob, "is no MP4.")
    try:
        rate, _, png = confined("last_frame", data).partition(b"\n")
    except Unreadable as exc:
        raise _refuse(knob, f"can't be used: {exc}") from exc
    return Ending(png, float(rate))


def _refuse(knob: str, what: str) -> InvalidRequest:
    return InvalidRequest.of(knob, "unreadable_video", what, "Send an MP4 with H.264, or the id of a video made here.")


def read_ending(data: bytes) -> bytes:
    """The child's part: the frame rate, a new line and the PNG. Raises ValueError saying what is wrong."""
    import av
    from av.error import FFmpegError

    try:
        with av.open(io.BytesIO(data), "r", format="mov", options=_OPTIONS) as container:
            frame, rate = _last(container)
    except (FFmpegError, OSError, IndexError, MemoryError) as exc:
        raise ValueError("it is no video that can be read.") from exc
    png = io.BytesIO()
    frame.to_image().save(png, "PNG")
    return f"{rate}\n".encode() + png.getvalue()


def _last(container: Any) -> tuple[Any, float]:
    stream = container.streams.video[0]
    stream.thread_count = 1
    width, height = stream.codec_context.width, stream.codec_context.height
    if not 1 <= max(width, height) <= _MAX_SIDE or width * height > _MAX_PIXELS:
        raise ValueError(f"its frames are {width}×{height} px, more than is read.")
    if stream.duration:
        container.seek((stream.start_time or 0) + stream.duration, stream=stream, backward=True)
    last = None
    for frame in container.decode(stream):
        if (frame.width, frame.height) != (width, height):
            raise ValueError("its frames change their size.")
        if last is None or frame.pts is None or last.pts is None or frame.pts >= last.pts:
            last = frame
    if last is None:
        raise ValueError("it has no frame.")
    return last, float(stream.average_rate or 0)
