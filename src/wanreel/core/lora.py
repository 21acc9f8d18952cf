"""What is said of LoRAs without opening one: names, which expert a name means, strengths over the steps.

Pure data and arithmetic; knows nothing of files, keys or tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wanreel.core.errors import Problem

Target = Literal["both", "high", "low"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_LORAS = 16  #: of one request
MAX_STRENGTH = 10.0
MAX_SHARES = 100  #: of one schedule
SUFFIX = ".safetensors"
#: Ranks are rounded up to one of these, so that another LoRA of about the same rank has the same shapes: compiled blocks
#: are then used as they are. Larger ranks (several LoRAs add theirs up) go in steps of the last.
BUCKETS = (16, 32, 64, 128)
#: "high_noise", "HighNoise", "-HIGH-", "low" … as words of a file's name.
_EXPERT = re.compile(r"(?i)(?<![a-z])(high|low)(?:[-_. ]?noise)?(?![a-z])")


@dataclass(frozen=True, slots=True)
class LoraRef:
    """A LoRA as asked for: by its name on the shelf, never by a path."""

    name: str
    strength_high: float | None = None  #: on the high-noise expert, or the only one; None: `strength` where it belongs
    strength_low: float | None = None  #: on the low-noise expert
    strength: float = 1.0  #: on whichever expert the file is for
    schedule: str = ""  #: factors over the steps, as `shares` reads them; empty: 1 throughout
    sha256: str = ""  #: the file it must be; empty: whichever has the name


@dataclass(frozen=True, slots=True)
class ResolvedLora:
    """A LoRA with nothing left open."""

    name: str
    sha256: str
    strength_high: float
    strength_low: float  #: equal to strength_high for one-expert models
    schedule: str = ""
    rank: int = 0  #: the largest of any layer: what it takes of memory

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResolvedLora:
        """The inverse of `dataclasses.asdict`."""
        return cls(**values)

    def at(self, step: int, total: int, expert: int) -> float:
        """The strength in step `step` (from 0) of `total` on `expert` (0: high noise or the only one)."""
        return (self.strength_high, self.strength_low)[expert] * factor_at(self.schedule, step, total)

    def used_on(self, expert: int, total: int) -> bool:
        """Whether it does anything to `expert` in any step."""
        return any(self.at(step, total, expert) != 0 for step in range(total))

    def as_ref(self) -> LoraRef:
        """What resolves to this one again."""
        return LoraRef(self.name, self.strength_high, self.strength_low, 1.0, self.schedule, self.sha256)


@dataclass(frozen=True, slots=True)
class LoraFacts:
    """What `resolve` must know of one file on the shelf that fits the model."""

    name: str
    sha256: str
    target: Target  #: the expert that the file is for
    partner: str = ""  #: the file for the other expert, where there is one
    rank: int = 0  #: the largest of any layer
    notes: tuple[str, ...] = ()  #: "3 of 403 tensors are not used: …"


@dataclass(frozen=True, slots=True)
class LoraApplied:
    """What one LoRA did to one expert, for the record."""

    name: str
    sha256: str
    expert: str  #: "high", "low"; empty where there is one expert
    rank: int  #: the largest of any layer
    matched: int  #: layers that it changes
    unmatched: int  #: of its tensors, those that nothing in the model takes
    smallest_scale: float  #: of alpha / rank · strength over its layers
    largest_scale: float

    def __str__(self) -> str:
        where = f" on the {self.expert}-noise expert" if self.expert else ""
        scale = f"{self.smallest_scale:.4g}"
        if self.largest_scale != self.smallest_scale:
            scale += f" to {self.largest_scale:.4g}"
        left = f", {self.unmatched} tensors not used" if self.unmatched else ""
        return f"LoRA {self.name}{where}: {self.matched} layers, rank {self.rank}, scale {scale}{left}"


def bucket_of(rank: int) -> int:
    """The rank that `rank` is rounded up to; 0 for 0."""
    last = BUCKETS[-1]
    return next((bucket for bucket in (0, *BUCKETS) if rank <= bucket), -(-rank // last) * last)


def bucket_for(loras: Iterable[ResolvedLora]) -> int:
    """The rank that the busiest expert carries for all of them together."""
    each = list(loras)
    high = sum(lora.rank for lora in each if lora.strength_high)
    low = sum(lora.rank for lora in each if lora.strength_low)
    return bucket_of(max(high, low))


def target_of(name: str) -> Target:
    """Which expert a file's name says it is for. "both" where it says neither, or both."""
    said = {match[1].lower() for match in _EXPERT.finditer(_spaced(name))}
    if said == {"high"}:
        return "high"
    return "low" if said == {"low"} else "both"


def stem_of_pair(name: str) -> str:
    """The same for both files of a pair, and for no other: the name with the expert's taken out."""
    return _EXPERT.sub("*", _spaced(name)).lower()


def problems_of(ref: LoraRef) -> Iterator[Problem]:
    """What is wrong with the values by themselves."""
    if NAME.fullmatch(ref.name) is None:
        hint = "Its name is what `wanreel loras` and GET /v1/loras list; paths are never read."
        yield Problem("loras", "bad_name", f"{_short(ref.name)} is not the name of a LoRA.", hint)
    for strength in (ref.strength_high, ref.strength_low, ref.strength):
        if strength is not None and not (math.isfinite(strength) and abs(strength) <= MAX_STRENGTH):
            yield Problem("loras", "out_of_range", f"{_short(ref.name)}: strength {strength} is not within -10 to 10.")
    try:
        shares(ref.schedule)
    except ValueError as exc:
        yield Problem(
            "loras",
            "bad_schedule",
            f"{_short(ref.name)}: {exc}",
            "For example 0,1 or 0>1 or 1,1,0.5; see docs/loras.md.",
        )
    if ref.sha256 and re.fullmatch(r"[0-9a-f]{64}", ref.sha256) is None:
        yield Problem("loras", "bad_hash", f"{_short(ref.name)}: sha256 is not 64 hexadecimal digits.")


def shares(schedule: str) -> tuple[tuple[float, float], ...]:
    """A schedule as (first, last) factor of each share of the run. Raises ValueError.

    Factors stand between commas, and each has an equal share of the steps: "0,1" is off in the first half and on in the
    second; with as many factors as steps each step has its own. "0>1" goes evenly from one to the other.
    """
    if not schedule.strip():
        return ()
    parts = schedule.split(",")
    if len(parts) > MAX_SHARES:
        raise ValueError(f"the schedule has {len(parts)} shares; at most {MAX_SHARES} are read.")
    return tuple(_share(part) for part in parts)


def factor_at(schedule: str, step: int, total: int) -> float:
    """The factor in step `step` (from 0) of `total`."""
    parts = shares(schedule)
    if not parts:
        return 1.0
    number = step * len(parts) // total
    first, last = parts[number]
    if first == last:
        return first
    # The steps of this share: its first has `first`, its last has `last`.
    begin, end = -(-number * total // len(parts)), -(-(number + 1) * total // len(parts)) - 1
    return first if end == begin else first + (last - first) * (step - begin) / (end - begin)


def _share(part: str) -> tuple[float, float]:
    ends = [_factor(text) for text in part.split(">")]
    if len(ends) > 2:
        raise ValueError(f"the schedule's {_short(part)} has more than two ends.")
    return ends[0], ends[-1]


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and abs(factor) <= MAX_STRENGTH):
        raise ValueError(f"{_short(text)} in the schedule is not a number within -10 to 10.")
    return factor


def _spaced(name: str) -> str:
    """With a break where lower case meets upper case, so that "FooHighNoise" has words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.removesuffix(SUFFIX))


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "…")
