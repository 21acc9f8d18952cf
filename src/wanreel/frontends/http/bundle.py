"""zipped: many files as one ZIP, made while it is sent. Knows nothing of what the files are.

Nothing is written to disk and no file is held in memory: videos are compressed already, so they are stored as they are.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_CHUNK = 256 * 1024
_MISSING = "missing.txt"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a ZIP can name


@dataclass(frozen=True, slots=True)
class Member:
    """A file and how it is called within the ZIP."""

    name: str
    path: Path
    at: float  #: seconds since 1970, shown as the time of its last change


def zipped(members: Iterable[Member]) -> Iterator[bytes]:
    """The bytes of a ZIP. A file that is gone is named in `missing.txt`, the last one in it."""
    missing: list[str] = []
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for member in members:
            try:
                file = member.path.open("rb")
            except OSError:
                missing.append(member.name)
                continue
            with file:
                yield from _stored(archive, sink, member, file)
        if missing:
            archive.writestr(_MISSING, "These files were deleted:\n" + "\n".join(missing) + "\n")
    yield sink.take()


def _stored(archive: zipfile.ZipFile, sink: _Sink, member: Member, file: BinaryIO) -> Iterator[bytes]:
    at = max(time.localtime(member.at)[:6], _EARLIEST)
    info = zipfile.ZipInfo(member.name, at)
    with archive.open(info, "w", force_zip64=True) as target:
        while chunk := file.read(_CHUNK):
            target.write(chunk)
            yield sink.take()


class _Sink(io.RawIOBase):
    """Keeps what was written until it is taken. A ZIP can be written to it without going back."""

    def __init__(self) -> None:
        super().__init__()
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken
