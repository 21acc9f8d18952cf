"""Liveness: whether a worker's process lives, by a lock that the kernel takes back when it dies. Knows no clock.

For workers on one machine. Where several machines share a store, `leased.SharedLiveness` takes its place.
"""

from __future__ import annotations

import re
import secrets
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from wanreel.host import FileLock
from wanreel.jobs.leases import Leases

_SUFFIX = ".lock"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Liveness:
    """The locks of the workers that share one data directory, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_worker(self, label: str) -> tuple[str, FileLock]:
        """A name never used before, and its lock, held: keep it as long as the worker works.

        `label` says which worker it is ("cuda-0"); letters, digits, dots, hyphens.
        """
        name = f"{label}-{secrets.token_hex(6)}"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self._path(name))
        if not lock.acquire():
            raise RuntimeError(f"The worker name {name} is in use.")
        return name, lock

    def is_alive(self, name: str) -> bool:
        """Whether the worker of that name holds its lock. For `Leases.recover`.

        A dead worker's file is removed: its name is never used again, so nobody can want the lock.
        """
        path = self._path(name)
        if not path.exists():
            return False
        lock = FileLock(path)
        if not lock.acquire():
            return True
        path.unlink(missing_ok=True)
        lock.release()
        return False

    def lives_here(self, name: str) -> bool:
        """Whether a worker that left something in this machine's folders lives."""
        return self.is_alive(name)

    def dead(self, leases: Leases) -> frozenset[str]:
        """The workers that hold jobs or are on the list, and do not live. For `Leases.take_back`."""
        return frozenset(name for name in leases.known() if not self.is_alive(name))

    def keeping(self, name: str, description: str) -> AbstractContextManager[object]:
        """What a worker has to have open to be taken for living: here its lock is all."""
        return nullcontext()

    def names(self) -> tuple[str, ...]:
        """The workers whose locks lie here, held or not."""
        found = (path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"*{_SUFFIX}"))
        return tuple(name for name in found if _NAME.fullmatch(name))

    def has_lock(self, name: str) -> bool:
        """Whether the worker's lock lies here, held or not."""
        return self._path(name).exists()

    def _path(self, name: str) -> Path:
        # Names come back from the database, so they are not trusted to be file names.
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a worker's name.")
        return self._folder / f"{name}{_SUFFIX}"
