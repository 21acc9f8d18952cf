"""Ledger: what is done for work that somebody else's queue hands out, by that queue's id.

Such a queue delivers at least once: the same id may come again after a crash, or after an answer that got lost. The
first delivery writes down what exactly is made, later ones go on from there, and once it is made they get the same result.
Everything of an id lies in one folder, and one process works on it at a time. Knows nothing of who hands out the work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wanreel.core.errors import InsufficientStorage
from wanreel.host import FileLock, replace_durably
from wanreel.storage.disk import Blobs
from wanreel.storage.keeping import Keeping

_log = logging.getLogger(__name__)

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
_LOOK = 0.5  # seconds between looks at a lock that another process holds
_REQUEST, _RESULT = "request.json", "result.json"
_STEM = "video"


@dataclass(frozen=True, slots=True)
class Entry:
    """The folder of one id, while this process has it for itself."""

    work: str
    folder: Path
    asked: str  #: digest of what is asked

    def keeping(self, pictures: Blobs, urgent: Callable[[], bool]) -> Keeping:
        """Under which names it is made."""
        return Keeping(self.work, self.folder / "checkpoints", self.folder, _STEM, pictures, urgent)

    def part(self, name: str) -> Entry:
        """A part of it, kept by itself in a folder within this one. Raises InsufficientStorage."""
        folder = self.folder / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError as exc:
            raise InsufficientStorage(f"The job's folder can't be written: {exc.strerror}.") from exc
        return Entry(f"{self.work}-{name}", folder, self.asked)

    def begun(self) -> Mapping[str, Any] | None:
        """What an earlier delivery wrote down before it began. None where there was none."""
        return self._read(_REQUEST)

    def begin(self, record: Mapping[str, object]) -> None:
        """Write down what is made, before it is: a later delivery makes the very same. Raises InsufficientStorage."""
        self._write(_REQUEST, record)

    def made(self) -> Mapping[str, Any] | None:
        """The result of an earlier delivery."""
        return self._read(_RESULT)

    def finish(self, record: Mapping[str, object]) -> None:
        """Write down the result; saved states are not needed any more. Raises InsufficientStorage."""
        self._write(_RESULT, record)
        _remove(self.folder / "checkpoints")

    def _read(self, name: str) -> Mapping[str, Any] | None:
        """None where there is no such file, none that this version can read, or one of another request."""
        try:
            found = cast("Mapping[str, Any]", json.loads((self.folder / name).read_bytes()))
            return found["record"] if found["asked"] == self.asked else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            _log.warning("job %s: %s can't be read and is not used: %s", self.work, name, exc)
            return None

    def _write(self, name: str, record: Mapping[str, object]) -> None:
        temporary = self.folder / f".{name}.part"
        try:
            temporary.write_bytes(json.dumps({"asked": self.asked, "record": record}, ensure_ascii=False).encode())
            replace_durably(temporary, self.folder / name)
        except OSError as exc:
            raise InsufficientStorage(f"{name} can't be written: {exc.strerror}.") from exc


class Ledger:
    """The folders of all ids under `root`, which several machines may share. What is older than `keep` seconds goes."""

    def __init__(self, root: Path, keep: float, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self._keep = keep
        self._clock = clock

    @contextlib.contextmanager
    def open(self, given: str, asked: str, wait: Callable[[float], object]) -> Generator[Entry]:
        """The entry of the id, for this process alone within the block.

        `asked` is a digest of what is asked; what an id was used for before counts only where it is the same. `wait` is
        called with seconds while another process has the entry, and ends the waiting by raising. Raises
        InsufficientStorage.
        """
        work = given if _SAFE.fullmatch(given) else hashlib.sha256(given.encode(errors="replace")).hexdigest()
        folder = self.root / work
        lock = FileLock(self.root / f"{work}.lock")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._acquire(lock, wait)
            folder.mkdir(exist_ok=True)
        except OSError as exc:
            lock.release()
            raise InsufficientStorage(f"The job's folder can't be written: {exc.strerror}.") from exc
        try:
            yield Entry(work, folder, asked)
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, wait: Callable[[float], object]) -> None:
        said = False
        while not lock.acquire():
            if not said:
                _log.warning("job %s: another worker has it; waiting", lock.path.stem)
                said = True
            wait(_LOOK)

    def sweep(self) -> None:
        """Remove what is older than is kept. What another process works on stays."""
        before = self._clock() - self._keep
        with contextlib.suppress(OSError):
            for lock_file in self.root.glob("*.lock"):
                self._sweep(lock_file, before)

    def _sweep(self, lock_file: Path, before: float) -> None:
        folder = lock_file.with_suffix("")
        touched = max((_mtime(path) for path in (lock_file, folder, *folder.glob("*/"))), default=0.0)
        if touched >= before:
            return
        lock = FileLock(lock_file)
        if not lock.acquire():
            return
        try:
            _remove(folder)
            # Nothing else may remove a lock: two processes could then hold it. Nobody delivers so old an id again.
            lock_file.unlink(missing_ok=True)
        finally:
            lock.release()


def digest_of(asked: Mapping[str, object]) -> str:
    """What stands for the values asked for."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
