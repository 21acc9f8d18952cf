"""Bringing large libraries in quickly. Knows nothing of which they are."""

from __future__ import annotations

import atexit
import gc
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder


@contextmanager
def without_collecting() -> Generator[None]:
    """No garbage collection in the block. Imports make millions of objects that stay, and looking through them again and
    again is a sixth of the time that torch and Diffusers need to come in. What is garbage is found afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def leave_quickly() -> None:
    """When this process ends, its last collection passes over everything: with torch in memory it takes a second."""
    atexit.register(gc.freeze)


@contextmanager
def giving_way(wait: Callable[[], None]) -> Generator[None]:
    """In the block, this thread calls `wait` before each module that it brings in.

    An import of thousands of modules holds the interpreter for seconds in which other threads hardly get on: with this
    it can stand back while they have work. `wait` must end by itself, as others may need a module that is half in.
    """
    finder = _Courteous(threading.get_ident(), wait)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Courteous(MetaPathFinder):
    """Finds nothing: it is only asked first."""

    def __init__(self, thread: int, wait: Callable[[], None]) -> None:
        self._thread = thread
        self._wait = wait

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if threading.get_ident() == self._thread:
            self._wait()
