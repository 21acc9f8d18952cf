"""Prints what each kind of video takes on four cards beside what was once promised for it. Needs no GPU: the planner's
arithmetic, and measured seconds of the H200 where docs/measured has them. With --write it goes into docs/benchmarks.md.

    PYTHONPATH=src python scripts/seeds_table.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.machines import GIB, TERA, Card, Machine, card_named, machine_of_card
from wanreel.core.memory import plan_memory
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.presets import preset_steps
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- scripts/seeds_table.py --write -->", "<!-- end -->"
MODEL = "i2v-a14b"
PRESETS = ("draft", "standard", "high")
FRAMES = (49, 81, 105, 161)
SIZES: Mapping[str, tuple[int, int]] = {"480P": (832, 480), "720P": (1280, 720), "1080P": (1920, 1072)}
SMALL_MODEL, SMALL_SIZE, SMALL_FRAMES = "ti2v-5b", (1280, 704), (49, 81, 121, 161)
FEW_STEPS = 4  #: of a distilled LoRA, without guidance


@dataclass(frozen=True)
class Setup:
    """A card with the host memory beside it, and what its weights are stored in."""

    card: Card
    host_gib: float
    wishes: Wishes

    @property
    def machine(self) -> Machine:
        return machine_of_card(self.card, host_gib=self.host_gib)

    def __str__(self) -> str:
        stored = "fp8" if self.wishes.precision == "fp8" else "bf16"
        return f"{self.card.name}, {self.host_gib:g} GiB host, {stored}"


SETUPS = (
    Setup(card_named("H200"), 110, Wishes()),
    Setup(card_named("RTX A6000"), 96, Wishes()),
    Setup(card_named("RTX 4090"), 96, Wishes()),
    Setup(card_named("RTX 4080"), 32, Wishes(precision="fp8")),
)


@dataclass(frozen=True)
class Promise:
    """What the users' documents say of one video."""

    size: str
    preset: str
    frames: int
    minutes: float  #: at most
    card: str  #: "" where none is named


PROMISES = (
    Promise("480P", "draft", 49, 3, "RTX A6000"),
    Promise("480P", "standard", 81, 5, "RTX A6000"),
    Promise("720P", "draft", 49, 4, "RTX A6000"),
    Promise("720P", "standard", 81, 8, "RTX A6000"),
    Promise("720P", "high", 105, 15, "RTX A6000"),
    Promise("720P", "standard", 81, 9, ""),
    Promise("1080P", "standard", 81, 17, ""),
)


@dataclass(frozen=True)
class Times:
    """Seconds of one video on one card."""

    encode: float
    forward: float
    decode: float
    floor: float  #: of a forward: operations over the datasheet's rate
    plan: MemoryPlan

    def seconds(self, forwards: int) -> float:
        return self.encode + forwards * self.forward + self.decode

    def told(self, forwards: int) -> str:
        return f"{minutes(self.seconds(forwards))} (floor {minutes(forwards * self.floor)})"


class Table:
    """Times by size, frames and card."""

    def __init__(self) -> None:
        self.spec: ModelSpec = Catalog().get(MODEL)
        self.measured = measured_seconds()
        self._known: dict[tuple[str, int, str], Times] = {}

    def work(self, size: str, frames: int, steps: int = 40) -> Workload:
        return Workload(self.spec, *SIZES[size], frames, steps, 2, 1)

    def times(self, size: str, frames: int, setup: Setup) -> Times:
        key = (size, frames, setup.card.name)
        if key not in self._known:
            work = self.work(size, frames)
            plan = plan_memory(work, setup.machine, setup.wishes)
            floor = sum(work.forward_operations()) / (setup.card.matrices * TERA)
            found = Times(plan.encode_seconds, plan.step_seconds / 2, plan.decode_seconds, floor, plan)
            own = self.measured.get((size, frames)) if setup.card.name == "H200" else None
            self._known[key] = replace(found, **own) if own else found
        return self._known[key]

    def least(self, size: str, frames: int) -> MemoryPlan:
        """The plan with the least GPU memory and the model's own weights, on a machine with plenty of both kinds."""
        return plan_memory(self.work(size, frames), SETUPS[0].machine, Wishes(mode="smallest"))


def main() -> None:
    table = Table()
    text = "\n".join(lines(table))
    if "--write" not in sys.argv:
        print(text)
        return
    path = DOCS / "benchmarks.md"
    before, rest = path.read_text().split(BEGIN, 1)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}")


def lines(table: Table) -> Iterator[str]:
    """The tables as Markdown."""
    yield from _all_videos(table)
    yield ""
    yield from _promises(table)
    yield ""
    yield from _small_model()


def _all_videos(table: Table) -> Iterator[str]:
    yield f"| {MODEL} | steps | least GPU memory, bf16 | {' | '.join(map(str, SETUPS))} |"
    yield "|---" * (3 + len(SETUPS)) + "|"
    for size, frames in _videos():
        for preset in (*PRESETS, "fast"):
            steps = FEW_STEPS if preset == "fast" else preset_steps(table.spec, preset) or 0
            forwards = steps if preset == "fast" else 2 * steps
            cells = [_cell(table, size, frames, setup, forwards) for setup in SETUPS]
            least = f"{table.least(size, frames).gpu_bytes / GIB:.1f} GiB"
            yield f"| {size} {preset} × {frames} | {steps} | {least} | {' | '.join(cells)} |"


def _videos() -> Iterator[tuple[str, int]]:
    for size in SIZES:
        yield from ((size, frames) for frames in (FRAMES if size != "1080P" else (81,)))


def _cell(table: Table, size: str, frames: int, setup: Setup, forwards: int) -> str:
    times = table.times(size, frames, setup)
    measured = setup.card.name == "H200" and (size, frames) in table.measured
    told, memory = times.told(forwards), f"{times.plan.gpu_bytes / GIB:.1f} GiB"
    if not times.plan.fits:
        return "does not fit"
    return f"**{told}**, {memory}" if measured else f"{told}, {memory}"


def _promises(table: Table) -> Iterator[str]:
    yield "| promised | on | takes here | with the fast preset | |"
    yield "|---|---|---|---|---|"
    for promise in PROMISES:
        setups = [it for it in SETUPS if it.card.name == promise.card or not promise.card]
        for setup in setups:
            times = table.times(promise.size, promise.frames, setup)
            forwards = 2 * (preset_steps(table.spec, promise.preset) or 0)  # type: ignore[arg-type]
            limit = 60 * promise.minutes
            if times.seconds(forwards) <= limit:
                verdict = "kept"
            elif forwards * times.floor > limit:
                verdict = "unreachable: below the arithmetic"
            else:
                verdict = "not reached"
            fast = times.seconds(FEW_STEPS)
            yield (
                f"| {promise.size} {promise.preset} × {promise.frames} in {promise.minutes:g} min | {setup.card.name} | "
                f"{times.told(forwards)} | {minutes(fast)}{'' if fast <= limit else ', not reached'} | {verdict} |"
            )


def _small_model() -> Iterator[str]:
    spec = Catalog().get(SMALL_MODEL)
    yield f"| {SMALL_MODEL}, text | steps | {' | '.join(setup.card.name for setup in SETUPS)} |"
    yield "|---" * (2 + len(SETUPS)) + "|"
    for frames in SMALL_FRAMES:
        work = Workload(spec, *SMALL_SIZE, frames, spec.steps, 2)
        cells: list[str] = []
        for setup in SETUPS:
            plan = plan_memory(work, setup.machine, setup.wishes)
            floor = sum(work.forward_operations()) / (setup.card.matrices * TERA)
            times = Times(plan.encode_seconds, plan.step_seconds / 2, plan.decode_seconds, floor, plan)
            cells.append(f"{times.told(2 * spec.steps)}, {plan.gpu_bytes / GIB:.1f} GiB")
        yield f"| {SMALL_SIZE[0]}×{SMALL_SIZE[1]} × {frames} | {spec.steps} | {' | '.join(cells)} |"


def measured_seconds() -> dict[tuple[str, int], dict[str, float]]:
    """Encode, one forward and decode of the whole request on the H200, where all three were measured."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for record in _records("offload.json"):
        if record["what"] in ("resident", "ours, resident"):
            found[_named(record["size"])] = {"forward": min(record["seconds"])}
    for row in json.loads((DOCS / "benchmarks.json").read_text())["rows"]:
        key = _named(f"{row['width']}x{row['height']}x{row['num_frames']}")
        if row["model"] == MODEL and row["limit_gib"] is None:
            found[key] |= {"encode": row["encode_s"], "decode": row["decode_s"]}
    for record in _records("memory-calibration.json"):
        key = _named(f"{record['width']}x{record['height']}x{record['frames']}")
        whole = record["stage"] in ("encode", "decode") and record["values"].get("frames", 81) == record["frames"]
        if record["model"] == MODEL and record["cap_gib"] is None and whole and key in found:
            found[key].setdefault(record["stage"], record["seconds"])
    return {key: values for key, values in found.items() if values.keys() == {"encode", "forward", "decode"}}


def _records(name: str) -> list[dict[str, Any]]:
    return json.loads((DOCS / "measured" / name).read_text())["records"]


def _named(size: str) -> tuple[str, int]:
    """ "1280x720x81" as ("720P", 81)."""
    width, height, frames = map(int, size.split("x"))
    return next((name for name, sides in SIZES.items() if sides == (width, height)), size), frames


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    main()
