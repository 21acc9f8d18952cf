"""What this process does behind the product's back, by Python's audit hooks: connections begun, files opened."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Watch:
    """What was seen while it was on."""

    connects: list[tuple[str, int]] = field(default_factory=list)
    opens: list[str] = field(default_factory=list)
    #: Which connections are really made; the others are noted, and fail as if nobody were there.
    lets_through: Callable[[str, int], bool] = lambda host, port: True


_watching: list[Watch] = []
_lock = threading.Lock()


@functools.cache
def _install() -> None:
    """Once, as there is no way to take a hook off again."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host, port = str(arguments[1][0]), int(arguments[1][1])
        for watch in list(_watching):
            watch.connects.append((host, port))
            if not watch.lets_through(host, port):
                raise ConnectionRefusedError("not let through by the test")
    elif event in ("open", "os.open", "os.listdir", "os.scandir", "os.remove", "os.rename", "os.mkdir", "os.link"):
        name = arguments[0]
        if isinstance(name, (str, bytes)):
            text = name if isinstance(name, str) else name.decode(errors="surrogateescape")
            for watch in list(_watching):
                watch.opens.append(text)


@contextlib.contextmanager
def watching(lets_through: Callable[[str, int], bool] = lambda host, port: True) -> Generator[Watch]:
    """Note what happens within the block, in every thread."""
    with _lock:
        _install()
    watch = Watch(lets_through=lets_through)
    _watching.append(watch)
    try:
        yield watch
    finally:
        _watching.remove(watch)
