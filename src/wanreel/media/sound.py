"""read_sound: bytes from anybody to a clean sound. Knows nothing of files, videos or what the sound is for."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
from av.error import FFmpegError

from wanreel.core.errors import InvalidRequest
from wanreel.media.confined import Unreadable, confined
from wanreel.media.soundtrack import RATE

MAX_BYTES = 20 * 2**20  #: of the file
_HINT = "Give a WAV, MP3, FLAC, Ogg, M4A or WebM."


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound as it will be used: 48,000 samples a second in two channels, without metadata."""

    flac: bytes
    seconds: float


def read_sound(data: bytes, knob: str = "audio") -> Sound:
    """Checks and cleans a sound, in a process of its own. Raises InvalidRequest, which names `knob`."""
    if len(data) > MAX_BYTES:
        text = f"has {len(data) / 2**20:.1f} MiB; at most {MAX_BYTES // 2**20} MiB are read."
        raise InvalidRequest.of(knob, "too_large", text, "Save it smaller, for example as MP3 or Ogg.")
    try:
        flac = confined("sound", data)
    except Unreadable as exc:
        raise InvalidRequest.of(knob, "unreadable", str(exc), _HINT) from exc
    return Sound(flac, _seconds(flac, knob))


def looks_like_sound(data: bytes) -> bool:
    """Whether the bytes begin as a sound does, and not as a picture or a video."""
    return data[8:12] == b"WAVE" or data[:4] in (b"fLaC", b"OggS") or data[:3] == b"ID3" or data[4:11] == b"ftypM4A"


def _seconds(flac: bytes, knob: str) -> float:
    try:
        with av.open(io.BytesIO(flac), "r", format="flac") as container:
            samples = sum(frame.samples for frame in container.decode(audio=0))
    except FFmpegError as exc:
        raise InvalidRequest.of(knob, "unreadable", "it can't be read.", _HINT) from exc
    return samples / RATE
