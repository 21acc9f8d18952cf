"""PreviewFile: the newest small picture of a video that is being made. Knows nothing of how it is made."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType


class PreviewFile:
    """One small picture file, replaced as the video takes shape and removed at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = False

    def write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_bytes(data)
        temporary.replace(self.path)
        self.written = True

    def __enter__(self) -> PreviewFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
