"""BlobStore: bytes in a folder, named by what they are. Knows nothing of what the bytes mean."""

from __future__ import annotations

import hashlib
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wanreel.core.errors import InsufficientStorage, InvalidRequest
from wanreel.host import replace_durably

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Blobs(Protocol):
    """Bytes by their SHA-256."""

    def put(self, data: bytes) -> str:
        """Keep `data`; returns its SHA-256. Putting the same twice keeps it once."""
        ...

    def open(self, sha256: str) -> bytes:
        """The bytes of that name. Raises InvalidRequest when they are not there or not what they were."""
        ...

    def has(self, sha256: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class BlobStore:
    """Blobs in one folder. What `put` returned is on the disk."""

    root: Path

    def put(self, data: bytes) -> str:
        """Keep `data`; returns its SHA-256. Raises InsufficientStorage."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.path(sha256)
        # Threads of one process may put the same picture at once.
        temporary = path.with_name(f".{sha256}.{uuid.uuid4().hex}.tmp")
        try:
            if not _holds(path, data):
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data)
                replace_durably(temporary, path)
        except OSError as exc:
            raise InsufficientStorage(f"{self.root} can't be written: {exc.strerror}.") from exc
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return sha256

    def open(self, sha256: str) -> bytes:
        """The bytes, checked. Raises InvalidRequest when they are gone or damaged."""
        try:
            data = self.path(sha256).read_bytes()
        except OSError as exc:
            raise _missing(sha256, "is no longer here") from exc
        if hashlib.sha256(data).hexdigest() != sha256:
            raise _missing(sha256, "was damaged on disk")
        return data

    def has(self, sha256: str) -> bool:
        return self.path(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Forget it. Nothing happens when it is not there."""
        self.path(sha256).unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Where it lies, if it is there. Raises InvalidRequest for what is no digest."""
        # The name comes from requests: nothing but a digest may become part of a path.
        if not _SHA256.fullmatch(sha256):
            raise _missing(sha256, "has no valid name")
        return self.root / sha256[:2] / sha256


class MemoryBlobs:
    """The same in memory, for tests."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self._blobs[sha256] = data
        return sha256

    def open(self, sha256: str) -> bytes:
        if sha256 not in self._blobs:
            raise _missing(sha256, "is no longer here")
        return self._blobs[sha256]

    def has(self, sha256: str) -> bool:
        return sha256 in self._blobs


def _holds(path: Path, data: bytes) -> bool:
    """Whether the file is whole. Its size alone does not tell: giving a picture again must heal a damaged one."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _missing(sha256: str, what: str) -> InvalidRequest:
    return InvalidRequest.of("image", "missing", f"the picture {sha256[:12]} {what}.", "Give it again.")
