"""Batches: a folder of pictures, or a JSON-lines file, as rows of work. Reads no picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wanreel.core.errors import InvalidRequest

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    values: dict[str, object] = field(default_factory=dict[str, object])
    image: Path | None = None
    last_image: Path | None = None
    audio: Path | None = None


def folder(path: Path) -> list[Row]:
    """A row for each picture in the folder, by name. Raises InvalidRequest when there is none."""
    pictures = sorted(item for item in path.iterdir() if item.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        raise InvalidRequest.of("image", "required", f"{path} holds no PNG, JPEG or WebP picture.")
    return [Row(item.name, image=item) for item in pictures]


def jsonl(path: Path) -> list[Row]:
    """A row for each line: an object of knobs. Pictures and sounds are paths, relative to the file. Raises InvalidRequest."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest.of("tasks", "unreadable", f"{path} can't be read as UTF-8 text: {exc}.") from exc
    rows = list(_rows(path, text))
    if not rows:
        raise InvalidRequest.of("tasks", "required", f"{path} holds no line.")
    return rows


def _rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name = f"{path.name}:{number}"
        try:
            values: Any = json.loads(line)
        except ValueError as exc:
            raise InvalidRequest.of("tasks", "unreadable", f"{name} is not JSON: {exc}.") from exc
        if not isinstance(values, dict):
            raise InvalidRequest.of("tasks", "wrong_type", f"{name} is not an object.", 'Write {"prompt": "…"}.')
        pictures = {
            key: _beside(path, name, values.pop(key)) for key in ("image", "last_image", "audio") if values.get(key)
        }
        yield Row(name, values, **pictures)


def _beside(path: Path, name: str, given: object) -> Path:
    if not isinstance(given, str):
        raise InvalidRequest.of("image", "wrong_type", f"{name}: pictures and sounds are given as paths.")
    return path.parent / given
