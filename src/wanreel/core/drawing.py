"""Drawing: finished pictures on disk. Knows nothing of how they were made beyond their request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.picture_request import ResolvedPicture


@dataclass(frozen=True, slots=True)
class Drawing:
    """The pictures of one request, in the order of their seeds."""

    paths: tuple[Path, ...]
    poster: Path  #: small still of the first, for galleries
    sha256: str  #: of the first file
    size_bytes: int  #: of the first file
    width: int
    height: int
    request: ResolvedPicture

    @property
    def path(self) -> Path:
        """The first picture."""
        return self.paths[0]

    def files(self) -> Mapping[str, Path]:
        """By the kind that records call them: the picture itself first."""
        more = {f"picture_{number}": path for number, path in enumerate(self.paths[1:], 2)}
        return {"picture": self.path, **more, "poster": self.poster}
