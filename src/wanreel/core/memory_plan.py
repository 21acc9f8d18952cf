"""MemoryPlan: how a request runs and what that takes, stage by stage, and what runs have taught of it. Values alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wanreel.core.machines import GIB
from wanreel.core.placement import Placement

#: Of every activation, kept free for gaps between the allocator's pieces.
FRAGMENTS = 0.06
#: Kept free besides.
RESERVE = int(0.30 * GIB)

Stage = Literal["text", "picture", "condition", "denoise", "decode"]
#: For people.
STAGES: Mapping[Stage, str] = {
    "text": "read the prompt",
    "picture": "look at the picture",
    "condition": "encode the picture",
    "denoise": "denoise",
    "decode": "decode",
}


@dataclass(frozen=True, slots=True)
class StageMemory:
    """GPU memory at the highest point of one stage, bytes."""

    stage: Stage
    weights: int
    activations: int

    @property
    def peak(self) -> int:
        return self.weights + self.activations

    @property
    def needed(self) -> int:
        """With what an allocator loses."""
        return self.peak + int(FRAGMENTS * self.activations) + RESERVE


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a request runs on a machine, and what that takes."""

    placement: Placement
    stages: tuple[StageMemory, ...] = ()  #: empty where nothing is known of the model's size
    host_bytes: int = 0  #: of weights between their turns, and of tiles being put together
    pinned_bytes: int = 0  #: of that, page-locked
    disk_bytes: int = 0  #: of the weights, those that host memory can't hold: read again from their files in every step
    load_seconds: float = 0.0  #: from files that are not in the page cache
    encode_seconds: float = 0.0
    step_seconds: float = 0.0
    decode_seconds: float = 0.0
    visit_seconds: float = 0.0  #: of the three, what bringing parts to the GPU takes: other runs may share it
    fits: bool = True
    reasons: tuple[str, ...] = ()  #: for people: why this plan, and why not a faster one

    @property
    def gpu_bytes(self) -> int:
        """The highest point of all stages."""
        return max((stage.peak for stage in self.stages), default=0)

    def seconds(self, steps: int) -> float:
        """Of the whole request once the model is loaded."""
        return self.encode_seconds + steps * self.step_seconds + self.decode_seconds

    def visiting_share(self, steps: int) -> float | None:
        """Of that, what other runs may share; None where nothing is known of the model's size."""
        return self.visit_seconds / self.seconds(steps) if self.stages else None

    def stage(self, name: str) -> StageMemory | None:
        return next((stage for stage in self.stages if stage.stage == name), None)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values for front doors and records."""
        placement = self.placement
        return {
            "name": str(placement),
            "plan": placement.plan,
            "precision": placement.precision,
            "exact": placement.arithmetic == 0,
            "tile": str(placement.tile) if placement.tile else None,
            "parallel": placement.parallel.to_dict() | {"ranks": placement.parallel.ranks},
            "fits": self.fits,
            "gpu_bytes": self.gpu_bytes,
            "host_bytes": self.host_bytes,
            "pinned_bytes": self.pinned_bytes,
            "disk_bytes": self.disk_bytes,
            "stages": [
                {"stage": it.stage, "weights": it.weights, "activations": it.activations, "peak": it.peak}
                for it in self.stages
            ],
            "load_seconds": round(self.load_seconds, 2),
            "encode_seconds": round(self.encode_seconds, 2),
            "step_seconds": round(self.step_seconds, 3),
            "decode_seconds": round(self.decode_seconds, 2),
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True)
class Learned:
    """What runs on such a machine have shown: measured over predicted, by stage, and of a step's time."""

    activations: Mapping[Stage, float] = field(default_factory=dict[Stage, float])
    step: float = 1.0
    refused: frozenset[str] = frozenset()  #: plans, by name, that ran out of memory at this size


@dataclass(frozen=True, slots=True)
class PlanRun:
    """One run under a plan, as it is remembered."""

    machine: str  #: the GPU's name; empty for a CPU
    model: str
    size: str  #: "1280x720x81"
    plan: str  #: `str(Placement)`
    failed: Stage | Literal[""] = ""  #: where memory ran out
    predicted: Mapping[Stage, int] = field(default_factory=dict[Stage, int])  #: GPU bytes at most, as it was planned
    measured: Mapping[Stage, int] = field(default_factory=dict[Stage, int])
    weights: Mapping[Stage, int] = field(default_factory=dict[Stage, int])  #: bytes, by the formula
    activations: Mapping[Stage, int] = field(default_factory=dict[Stage, int])  #: by the formula, uncorrected
    #: Seconds of a step, measured (the median) and by the formula; empty where there were too few to tell.
    steps: tuple[float, float] | tuple[()] = ()

    @property
    def error(self) -> float | None:
        """Measured over predicted highest point, less one; None for a run that failed."""
        if not self.predicted or not self.measured:
            return None
        return max(self.measured.values()) / max(self.predicted.values()) - 1


def gib(nbytes: int) -> str:
    """For people: "9.8 GiB"."""
    return f"{nbytes / GIB:.1f} GiB"
