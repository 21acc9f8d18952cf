"""Ballast: disk space held back so that a full disk can still be recorded. Knows nothing of what is recorded."""

from __future__ import annotations

from pathlib import Path

from wanreel.host import free_bytes, preallocate

SIZE = 16 * 2**20  # bytes


class Ballast:
    """A preallocated file beside the database, given up when a write fails for want of space.

    On a full disk SQLite can't even write that a job failed, because its journal needs room first.
    """

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self.path = path
        self.size = size

    @property
    def held(self) -> bool:
        return self.path.exists()

    def release(self) -> bool:
        """Give the space up. True when there was some."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def restore(self) -> bool:
        """Take the space again if the disk has twice as much. True when it is held now."""
        if self.held:
            return True
        if self.size == 0 or free_bytes(self.path.parent) < 2 * self.size:
            return False
        try:
            preallocate(self.path, self.size)
        except OSError:
            # Somebody else took the space meanwhile: there is just no ballast yet.
            self.path.unlink(missing_ok=True)
            return False
        return True
