"""What this machine, or the container on it, has: memory, processor, GPUs."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 2**60  #: bytes; control groups say numbers like this for "no limit"


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


if sys.platform == "win32":
    import ctypes

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

else:

    def _available_memory() -> int:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        # Elsewhere no cheap call says what is free; half of what there is, is.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
