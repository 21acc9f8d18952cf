"""SoundRef: a soundtrack that already lies in the data directory. Knows neither its bytes nor where they lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SoundRef:
    """Names a soundtrack by content, so that a request never holds a path or bytes."""

    sha256: str  #: of the FLAC that was stored, 64 hex digits
    seconds: float  #: how long it plays
