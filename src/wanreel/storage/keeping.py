"""Keeping: under which names one piece of work is kept, so that another process can go on with it.

Knows nothing of what a saved state looks like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wanreel.storage.disk import Blobs


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Keeping:
    """The same for every attempt at the same work, which no two processes do at once."""

    work: str  #: what its saved states are marked with; those of other work are never used
    checkpoints: Path  #: folder of the saved states
    results: Path  #: folder of the video and the pictures beside it
    stem: str  #: their names without suffix
    pictures: Blobs  #: where the request's pictures are
    urgent: Callable[[], bool] = _never  #: asked after each step; True: save now, whatever it costs
    handoffs: tuple[int, ...] = ()  #: frames, counted back from the last one, that are kept as pictures too
