"""Files that are on the disk for sure, room for them, and locks that the death of their holder releases."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

_CHUNK = 2**20  # bytes written at a time where a file can't be reserved in one call
_CANT = (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY)  #: what a file system says that has no such call


def fsync_file(path: Path) -> None:
    """Return when the file's bytes are on the disk itself. An error means that what is on the disk is unknown."""
    # Windows flushes only a handle that may write.
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Return when the directory's entries (names created, renamed, deleted) are on the disk.

    Does nothing on Windows, which has no such call, nor on a file system that says it can't.
    """
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno not in _CANT:
            raise
    finally:
        os.close(descriptor)


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename so that after a power loss `final` is either the old file or the whole new one, never a part.

    Both must lie on one file system. When it returns, the new one is there to stay.
    """
    fsync_file(temporary)
    _rename(temporary, final)
    fsync_directory(final.parent)


def preallocate(path: Path, size: int) -> None:
    """Make `path` a file of at least `size` bytes that really takes that space on the disk.

    Raises OSError when there is not enough; what was begun is then left for the caller to remove.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        _reserve(descriptor, size)
        _flush(descriptor)
    finally:
        os.close(descriptor)


def forget_cached(path: Path) -> bool:
    """Let the system drop a file's pages from memory, as after a restart, but for what a process has mapped. False where it
    can't be asked to."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return True


def free_bytes(path: Path) -> int:
    """Bytes this user may still write on the file system of `path`, which must exist."""
    return shutil.disk_usage(path).free


class FileLock:
    """A lock between processes that its holder's death releases, however it dies.

    The file only carries the lock: it stays when the lock goes, because removing it would let two processes each hold
    a lock on a file of that name. A child made by `fork` without `exec` shares the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock if it is free, without waiting. True when this object holds it."""
        if self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            taken = _try_lock(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if taken:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return taken

    def release(self) -> None:
        """Give the lock up; nothing happens when it isn't held."""
        if self._descriptor is not None:
            # Closing is what unlocks, in both systems.
            os.close(self._descriptor)
            self._descriptor = None


if sys.platform == "win32":
    import ctypes
    import msvcrt

    _LOCKED_BYTE = 2**30  # far past the end, because Windows forbids reading a locked range
    _MOVE_REPLACE_EXISTING, _MOVE_WRITE_THROUGH = 0x1, 0x8

    def _flush(descriptor: int) -> None:
        os.fsync(descriptor)

    def _rename(temporary: Path, final: Path) -> None:
        flags = _MOVE_REPLACE_EXISTING | _MOVE_WRITE_THROUGH
        if not ctypes.windll.kernel32.MoveFileExW(str(temporary), str(final), flags):
            raise ctypes.WinError()

    def _reserve(descriptor: int, size: int) -> None:
        _write_zeros(descriptor, size)

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True

else:
    import fcntl

    def _flush(descriptor: int) -> None:
        if sys.platform == "darwin":
            # There, fsync leaves the bytes in the drive's own cache (fsync(2)).
            try:
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
            except OSError as exc:
                if exc.errno not in _CANT:
                    raise
        os.fsync(descriptor)

    def _rename(temporary: Path, final: Path) -> None:
        os.replace(temporary, final)

    def _reserve(descriptor: int, size: int) -> None:
        if sys.platform == "darwin":
            _write_zeros(descriptor, size)
        else:
            os.posix_fallocate(descriptor, 0, size)

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _write_zeros(descriptor: int, size: int) -> None:
    position = os.lseek(descriptor, 0, os.SEEK_END)
    while position < size:
        position += os.write(descriptor, bytes(min(_CHUNK, size - position)))
