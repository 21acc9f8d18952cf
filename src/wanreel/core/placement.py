"""Placement: how a model's parts are held and run on one machine. Plain data; knows neither torch nor how it was chosen.

`core/memory.py` derives it from a request and a machine; `models` and `generation` carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from wanreel.core.compute import COMPUTES, Compute
from wanreel.core.parallel import Parallel

#: What the transformers' big matrices are stored in. "native" is the dtype the device computes in (bf16 on a GPU).
Precision = Literal["native", "fp16", "fp8", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("native", "fp16", "fp8", "int8", "int4")

#: resident: everything stays on the GPU. encoders: text and image encoder visit it, the rest stays. exclusive: one part
#: at a time. streamed: the same, and a transformer's blocks come in one by one while the one before computes.
Plan = Literal["resident", "encoders", "exclusive", "streamed"]
PLANS: tuple[Plan, ...] = ("resident", "encoders", "exclusive", "streamed")


@dataclass(frozen=True, slots=True)
class Tile:
    """The VAE works on windows of this size, in pixels; neighbours share `overlap` pixels that fade into each other."""

    height: int
    width: int
    overlap: int = 128

    def count(self, length: int, size: int, unit: int) -> int:
        """How many windows of at most `size` pixels cover `length`; all edges are multiples of `unit`."""
        total, size, overlap = self._units(length, size, unit)
        return 1 if size >= total else -(-(total - overlap) // (size - overlap))

    def window(self, length: int, size: int, unit: int) -> int:
        """Pixels of each of these windows, which are equal and no larger than they must be."""
        count = self.count(length, size, unit)
        total, _, overlap = self._units(length, size, unit)
        return length if count == 1 else unit * -(-(total + (count - 1) * overlap) // count)

    def shared(self, size: int, unit: int) -> int:
        """Pixels that neighbours share: never three windows over one point."""
        return unit * min(-(-self.overlap // unit), max(size // unit, 4) // 2 - 1)

    def _units(self, length: int, size: int, unit: int) -> tuple[int, int, int]:
        return length // unit, max(size // unit, 4), self.shared(size, unit) // unit

    def __str__(self) -> str:
        return f"{self.width}×{self.height}"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the parts of one model live and in which portions they compute."""

    plan: Plan = "resident"
    pinned: bool = False  #: streamed blocks lie in page-locked memory (five times as fast, can't be swapped out)
    pin_limit: int | None = None  #: bytes that may be page-locked for each transformer; None: no limit of ours
    precision: Precision = "native"
    text_streamed: bool = False  #: the text encoder's blocks come in one by one as well
    rows: int = 0  #: tokens that an elementwise pass of a block takes at a time; 0: all of them
    feed_forward_rows: int = 0  #: the same for the feed-forward's matrices, which may round differently
    tile: Tile | None = None  #: of the VAE; None: whole frames
    parallel: Parallel = Parallel()  #: the GPUs that share a video
    compute: Compute = "exact"  #: how faithfully steps are computed
    compiled: bool = False  #: a transformer's blocks are compiled

    @property
    def streamed(self) -> bool:
        return self.plan == "streamed"

    @property
    def exact_end(self) -> bool:
        """Whether the matrices of the last blocks are kept as they are where those of the others multiply in fp8. Blocks
        that come in one by one, or in shares, are all alike."""
        return self.precision == "fp8" and self.compute != "exact" and not self.streamed and not self.parallel.fsdp

    @property
    def keeps_everything(self) -> bool:
        return self.plan == "resident"

    @property
    def swaps(self) -> bool:
        """Whether whole parts take turns on the GPU, so that each costs its way there. Ranks of one video keep in step
        with each other and not with other videos."""
        return self.plan == "exclusive" and self.parallel.alone

    @property
    def keeps_experts(self) -> bool:
        """Whether transformers and VAE stay on the GPU between their turns."""
        return self.plan in ("resident", "encoders")

    @property
    def loading(self) -> Placement:
        """What can't be changed without loading the model again; the rest is at its default."""
        return replace(
            self,
            rows=0,
            feed_forward_rows=0,
            tile=None,
            pin_limit=None,
            parallel=self.parallel.loading,
            compute="fast" if self.exact_end else "exact",
            compiled=False,
        )

    @property
    def arithmetic(self) -> int:
        """How far results are from the plain run's: 0 equal to the bit, 1 matrices cut by rows (the last bit may
        differ), 2 the VAE in tiles, 3 and more other numbers in the matrices (fp16, fp8, int8, int4), then steps by other
        means than the model's (turbo). Compiled blocks round otherwise in bf16, and count as 0."""
        if self.compute != "exact":
            return 2 + len(PRECISIONS) + COMPUTES.index(self.compute)
        if self.precision != "native":
            return 2 + PRECISIONS.index(self.precision)
        if self.tile is not None:
            return 2
        return 1 if self.feed_forward_rows else 0

    def __str__(self) -> str:
        """For records: "streamed, fp8, rows 4096, tiles 512×512"."""
        words = [self.plan]
        if self.precision != "native":
            words.append(self.precision)
        if self.text_streamed:
            words.append("text encoder streamed")
        if self.rows:
            words.append(f"rows of {self.rows}")
        if self.feed_forward_rows:
            words.append(f"feed-forward rows of {self.feed_forward_rows}")
        if self.tile is not None:
            words.append(f"tiles {self.tile}")
        if self.compute != "exact":
            words.append(self.compute)
        if self.compiled:
            words.append("compiled")
        if not self.parallel.alone:
            words.append(str(self.parallel))
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for other processes of the same version."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Placement:
        tile, parallel = values["tile"], Parallel.from_dict(values["parallel"])
        whole: dict[str, Any] = {**values, "tile": Tile(**tile) if tile else None, "parallel": parallel}
        return cls(**whole)
