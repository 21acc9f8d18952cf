"""Soundtrack: a stored sound as samples, and its stream in a file. Knows nothing of pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from wanreel.core.errors import ExportFailed

RATE = 48_000  #: samples a second of every stored sound, in two channels of 16 bits
_BIT_RATE: Mapping[str, int] = {"aac": 192_000, "libopus": 160_000}


class Soundtrack:
    """Samples of a FLAC that `read_sound` made; silence after its end."""

    def __init__(self, flac: bytes) -> None:
        self._chunks = _decoded(flac)
        self._left: NDArray[np.int16] = np.zeros((1, 0), np.int16)

    def next(self, count: int) -> NDArray[np.int16]:
        """The next `count` samples [1, 2 · count], left and right in turns. Raises ExportFailed."""
        while self._left.shape[1] < 2 * count:
            chunk = next(self._chunks, None)
            if chunk is None:
                chunk = np.zeros((1, 2 * count - self._left.shape[1]), np.int16)
            self._left = np.concatenate([self._left, chunk], axis=1)
        taken, self._left = self._left[:, : 2 * count], self._left[:, 2 * count :]
        return np.ascontiguousarray(taken)


class SoundStream:
    """The sound in a file, beside its pictures: never far ahead of them or behind, and in the end as long."""

    def __init__(self, container: OutputContainer, codec: str, sound: Soundtrack) -> None:
        self._container = container
        self._sound = sound
        self._stream: Any = container.add_stream(codec, rate=RATE, layout="stereo")
        self._stream.codec_context.bit_rate = _BIT_RATE[codec]
        self._stream.codec_context.options = {"flags": "+bitexact"}
        self._done = 0  # samples

    def write_until(self, seconds: Fraction) -> None:
        """All up to this time."""
        wanted = round(seconds * RATE) - self._done
        frame = av.AudioFrame.from_ndarray(self._sound.next(wanted), format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), self._done
        self._done += wanted
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """What the codec still holds."""
        self._container.mux(self._stream.encode(None))


def _decoded(flac: bytes) -> Iterator[NDArray[np.int16]]:
    try:
        with av.open(io.BytesIO(flac), "r", format="flac") as container:
            for frame in container.decode(audio=0):
                samples: Any = frame.to_ndarray()
                yield samples.astype(np.int16, copy=False)
    except FFmpegError as exc:
        raise ExportFailed("The soundtrack is damaged.") from exc
