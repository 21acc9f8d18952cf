"""Bell: wakes idle workers when there is something to do. Knows nothing of what that is.

A worker listens on a UDP port of the loopback device and writes port and a secret word into a file of the data
directory; whoever can read the file can ring. UDP serves Windows too, and has no limit on the length of a path as
Unix sockets have. A lost ring costs a second, not a job: workers look by themselves as well.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_LOOPBACK = "127.0.0.1"
_SUFFIX = ".bell"
_AT_ONCE = 256  # rings read in one go, so that a flood can't hold the worker


def ring(folder: Path) -> int:
    """Wake every worker that listens in `folder`. Returns how many were rung; never fails."""
    rung = 0
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            rung += _ring_one(sender, path)
    return rung


def _ring_one(sender: socket.socket, path: Path) -> bool:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        sender.sendto(str(said["word"]).encode(), (_LOOPBACK, int(said["port"])))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        # The worker left, or is just writing the file.
        return False
    return True


def sweep_bells(folder: Path, is_alive: Callable[[str], bool]) -> None:
    """Take down the bells of dead workers."""
    for path in folder.glob(f"*{_SUFFIX}"):
        if not is_alive(path.name.removesuffix(_SUFFIX)):
            path.unlink(missing_ok=True)


class Bell:
    """One worker's bell. Where the loopback device can't be used, `wait` just sleeps."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / f"{name}{_SUFFIX}"
        self._word = secrets.token_hex(16).encode()
        self._socket = _listen()
        if self._socket is not None:
            said = {"port": self._socket.getsockname()[1], "word": self._word.decode()}
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text(json.dumps(said), encoding="utf-8")
            temporary.replace(self._path)

    def wait(self, seconds: float) -> bool:
        """Sleep for up to `seconds`; True as soon as somebody rings. Rings heard meanwhile count as one."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._socket is None:
                time.sleep(left)
            elif select.select([self._socket], [], [], left)[0] and self._heard(self._socket):
                return True
        return False

    def wake(self) -> None:
        """Ring it from this process. Safe in a signal handler."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(self._word, self._socket.getsockname())

    def close(self) -> None:
        """Take the bell down."""
        self._path.unlink(missing_ok=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _heard(self, listener: socket.socket) -> bool:
        """Read all that came in; whether any of it was meant for us."""
        meant = False
        with contextlib.suppress(OSError):
            for _ in range(_AT_ONCE):
                meant = secrets.compare_digest(listener.recv(64), self._word) or meant
        return meant

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _listen() -> socket.socket | None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listener.bind((_LOOPBACK, 0))
    except OSError:
        listener.close()
        return None
    listener.setblocking(False)
    return listener
