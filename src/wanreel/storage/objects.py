"""ObjectStorage: bytes under keys on another server. Knows neither jobs nor what the bytes mean."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import StorageRefused

#: Bytes that `open` brings at a time.
CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file to be put, and what is known of it. `sha256` is checked against what is read."""

    path: Path
    sha256: str  #: of the file's bytes, hexadecimal
    size: int  #: bytes
    media_type: str  #: "video/mp4", …


class ObjectStorage(Protocol):
    """Objects by key. Every method raises StorageUnavailable, StorageRefused, StorageDamaged."""

    def put(self, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        """Bring the file there, whole or not at all, and look that it is there. Twice is no fault.

        A put that was cut off, by `cancel` or by the process's death, goes on where it was. Raises Cancelled.
        """
        ...

    def open(self, key: str, *, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The object's bytes, or those from `first` to `last` with both. Raises StorageRefused where it is not there."""
        ...

    def delete(self, key: str) -> None:
        """Forget it. Nothing happens when it is not there."""
        ...

    def url(self, key: str, *, file_name: str = "", media_type: str = "") -> str:
        """Where the object can be fetched without keys; a signed address is good for a while. Asks nobody."""
        ...


class MemoryObjects:
    """The same in memory, for tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        cancel.check()
        data = parcel.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != parcel.sha256:
            raise damaged_here(parcel)
        self.objects[key] = data

    def open(self, key: str, *, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        if key not in self.objects:
            raise StorageRefused(f"There is no object {key}.")
        data = self.objects[key][first : None if last is None else last + 1]
        return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def url(self, key: str, *, file_name: str = "", media_type: str = "") -> str:
        return f"memory:{key}"


def damaged_here(parcel: Parcel) -> StorageRefused:
    """What is to be put is not what was made: no later attempt can mend that."""
    return StorageRefused(
        f"{parcel.path.name} is no longer what was made: its checksum differs.", hint="Look at the disk; make it again."
    )
