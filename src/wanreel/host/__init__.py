"""What differs between operating systems: locks, signals, making files durable. Knows nothing of Wanreel.

The only package with operating-system calls, in a POSIX and a Windows version each. It needs the standard library alone,
because the launcher uses it before anything is installed. Failures are raised as `OSError`.
"""

from __future__ import annotations

from wanreel.host.files import (
    FileLock,
    forget_cached,
    free_bytes,
    fsync_directory,
    fsync_file,
    preallocate,
    replace_durably,
)
from wanreel.host.machine import NvidiaGpu, free_memory, nvidia_gpus, processor_name, total_memory, usable_cores
from wanreel.host.mounts import is_network_filesystem
from wanreel.host.processes import (
    OtherProcess,
    ask_to_stop,
    confine,
    open_file_limit,
    start_detached,
    start_piped,
    stop_signals,
)

__all__ = [
    "FileLock",
    "NvidiaGpu",
    "OtherProcess",
    "ask_to_stop",
    "confine",
    "forget_cached",
    "free_bytes",
    "free_memory",
    "fsync_directory",
    "fsync_file",
    "is_network_filesystem",
    "nvidia_gpus",
    "open_file_limit",
    "preallocate",
    "processor_name",
    "replace_durably",
    "start_detached",
    "start_piped",
    "stop_signals",
    "total_memory",
    "usable_cores",
]
