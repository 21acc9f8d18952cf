"""Shared: pictures and saved states in object storage, where workers on every machine find them. Knows nothing of jobs.

Pictures lie under the SHA-256 of their bytes. Of each piece of work one object holds the newest saved state, behind a
line of JSON that says what it is called and what its bytes must be: it is put whole, so nobody sees half of a newer one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Destination
from wanreel.core.errors import (
    InsufficientStorage,
    InvalidRequest,
    MissingDependency,
    RemoteError,
    StorageDamaged,
    StorageRefused,
    StorageUnavailable,
)
from wanreel.core.settings import Settings
from wanreel.host import replace_durably
from wanreel.storage.depots import Depot, Depots
from wanreel.storage.disk import BlobStore
from wanreel.storage.objects import CHUNK, ObjectStorage, Parcel
from wanreel.storage.s3 import S3Storage

_log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,79}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HEAD = 1024  #: bytes in which the first line of a state must end
_PARTIAL = ".partial"


@dataclass(frozen=True)
class SharedBlobs:
    """Pictures of this machine, which fetches those it lacks. Giving them to the others is `share`."""

    near: BlobStore
    depot: Depot

    def put(self, data: bytes) -> str:
        """Keep `data` on this machine; returns its SHA-256. Raises InsufficientStorage."""
        return self.near.put(data)

    def open(self, sha256: str) -> bytes:
        """The bytes, checked; from storage where they are not here whole.

        Raises StorageUnavailable, StorageRefused, and InvalidRequest for bytes that are not what they were.
        """
        try:
            return self.near.open(sha256)
        except InvalidRequest:
            if not _SHA256.fullmatch(sha256):
                raise
        data = self._fetch(sha256)
        self.near.put(data)
        return data

    def has(self, sha256: str) -> bool:
        """Whether it is on this machine."""
        return self.near.has(sha256)

    def share(self, sha256: str) -> None:
        """Put a picture of this machine where all workers find it. One that is not here is left to them to find.

        Raises StorageUnavailable, and InvalidRequest for one that was damaged on disk.
        """
        if not self.near.has(sha256):
            return
        parcel = Parcel(self.near.path(sha256), sha256, len(self.near.open(sha256)), "image/png")
        try:
            self.depot.objects.put(self._key(sha256), parcel, CancelToken())
        except (RemoteError, MissingDependency, OSError) as exc:
            _log.warning("picture %s can't be put into shared storage: %s", sha256[:12], exc)
            raise StorageUnavailable(
                f"The picture can't be put where the workers find it: {exc}",
                hint="Nothing was queued; send the request again later.",
            ) from exc

    def _fetch(self, sha256: str) -> bytes:
        try:
            data = b"".join(self.depot.objects.open(self._key(sha256)))
        except StorageRefused as exc:
            raise StorageRefused(
                f"The picture {sha256[:12]} is not on this machine, and shared storage does not give it: {exc.message}",
                hint=exc.hint,
            ) from exc
        if hashlib.sha256(data).hexdigest() != sha256:
            raise InvalidRequest.of(
                "image", "damaged", f"the picture {sha256[:12]} was damaged in shared storage.", "Give it again."
            )
        return data

    def _key(self, sha256: str) -> str:
        return self.depot.destination.key(f"pictures/{sha256}")


@dataclass(frozen=True, slots=True)
class _Head:
    """The first line of a state in storage."""

    file: str
    sha256: str  #: of all that follows
    size: int  #: bytes that follow

    def line(self) -> bytes:
        return json.dumps({"file": self.file, "sha256": self.sha256, "size": self.size}).encode() + b"\n"

    @classmethod
    def of(cls, text: bytes) -> _Head:
        """Raises StorageDamaged: the name becomes part of a path, so nothing but a plain one passes."""
        try:
            values = cast("Mapping[str, Any]", json.loads(text))
            name, sha256 = values["file"], values["sha256"]
            if _NAME.fullmatch(name) and _SHA256.fullmatch(sha256):
                return cls(name, sha256, int(values["size"]))
        except (ValueError, KeyError, TypeError):
            pass
        raise StorageDamaged("What lies in shared storage is no saved state.")


@dataclass(frozen=True)
class SharedStates:
    """The newest saved state of each piece of work. All but `forget` raise RemoteError and MissingDependency."""

    depot: Depot

    def put(self, work: str, file: Path, cancel: CancelToken) -> None:
        """Let `file` be the newest. Raises Cancelled, OSError."""
        # The state with its line must be one file to be put whole.
        with _scratch(file.parent, file.name) as copy:
            digest, size = _read(file, cancel)
            head = _Head(file.name, digest, size).line()
            with copy.open("wb") as out:
                out.write(head)
                _read(file, cancel, out.write)
            whole, size = _read(copy, cancel)
            parcel = Parcel(copy, whole, size, "application/octet-stream")
            self.depot.objects.put(self._key(work), parcel, cancel)

    def newest(self, work: str) -> str:
        """What the file of the newest state is called. Raises StorageRefused where there is none."""
        start = b"".join(self.depot.objects.open(self._key(work), first=0, last=_HEAD - 1))
        return _Head.of(start.partition(b"\n")[0]).file

    def fetch(self, work: str, folder: Path, cancel: CancelToken) -> Path:
        """Bring the newest state into `folder`, whole or not at all. Raises InsufficientStorage, Cancelled."""
        head, chunks = _opened(self.depot.objects.open(self._key(work)))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _scratch(folder, head.file) as partial:
                _write(partial, head, chunks, cancel)
                replace_durably(partial, folder / head.file)
        except OSError as exc:
            raise InsufficientStorage(f"{head.file} can't be written: {exc.strerror}.") from exc
        return folder / head.file

    def forget(self, work: str) -> None:
        """Delete what is there of the work. What can't be deleted now stays, for a rule of the bucket; the log says so."""
        try:
            self.depot.objects.delete(self._key(work))
        except (RemoteError, MissingDependency) as exc:
            _log.warning("job %s: its saved state stays in shared storage: %s", work, exc)

    def _key(self, work: str) -> str:
        return self.depot.destination.key(f"checkpoints/{work}/newest")


@dataclass(frozen=True)
class Shared:
    """One machine's way to what all machines share."""

    pictures: SharedBlobs
    states: SharedStates


def open_shared(settings: Settings, connect: Callable[[Destination], ObjectStorage] = S3Storage) -> Shared:
    """In the profile that `shared_storage` names. Asks nobody. Raises SettingsError."""
    depot = Depots(settings.destination, connect).get(settings.shared_storage)
    return Shared(SharedBlobs(BlobStore(settings.data.pictures), depot), SharedStates(depot))


def _read(file: Path, cancel: CancelToken, write: Callable[[bytes], object] | None = None) -> tuple[str, int]:
    """SHA-256 and size of the file, which `write` is given in pieces."""
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            cancel.check()
            digest.update(chunk)
            size += len(chunk)
            if write is not None:
                write(chunk)
    return digest.hexdigest(), size


def _write(file: Path, head: _Head, chunks: Iterator[bytes], cancel: CancelToken) -> None:
    """What follows the first line. Raises StorageDamaged unless it is what that says."""
    digest, size = hashlib.sha256(), 0
    with file.open("wb") as out:
        for chunk in chunks:
            cancel.check()
            digest.update(chunk)
            size += len(chunk)
            if size > head.size:
                break
            out.write(chunk)
    if (size, digest.hexdigest()) != (head.size, head.sha256):
        raise StorageDamaged(f"{head.file} was damaged in shared storage.")


def _opened(chunks: Iterator[bytes]) -> tuple[_Head, Iterator[bytes]]:
    """The first line of an object, and an iterator over what follows it."""
    start = b""
    for chunk in chunks:
        start += chunk
        if b"\n" in start or len(start) > _HEAD:
            break
    line, _, rest = start.partition(b"\n")
    return _Head.of(line), _after(rest, chunks)


def _after(rest: bytes, chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield rest
    yield from chunks


@contextmanager
def _scratch(folder: Path, name: str) -> Generator[Path]:
    """A name to write to, gone afterwards."""
    path = folder / f".{name}.{uuid.uuid4().hex}{_PARTIAL}"
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
