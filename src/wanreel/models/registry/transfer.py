"""fetch: one file from the hub to its place, resumed, tried again, and hashed before it gets its name.

Knows nothing of models or of other files.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import HubUnavailable, InsufficientStorage
from wanreel.host import replace_durably
from wanreel.models.registry.hub import TRANSPORT, Answered, Hub, HubFile, Patience

_CHUNK = 2**20  # bytes read at a time
_RECEIVED = 2**17  # bytes written at a time: at most so many are lost when a connection breaks
_PROGRESS = 2**20  # bytes that a try must bring to count as a success
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _WrongBytes(Exception):
    """What arrived is not what was listed."""


@dataclass
class _Part:
    """The bytes received so far, and their hashes."""

    path: Path
    file: HubFile
    size: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)
    sha1: Any = field(init=False)

    def __post_init__(self) -> None:
        self._forget()
        if self.path.exists():
            with self.path.open("rb") as kept:
                while chunk := kept.read(_CHUNK):
                    self._count(chunk)
        if self.size > self.file.size:
            self.restart()

    def restart(self) -> None:
        """Throw away what is here."""
        self.path.unlink(missing_ok=True)
        self._forget()

    def add(self, chunk: bytes, file: Any) -> None:
        """Raises _WrongBytes past the listed size."""
        if self.size + len(chunk) > self.file.size:
            raise _WrongBytes("it is longer than the hub lists")
        file.write(chunk)
        self._count(chunk)

    def check(self) -> None:
        """Raises _WrongBytes unless these are the bytes that the hub lists."""
        found, listed = (self.sha256, self.file.sha256) if self.file.sha256 else (self.sha1, self.file.blob)
        if found.hexdigest() != listed:
            raise _WrongBytes("its hash is not the one that the hub lists")

    def _count(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.sha256.update(chunk)
        if self.file.sha256 is None:
            self.sha1.update(chunk)

    def _forget(self) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        # How git names a file's contents: not a matter of safety here, the hub gives nothing better for small files.
        self.sha1 = hashlib.sha1(f"blob {self.file.size}\0".encode(), usedforsecurity=False)


@dataclass(frozen=True)
class Order:
    """One file to fetch."""

    hub: Hub
    repo: str
    commit: str
    file: HubFile
    part: Path  #: where bytes are collected
    final: Path  #: the name it gets once its hash is right


def fetch(order: Order, received: Callable[[int], None], cancel: CancelToken) -> str:
    """Bring the file and return its SHA-256. `received` is told the bytes that arrived, negative where some are thrown away.

    Raises HubUnavailable, InsufficientStorage, Cancelled. What arrived stays for the next try, in this process or another.
    """
    try:
        order.part.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(order.part, order.file)
        received(part.size)
        _collect(order, part, received, cancel)
        order.final.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(order.part, order.final)
    except OSError as exc:
        if isinstance(exc, TRANSPORT):
            raise
        raise _disk_error(order, exc) from exc
    return part.sha256.hexdigest()


def _collect(order: Order, part: _Part, received: Callable[[int], None], cancel: CancelToken) -> None:
    """Until all bytes are there and right."""
    patience = Patience(order.hub, cancel)
    what = f"{order.repo}/{order.file.path}"
    while True:
        cancel.check()
        before = part.size
        try:
            if part.size < order.file.size or not part.path.exists():
                _receive(order, part, received, cancel)
            part.check()
        except _WrongBytes as error:
            received(-part.size)
            part.restart()
            patience.failed(what, HubUnavailable(str(error)))
        except (*TRANSPORT, Answered) as error:
            if isinstance(error, Answered) and error.status == 416:  # our part is not one of its file
                received(-part.size)
                part.restart()
            if part.size - before >= _PROGRESS:
                patience.succeeded()
            patience.failed(what, error)
        else:
            return


def _receive(order: Order, part: _Part, received: Callable[[int], None], cancel: CancelToken) -> None:
    with order.hub.open(order.repo, order.commit, order.file.path, part.size) as answer:
        if answer.status_code != 206 and part.size:  # the server gives the file from its beginning
            received(-part.size)
            part.restart()
        with part.path.open("ab") as file:
            for chunk in answer.iter_content(_RECEIVED):
                cancel.check()
                part.add(chunk, file)
                received(len(chunk))
    if part.size < order.file.size:
        raise requests.ConnectionError("cut short")


def _disk_error(order: Order, exc: OSError) -> InsufficientStorage:
    if exc.errno in _FULL:
        return InsufficientStorage(
            f"The disk is full: {order.file.path} needs {order.file.size / 1e9:.1f} GB.",
            hint="Free some space; the same command goes on from there.",
        )
    where = os.fspath(exc.filename or order.final)
    return InsufficientStorage(f"{where} can't be written: {exc.strerror}.", hint="Check the folder of the models.")
