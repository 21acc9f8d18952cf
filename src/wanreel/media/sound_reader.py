"""flac_of: a sound from anybody as the FLAC that is kept. Runs in a process of its own; see `confined`.

Only its first sound is read, by the one demuxer that its first bytes name; pictures and words in the file are left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.error import FFmpegError

from wanreel.media.soundtrack import RATE

MAX_SECONDS = 300  #: what comes after is left out
#: (offset, bytes there, FFmpeg's name of the only demuxer that gets to see the file)
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (4, b"ftyp", "mp4"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
)
_MP3_SYNC = 0xE0  # the three highest bits of a frame's second byte (ISO/IEC 11172-3, 2.4.2.3)


def flac_of(data: bytes) -> bytes:
    """48,000 samples a second in two channels. Raises ValueError saying what is wrong."""
    kind = _kind(data)
    if kind is None:
        raise ValueError("it is no sound that is read here: WAV, MP3, FLAC, Ogg, M4A or WebM.")
    try:
        # FFmpeg gets bytes and never a name, and may open nothing that the file names.
        options = {"protocol_whitelist": "file,pipe"}
        with av.open(io.BytesIO(data), "r", format=kind, options=options, metadata_errors="replace") as container:
            return _written(container)
    except FFmpegError as exc:
        raise ValueError("it is damaged, or no sound.") from exc


def _kind(data: bytes) -> str | None:
    found = (name for at, magic, name in _KINDS if data[at : at + len(magic)] == magic)
    is_mp3 = len(data) > 1 and data[0] == 0xFF and data[1] & _MP3_SYNC == _MP3_SYNC
    return next(found, "mp3" if is_mp3 else None)


def _written(source: InputContainer) -> bytes:
    if not source.streams.audio:
        raise ValueError("there is no sound in it.")
    target = io.BytesIO()
    done = 0
    with av.open(target, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("flac", rate=RATE, layout="stereo")
        stream.codec_context.options = {"flags": "+bitexact"}
        stream.codec_context.format = "s16"
        for frame in _resampled(source):
            frame.pts, done = done, done + frame.samples
            container.mux(stream.encode(frame))
            if done >= MAX_SECONDS * RATE:
                break
        container.mux(stream.encode(None))
    if not done:
        raise ValueError("there is no sound in it.")
    return target.getvalue()


def _resampled(source: InputContainer) -> Iterator[Any]:
    resampler: Any = av.AudioResampler(format="s16", layout="stereo", rate=RATE)
    for frame in source.decode(audio=0):
        frame.pts = None
        yield from resampler.resample(frame)
    yield from resampler.resample(None)
