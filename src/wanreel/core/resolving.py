"""Resolving: what is found wrong, and what is said, while a request is filled in. Knows nothing of any one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from wanreel.core.adjustment import Adjustment
from wanreel.core.errors import Problem

T = TypeVar("T")


@dataclass(kw_only=True)
class Resolving:
    """Collects problems and adjustments."""

    draw_seed: Callable[[], int]
    problems: list[Problem] = field(default_factory=list[Problem])
    adjustments: list[Adjustment] = field(default_factory=list[Adjustment])

    def wrong(self, name: str, code: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(name, code, message, hint))

    def note(self, name: str, asked: object, used: object, reason: str) -> None:
        self.adjustments.append(Adjustment(name, asked, used, reason))

    def seed(self, asked: int | None) -> int:
        """The one asked for, or one that is drawn."""
        if asked is not None and asked >= 0:
            return asked
        drawn = self.draw_seed()
        self.note("seed", asked, drawn, "drawn")
        return drawn


def given(asked: T | None, otherwise: T) -> T:
    """What was asked for, where anything was."""
    return otherwise if asked is None else asked
