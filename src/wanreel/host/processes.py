"""Processes: how they are started, asked to stop and confined, and how one hears that it is to stop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType

if sys.platform == "win32":
    _STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")
else:
    import resource

    _STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

_MOST_FILES = 65_536  # more is of no use to anybody here


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
