"""Files that are there whole or not at all, also after power was lost. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator
from pathlib import Path

from wanreel.core.errors import InsufficientStorage
from wanreel.host import replace_durably


def write_durably(path: Path, data: bytes) -> None:
    """The whole file under its name, or nothing. Raises InsufficientStorage."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        replace_durably(temporary, path)
    except OSError as exc:
        raise InsufficientStorage(f"{path.name} can't be written: {exc.strerror}.") from exc


@contextlib.contextmanager
def arriving(to: Path) -> Generator[Path]:
    """A name of its own beside `to`, to write under; the file takes its place when the block ends well, else it goes."""
    part = to.with_name(f".{to.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
