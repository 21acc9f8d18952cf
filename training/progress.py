"""How long a stage has run and may still run, its log lines, and its saved state. Knows nothing of what is trained."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger("training")


@dataclass(frozen=True)
class Limits:
    """A stage ends after `seconds` or after `steps` of training; it is paused after `pause_after` seconds of this process."""

    seconds: float | None = None
    steps: int | None = None
    pause_after: float | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("a stage needs either seconds or steps")


@dataclass
class Progress:
    """Counts steps and seconds across pauses. `now` is a clock in seconds, replaceable by tests."""

    limits: Limits
    now: Callable[[], float] = time.monotonic
    step: int = 0
    spent: float = 0.0  #: seconds of earlier processes
    _start: float = field(default=0.0, init=False)

    def start(self) -> None:
        self._start = self.now()

    @property
    def elapsed(self) -> float:
        """Seconds of training in all processes together."""
        return self.spent + self.now() - self._start

    @property
    def done(self) -> float:
        """0 at the start, 1 at the end."""
        if self.limits.steps is not None:
            return self.step / self.limits.steps
        return self.elapsed / float(self.limits.seconds or 1.0)

    @property
    def paused(self) -> bool:
        return self.limits.pause_after is not None and self.now() - self._start >= self.limits.pause_after


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a stage at once or not at all, with torch's random state in it."""
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    part = path.with_suffix(".part")
    torch.save({**state, "generators": generators}, part)
    os.replace(part, path)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """The way back; sets torch's random state to what it was."""
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    torch.set_rng_state(state["generators"]["cpu"].cpu())
    if "cuda" in state["generators"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["generators"]["cuda"].cpu())
    return state
