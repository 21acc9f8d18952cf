"""Digests: SHA-256 of large files, remembered for as long as they look untouched. Knows nothing of what they hold."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

_CHUNK = 8 * 2**20  # bytes


class Digests:
    """A file of remembered digests. Size, time of change and inode tell whether a file was touched.

    It is only a memory: losing it costs the time to read the files again.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def known(self, path: Path) -> str | None:
        """The digest if it was taken and the file looks untouched since."""
        return self._find(self._load(), path)

    def of(self, path: Path) -> str:
        """The SHA-256 of the file's bytes, hexadecimal. Raises OSError."""
        return self.known(path) or self.fresh(path)

    def fresh(self, path: Path) -> str:
        """The same, read now whatever is remembered. Raises OSError."""
        before = _marks(path)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if _marks(path) == before:
            self._remember(path, [*before, digest.hexdigest()])
        return digest.hexdigest()

    def put(self, path: Path, sha256: str) -> None:
        """Remember what was found while the file was written. Raises OSError."""
        self._remember(path, [*_marks(path), sha256])

    def _find(self, memory: dict[str, list[Any]], path: Path) -> str | None:
        *marks, digest = memory.get(str(path.resolve()), [None])
        try:
            return digest if marks == _marks(path) else None
        except OSError:
            return None

    def _load(self) -> dict[str, list[Any]]:
        try:
            memory = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return cast("dict[str, list[Any]]", memory) if isinstance(memory, dict) else {}

    def _remember(self, path: Path, row: list[Any]) -> None:
        memory = self._load() | {str(path.resolve()): row}
        temporary = self._memory.with_name(f"{self._memory.name}.{os.getpid()}.tmp")
        with suppress(OSError):  # a full disk or one that can't be written is no reason to say nothing
            temporary.write_text(json.dumps(memory), encoding="utf-8")
            temporary.replace(self._memory)


def _marks(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]
