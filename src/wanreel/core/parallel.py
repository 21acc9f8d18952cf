"""Parallel: how the GPUs of one host share one video. Plain data; knows neither torch nor how it was chosen.

`core/parallel_plans.py` chooses it, `models/parallel` carries it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast

from wanreel.core.errors import SettingsError

#: The parts by the names that `--parallel` takes.
PARTS = ("cfg", "ulysses", "ring")


@dataclass(frozen=True, slots=True)
class Parallel:
    """The ranks of a group: a product of three parts. One rank is one process on one GPU, or on the CPU.

    Rank r belongs to pass r // sequence, and holds part r % sequence of the tokens; ranks of one Ulysses group hold
    neighbouring parts.
    """

    cfg: int = 1  #: 2: the passes with and without the prompt run at once
    ulysses: int = 1  #: ranks that exchange tokens for heads around self-attention
    ring: int = 1  #: ranks (or Ulysses groups) between which keys and values go round
    fsdp: bool = False  #: each rank holds its share of the weights, and blocks come together one by one

    @property
    def ranks(self) -> int:
        return self.cfg * self.sequence

    @property
    def sequence(self) -> int:
        """Parts that the tokens are in."""
        return self.ulysses * self.ring

    @property
    def alone(self) -> bool:
        return self.ranks == 1

    @property
    def loading(self) -> Parallel:
        """What can't be changed without loading again: how many ranks there are, and whether weights are shared out."""
        return Parallel(cfg=self.ranks, fsdp=self.fsdp)

    @property
    def arithmetic(self) -> str:
        """What of it the bits may depend on; empty where they don't. Passes are computed the same wherever they are."""
        words = [f"{name} {count}" for name, count in (("ulysses", self.ulysses), ("ring", self.ring)) if count > 1]
        return ", ".join(words)

    def unguided(self, heads: int) -> Parallel:
        """The same ranks for a step of one pass: tokens are in more parts, heads exchanged as far as they divide."""
        if self.cfg == 1:
            return self
        wider = self.ulysses * self.cfg
        if heads % wider == 0:
            return replace(self, cfg=1, ulysses=wider)
        return replace(self, cfg=1, ring=self.ring * self.cfg)

    def to_dict(self) -> dict[str, Any]:
        return {"cfg": self.cfg, "ulysses": self.ulysses, "ring": self.ring, "fsdp": self.fsdp}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(int(values["cfg"]), int(values["ulysses"]), int(values["ring"]), bool(values["fsdp"]))

    def __str__(self) -> str:
        """For records: "4 ranks: cfg 2, ulysses 2, fsdp"; empty for one."""
        if self.alone:
            return ""
        words = [f"{name} {getattr(self, name)}" for name in PARTS if getattr(self, name) > 1]
        return f"{self.ranks} ranks: {', '.join(words + (['fsdp'] if self.fsdp else []))}"


#: What a group of GPUs does with the queue. auto: one video on all of them, or one on each while the queue is deep.
Spread = Literal["auto", "together", "each"]


@dataclass(frozen=True, slots=True)
class ParallelWish:
    """What the operator asks of parallel plans. None leaves the choice to the planner."""

    cfg: int | None = None
    ulysses: int | None = None
    ring: int | None = None
    fsdp: bool | None = None
    spread: Spread = "auto"

    @property
    def ranks(self) -> int:
        """Of the parts that are named."""
        return (self.cfg or 1) * (self.ulysses or 1) * (self.ring or 1)

    @property
    def names_parts(self) -> bool:
        return any(part is not None for part in (self.cfg, self.ulysses, self.ring))

    def allows(self, parallel: Parallel) -> bool:
        given = {name: getattr(self, name) for name in (*PARTS, "fsdp")}
        return all(value is None or value == getattr(parallel, name) for name, value in given.items())

    def check(self, ranks: int) -> None:
        """Raises SettingsError where the named parts can't make `ranks`."""
        product = self.ranks
        if ranks % product or (product != ranks and None not in (self.cfg, self.ulysses, self.ring)):
            named = " × ".join(f"{name} {getattr(self, name)}" for name in PARTS if getattr(self, name) is not None)
            raise SettingsError(
                f"parallel: {named} makes {product}, and there are {ranks} GPUs.",
                hint="The parts multiply to the number of GPUs; those left out are chosen.",
            )


_PART = re.compile(r"(cfg|ulysses|ring)=([0-9]{1,3})")


def parse_parallel(text: str) -> ParallelWish:
    """ "auto", "each", "together", or parts: "cfg=2,ulysses=2,fsdp", "ring=4,nofsdp". Raises SettingsError naming the part.

    Naming parts means one video on all GPUs.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if words in ([], ["auto"]):
        return ParallelWish()
    if len(words) == 1 and words[0] in ("each", "together"):
        return ParallelWish(spread=cast("Spread", words[0]))
    found: dict[str, Any] = {}
    for word in words:
        match = _PART.fullmatch(word)
        name, value = (match[1], int(match[2])) if match else ("fsdp", word == "fsdp")
        if (match is None and word not in ("fsdp", "nofsdp")) or (match is not None and value < 1) or name in found:
            raise SettingsError(
                f"parallel: {word!r} is not understood.",
                hint="Give auto, each, together, or parts as cfg=2,ulysses=2,ring=1,fsdp, each once.",
            )
        if name == "cfg" and value > 2:
            raise SettingsError(f"parallel: {word!r}: there are two passes at most.", hint="cfg is 1 or 2.")
        found[name] = value
    return ParallelWish(**found, spread="together")


def parse_gpus(text: str) -> tuple[int, ...]:
    """ "0,1" as numbers; () for "" and "all". Raises SettingsError."""
    if text.strip().lower() in ("", "all"):
        return ()
    names = [name.strip() for name in text.split(",")]
    if not all(name.isascii() and name.isdigit() for name in names) or len(set(map(int, names))) != len(names):
        raise SettingsError(f"gpus: {text!r} is no list of GPUs.", hint="Give their numbers once each, as 0,1; or all.")
    return tuple(int(name) for name in names)


def rank_devices(device: str, gpus: str, wish: ParallelWish, found: int) -> tuple[str, ...]:
    """A device for each rank of a group, rank 0's first. `found`: GPUs of this machine.

    On a CPU the parts that `wish` names say how many ranks there are. Raises SettingsError for GPUs that are not there,
    for fewer than two, and for parts that can't make as many.
    """
    named = parse_gpus(gpus)
    if device == "cpu" or (device == "auto" and not found and not named):
        if not wish.names_parts:
            raise SettingsError(
                "One video on several GPUs needs at least two, and this machine has none.",
                hint="On a CPU the parts say how many processes: --device cpu --parallel cfg=2.",
            )
        return ("cpu",) * wish.ranks
    numbers = gpu_numbers(gpus, found)
    if len(numbers) < 2:
        raise SettingsError(
            f"One video on several GPUs needs at least two; {'named is' if named else 'this machine has'} {len(numbers)}.",
            hint="Leave out --multi-gpu, or name more with --gpus.",
        )
    wish.check(len(numbers))
    return tuple(f"cuda:{number}" for number in numbers)


def gpu_numbers(gpus: str, found: int) -> tuple[int, ...]:
    """The GPUs that `gpus` names, all of the `found` ones for "" and "all". Raises SettingsError for one that is not there."""
    named = parse_gpus(gpus)
    absent = [number for number in named if number >= found]
    if absent:
        there = {0: "none", 1: "one, number 0"}.get(found, f"{found}, numbers 0 to {found - 1}")
        raise SettingsError(
            f"gpus: there is no GPU {absent[0]}: this machine has {there}.", hint="Run `wanreel doctor`."
        )
    return named or tuple(range(found))
