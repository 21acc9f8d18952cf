"""Wishes: what operator and request ask of plans of memory. Plain data; knows no plans.

What the operator has set holds for every request. What is left open ("auto", no tile) a request may choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from wanreel.core.compute import Compile
from wanreel.core.errors import Problem
from wanreel.core.parallel import ParallelWish
from wanreel.core.placement import Plan, Precision

MemoryMode = Literal["auto", "fastest", "balanced", "smallest", "custom"]
#: What becomes of a job when no plan is left: it fails, or it fails and a smaller one is made in its place.
OnOom = Literal["fail", "reduce"]


@dataclass(frozen=True, slots=True)
class MemoryChoices:
    """What one request asks. None: as the operator's settings say."""

    memory_mode: MemoryMode | None = None
    precision: Precision | None = None
    offload: Plan | None = None
    vae_tile: int | None = None
    quantize: bool | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of plans. "auto" leaves the choice to the planner."""

    mode: MemoryMode = "auto"
    precision: Precision | Literal["auto"] = "auto"
    offload: Plan | Literal["auto"] = "auto"
    tile: int | None = None  #: px a VAE tile may be high and wide; 0: whole frames; None: as it fits
    quantize: bool = False  #: the planner may store weights in fewer bits where nothing else fits
    choices: bool = True  #: requests may choose what is left open here
    parallel: ParallelWish = ParallelWish()  #: how the GPUs of a group share a video
    compile: Compile = "auto"  #: whether blocks are compiled

    def joined(self, asked: MemoryChoices) -> Wishes:
        """The same with what a request asks. Whether it may was judged when it was accepted."""
        return replace(
            self,
            mode=asked.memory_mode or self.mode,
            precision=asked.precision or self.precision,
            offload=asked.offload or self.offload,
            tile=self.tile if asked.vae_tile is None else asked.vae_tile,
            quantize=self.quantize if asked.quantize is None else asked.quantize,
        )

    @property
    def fixed(self) -> dict[str, str | int | None]:
        """What the operator set, by the knob's name; None where it is left open."""
        return {
            "memory_mode": None if self.mode == "auto" else self.mode,
            "precision": None if self.precision == "auto" else self.precision,
            "offload": None if self.offload == "auto" else self.offload,
            "vae_tile": self.tile,
            "quantize": self.quantize or None,
        }

    def problems(self, asked: MemoryChoices) -> Iterator[Problem]:
        """What a request may not choose here."""
        for name, here in self.fixed.items():
            wanted = getattr(asked, name)
            if wanted is None or wanted == here:
                continue
            if not self.choices:
                text = "is not for requests to choose here."
            elif here is not None:
                text = f"is {here} for every request here, not {wanted}."
            else:
                continue
            yield Problem(name, "not_allowed", text, "Leave it out, or ask the operator.")
