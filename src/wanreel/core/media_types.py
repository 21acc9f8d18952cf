"""Media types of the files that are written here, by how their names end."""

from __future__ import annotations

from pathlib import Path

_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mov": "video/quicktime",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".csv": "text/csv",
    ".json": "application/json",
}


def media_type_of(path: Path) -> str:
    return _MEDIA_TYPES.get(path.suffix, "application/octet-stream")
