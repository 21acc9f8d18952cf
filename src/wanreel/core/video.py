"""Video: a finished result on disk. Knows nothing of how it was made beyond its request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.resolved import ResolvedRequest


@dataclass(frozen=True, slots=True)
class Video:
    path: Path
    last_frame: Path  #: lossless PNG straight from the decoder
    poster: Path  #: small still for galleries
    sha256: str  #: of the file at `path`
    size_bytes: int
    width: int
    height: int
    num_frames: int
    fps: float
    request: ResolvedRequest
    handoffs: Mapping[str, Path] = field(default_factory=dict[str, Path])  #: lossless frames before the last, by kind
    keyframe: Path | None = None  #: the edited picture that it begins with

    @property
    def seconds(self) -> float:
        """Playing time."""
        return self.num_frames / self.fps

    def files(self) -> Mapping[str, Path]:
        """By the kind that records call them: the video itself first."""
        more = {"keyframe": self.keyframe} if self.keyframe is not None else {}
        return {"video": self.path, "last_frame": self.last_frame, "poster": self.poster, **more, **self.handoffs}
