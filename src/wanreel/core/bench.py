"""BenchReport: what `wanreel bench` found out about a machine, to be read, kept and shared. Knows nothing of measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1
#: What of a report is shared: nothing that names people, places or files.
_SHARED = ("version", "wanreel", "machine", "subject", "part", "ceiling_tflops", "figures", "notes")


@dataclass(frozen=True, slots=True)
class BenchMachine:
    """What the figures depend on beside Wanreel."""

    device: str  #: the GPU's name, or the processor's
    memory_gib: float  #: of the device
    cores: int  #: that the process may use
    threads: int  #: that torch computes with
    system: str  #: "Linux x86_64"
    python: str
    torch: str
    diffusers: str
    cuda: str | None
    cudnn: int | None
    attention: str  #: the kernels that were taken


@dataclass(frozen=True, slots=True)
class Subject:
    """What was run."""

    model: str
    weights: str  #: installed, built-in, random
    compute: str  #: exact, fast, turbo
    mode: str
    width: int
    height: int
    num_frames: int
    steps: int
    passes: int  #: forwards a step
    plan: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One line: a piece of work, and how long it took."""

    name: str
    seconds: float
    teraflop: float | None = None  #: that the work takes; None where it is no matter of arithmetic
    peak_gib: float | None = None  #: allocated on the GPU at most
    error: float | None = None  #: relative, against the same in exact
    ratio: float | None = None  #: to Diffusers' seconds for the same
    note: str = ""

    def rate(self) -> float | None:
        """TFLOP/s."""
        return None if self.teraflop is None or not self.seconds else self.teraflop / self.seconds

    def of_floor(self, ceiling: float) -> float | None:
        """Seconds over those that the arithmetic alone takes at `ceiling` TFLOP/s."""
        return None if self.teraflop is None or not ceiling else self.seconds * ceiling / self.teraflop


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything of one run."""

    wanreel: str
    when: str
    machine: BenchMachine
    subject: Subject
    ceiling_tflops: float  #: of a large matrix product in the dtype of the transformers, measured in the same run
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    part: str = "request"  #: what was measured
    version: int = field(default=VERSION)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def shared(self) -> dict[str, Any]:
        """What may be shown to everybody."""
        values = self.to_dict()
        return {name: values[name] for name in _SHARED}

    def rows(self) -> list[list[str]]:
        """The table: its head first."""
        return table(self.figures, self.ceiling_tflops)


def table(figures: Sequence[Figure], ceiling: float) -> list[list[str]]:
    """Cells by line; columns that no figure fills are left out."""
    head = ["", "s", "TFLOP/s", "of floor", "peak GiB", "error", "of Diffusers", ""]
    lines = [
        [
            figure.name,
            _seconds(figure.seconds),
            _cell(figure.rate(), ".3g"),
            _cell(figure.of_floor(ceiling), ".2f"),
            _cell(figure.peak_gib, ".1f"),
            _cell(figure.error, ".2g"),
            _cell(figure.ratio, ".2f"),
            figure.note,
        ]
        for figure in figures
    ]
    filled = [place for place in range(len(head)) if place == 0 or any(line[place] for line in lines)]
    return [[line[place] for place in filled] for line in (head, *lines)]


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"
