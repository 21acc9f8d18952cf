"""What differs between operating systems: locks, signals, making files durable. Knows nothing of Wanreel.

The only module with operating-system calls, in a POSIX and a Windows version each. It needs the standard library alone,
because the launcher uses it before anything is installed. Failures are raised as `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_MOST_FILES = 65_536  # more is of no use to anybody here
_CHUNK = 2**20  # bytes written at a time where a file can't be reserved in one call

#: File system types whose files lie on another machine. Any FUSE type counts too, but for `_LOCAL_FUSE`.
_NETWORK_TYPES = frozenset(
    ("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2")
    + ("orangefs", "panfs", "pvfs2", "smb3", "smbfs", "webdav")
)
_LOCAL_FUSE = frozenset(
    ("fuseblk", "fuse.bindfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.lxcfs", "fuse.ntfs-3g", "fuse.portal")
)
_NO_LIMIT = 2**60  #: bytes; control groups say numbers like this for "no limit"
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


def free_memory() -> int:
    """Bytes of memory that this process may still take: what the machine has free, or what its container allows.

    Memory that holds file contents alone counts as free, as the kernel gives it up when it is asked for.
    """
    free, limit = _available_memory(), _container_memory()
    return free if limit is None else max(0, min(free, limit))


def total_memory() -> int:
    """Bytes of memory that the machine has; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def processor_name() -> str:
    """What the processor calls itself, "AMD EPYC 9654 96-Core Processor"."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class NvidiaGpu:
    """One GPU as the driver's own tool describes it."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


def nvidia_gpus() -> tuple[NvidiaGpu, ...]:
    """The NVIDIA GPUs of this machine, asked of nvidia-smi; none where that is absent or does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = "--query-gpu=index,name,memory.total,memory.free,compute_cap"
    with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [tool, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False, timeout=10
        )
        return tuple(_parse_gpu(line) for line in done.stdout.splitlines() if line.strip())
    return ()


def _parse_gpu(line: str) -> NvidiaGpu:
    """ "0, NVIDIA H200, 143771, 143156, 9.0": memory in MiB. Raises ValueError for anything else."""
    index, name, total, free, capability = (part.strip() for part in line.split(","))
    major, minor = capability.split(".")
    return NvidiaGpu(int(index), name, int(total) * 2**20, int(free) * 2**20, (int(major), int(minor)))


def _container_memory(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left under the limits of this process's control group and of those around it (seen from inside a container,
    its group is the root), version 2 or 1; None without a limit. Inactive file contents count as free.
    """
    left = [_left_in(group) for group in _groups(root, membership)]
    return min((found for found in left if found is not None), default=None)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """Folders of the groups that limit this process's memory, its own first."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = membership.read_text().splitlines()
    for line in (*lines, "0::/"):
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / controllers
            own = top / path.lstrip("/")
            yield own
            yield from (parent for parent in own.parents if parent.is_relative_to(top))


def _left_in(group: Path) -> int | None:
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):
            allowed = int((group / limit).read_text())
            if allowed >= _NO_LIMIT:
                return None
            return allowed - int((group / usage).read_text()) + _inactive_files(group)
    return None


def _inactive_files(group: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def is_network_filesystem(path: Path) -> bool:
    """Whether `path` lies on another machine, as far as the system tells. False where it doesn't tell."""
    if sys.platform == "win32":
        return _is_remote_drive(path.resolve())
    found = _filesystem_type(path.resolve(), _mounts())
    return found in _NETWORK_TYPES or (found.startswith("fuse") and found not in _LOCAL_FUSE)


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


@contextlib.contextmanager
def stop_signals(callback: Callable[[str], object]) -> Generator[None]:
    """Within the block, call `callback` with the signal's name each time somebody asks this process to stop.

    That is Ctrl-C, a request to terminate, and a closed terminal (unless it is ignored, as under `nohup`). The former
    handlers come back afterwards. Outside the main thread, where Python allows no handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        callback(signal.Signals(number).name)

    wanted = [number for name in _STOP_SIGNALS if (number := getattr(signal, name, None)) is not None]
    former = {number: signal.getsignal(number) for number in wanted}
    ours = [number for number in wanted if former[number] is not signal.SIG_IGN]
    try:
        for number in ours:
            signal.signal(number, handle)
        yield
    finally:
        for number in ours:
            # None: a handler that was not made by Python, which can't be put back from here.
            signal.signal(number, former[number] or signal.SIG_DFL)


def start_detached(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that Ctrl-C in our terminal doesn't reach: we pass it on ourselves, once."""
    if sys.platform == "win32":
        return subprocess.Popen(command, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
    return subprocess.Popen(command, start_new_session=True)


def start_piped(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """The same with pipes to its stdin and from its stdout."""
    pipe = subprocess.PIPE
    if sys.platform == "win32":
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP)
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)


class OtherProcess:
    """A process that is not ours to wait for, by its number. On Linux a later one of that number is not taken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._handle: int | None = None
        if sys.platform == "linux":
            try:
                self._handle = os.pidfd_open(pid)
            except ProcessLookupError:
                self._handle = -1

    @property
    def gone(self) -> bool:
        """Whether it has ended, though its parent may not have heard of it yet."""
        if self._handle is not None:
            return self._handle < 0 or bool(select.select([self._handle], [], [], 0)[0])
        if sys.platform == "win32":
            return False  # where the same call would send it a Ctrl-C
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    @property
    def stopped(self) -> bool:
        """Whether a signal has stopped it, so that it does nothing until another one comes. Known on Linux alone."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"T", b"t")
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        with contextlib.suppress(OSError):
            if self._handle is None:
                os.kill(self.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
            elif self._handle >= 0 and sys.platform == "linux":
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)


def confine(memory: int, seconds: int) -> None:
    """Let this process have so many bytes of address space and seconds of processor, write no file and start no core
    dump. Nothing happens on Windows, which has no such limits."""
    if sys.platform != "win32":
        for limit, value in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(limit)[1]
            allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (allowed, allowed))


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a process of `start_detached` to end in its own time."""
    # On Windows, `terminate` ends it at once.
    process.send_signal(signal.CTRL_BREAK_EVENT if sys.platform == "win32" else signal.SIGTERM)


def open_file_limit() -> int:
    """How many files and connections this process may hold open, after asking for as many as it is allowed to ask for."""
    if sys.platform == "win32":
        return _MOST_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def _filesystem_type(path: Path, mounts: list[tuple[str, str]]) -> str:
    """The type of the mount that holds `path`; of several mounted on one place the last covers the others."""
    holding = [mount for mount in mounts if path == Path(mount[0]) or Path(mount[0]) in path.parents]
    longest = max((len(point) for point, _ in holding), default=0)
    return next((kind for point, kind in reversed(holding) if len(point) == longest), "")


def _parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line of /proc/self/mountinfo (proc(5)): the type follows a lone hyphen."""
    parts = [line.partition(" - ") for line in text.splitlines()]
    return [(_unescape(before.split()[4]), after.split()[0]) for before, _, after in parts if after]


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


if sys.platform == "win32":
    import ctypes
    import msvcrt

    _STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")
    _LOCKED_BYTE = 2**30  # far past the end, because Windows forbids reading a locked range
    _MOVE_REPLACE_EXISTING, _MOVE_WRITE_THROUGH = 0x1, 0x8
    _DRIVE_REMOTE = 4

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

    def _available_memory() -> int:
        class Status(ctypes.Structure):
            _fields_ = (
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                *((name, ctypes.c_ulonglong) for name in ("total", "available", "p1", "p2", "v1", "v2", "v3")),
            )

        status = Status(length=ctypes.sizeof(Status))
        if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
            raise ctypes.WinError()
        return int(status.available)

    def _is_remote_drive(path: Path) -> bool:
        if path.drive.startswith("\\\\"):
            return True
        return ctypes.windll.kernel32.GetDriveTypeW(path.anchor) == _DRIVE_REMOTE

else:
    import fcntl
    import resource

    _STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

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

    def _available_memory() -> int:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        # Elsewhere no cheap call says what is free; half of what there is, is.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2

    def _mounts() -> list[tuple[str, str]]:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                return _parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
            return []
        with contextlib.suppress(OSError):
            listed = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=False).stdout
            return re.findall(r"^.+? on (.+) \((\w+)", listed, flags=re.MULTILINE)
        return []


def _write_zeros(descriptor: int, size: int) -> None:
    position = os.lseek(descriptor, 0, os.SEEK_END)
    while position < size:
        position += os.write(descriptor, bytes(min(_CHUNK, size - position)))
