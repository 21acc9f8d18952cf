"""Measures: how long each stage of an attempt took. Knows nothing of what was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Measures:
    """Seconds on the worker's monotonic clock, of one attempt that made a video."""

    device: str = ""  #: "cpu", "cuda:0 NVIDIA H200", …
    steps: int = 0  #: denoise steps done by this attempt; 0 where finished latents were found
    load: float = 0.0  #: 0.0 when the model was in memory
    encode: float = 0.0
    denoise: float = 0.0  #: previews and checkpoints included
    decode: float = 0.0
    export: float = 0.0

    @property
    def machine(self) -> str:
        """The device without its number: two equal GPUs are equally fast."""
        kind, _, name = self.device.partition(" ")
        return name or kind

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is none."""
        steps, device = int(values["steps"]), str(values["device"])
        return cls(device, steps, *(float(values[stage]) for stage in STAGES))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """None for what is none, or of another version."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, KeyError, TypeError):
            return None


#: In the order in which they happen.
STAGES = ("load", "encode", "denoise", "decode", "export")
