"""Bringing large libraries in quickly. Knows nothing of which they are."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Generator
from contextlib import contextmanager


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
