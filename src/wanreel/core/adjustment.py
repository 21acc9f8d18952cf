"""Adjustment: one difference between what was asked and what runs. A value alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One difference between what was asked and what runs, or one choice made for the user."""

    field: str
    asked: object  #: None when nothing was asked
    used: object
    reason: str

    def __str__(self) -> str:
        change = f"{self.asked} → {self.used}" if self.asked is not None else f"{self.used}"
        return f"{self.field}: {change} ({self.reason})"

    def to_dict(self) -> dict[str, object]:
        return asdict(self)
