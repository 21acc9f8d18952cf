"""QualifyReport: what `wanreel models qualify` found out about real weights, to be shared as JSON.

Holds nothing of the machine's paths or users. The run itself is in `wanreel.generation.qualify`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from wanreel.models.attention import AttentionFacts
from wanreel.models.folder import Part, WeightFolder
from wanreel.models.machine import MachineFacts

#: Largest relative RMS difference that still counts as the same result when both sides compute in 16 bits; in fp32 on
#: equal kernels it is 0. Diffusers guides in bf16, we in fp32: one rounding (2^-9) a step.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class PartFacts:
    """The weights of one part, from the files' headers."""

    files: int
    tensors: int
    weights: int  #: number of them
    bytes: int  #: on disk
    dtypes: tuple[str, ...]  #: stored ones
    layout: str  #: SHA-256 over every tensor's name, dtype and shape: equal layouts, equal text

    @classmethod
    def of(cls, part: Part) -> PartFacts:
        rows = sorted((key, info.dtype, info.shape) for key, info in part.tensors.items())
        return cls(
            files=len(part.files),
            tensors=len(rows),
            weights=part.elements,
            bytes=sum(file.stat().st_size for file in part.files),
            dtypes=tuple(sorted({info.dtype for info in part.tensors.values()})),
            layout=hashlib.sha256(repr(rows).encode()).hexdigest(),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our result beside Diffusers'."""

    of: str  #: what was compared
    equal: bool  #: to the bit
    largest: float  #: absolute difference
    relative_rms: float  #: RMS of the difference over RMS of the reference
    passed: bool

    @classmethod
    def between(cls, of: str, ours: Tensor, reference: Tensor) -> Comparison:
        """Compares two tensors of one shape in fp64."""
        one, other = ours.detach().double().cpu(), reference.detach().double().cpu()
        difference = one - other
        scale = other.square().mean().sqrt().item()
        rms = difference.square().mean().sqrt().item() / scale if scale else math.inf
        equal = torch.equal(one, other)
        return cls(of, equal, difference.abs().max().item(), 0.0 if equal else rms, equal or rms <= TOLERANCE)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One measured run at the model's default size."""

    mode: str
    width: int  #: px
    height: int  #: px
    num_frames: int
    steps: int
    seconds_load: float
    seconds_encode: float
    seconds_per_step: float  #: of the last step, so that the first one's warm-up does not count
    seconds_decode: float
    peak_bytes_denoise: int | None  #: None without a GPU
    peak_bytes_decode: int | None
    frames_vary: bool  #: decoded to more than one colour


@dataclass(frozen=True, slots=True)
class QualifyReport:
    """Everything that speaks for or against these weights."""

    model: str
    hub_id: str | None
    wanreel: str  #: version
    when: str  #: UTC, ISO 8601
    machine: MachineFacts
    attention: AttentionFacts
    device: str
    dtypes: dict[str, str]
    plan: str
    parts: dict[str, PartFacts]
    run: RunFacts
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that was compared agrees, at least one thing was, and the video is not one flat colour."""
        return bool(self.comparisons) and all(one.passed for one in self.comparisons) and self.run.frames_vary

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"passed": self.passed, **asdict(self)}


def part_facts(folder: WeightFolder) -> dict[str, PartFacts]:
    return {name: PartFacts.of(part) for name, part in folder.parts.items()}


def dtype_names(named: Iterable[tuple[str, torch.dtype]]) -> dict[str, str]:
    """{"vae": "float32", …}"""
    return {name: str(dtype).removeprefix("torch.") for name, dtype in named}
