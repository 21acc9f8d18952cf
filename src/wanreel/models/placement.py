"""Placement: where a model's parts live while it runs. Pure arithmetic; knows neither torch nor the machine.

Three fixed plans: everything on the device, one part at a time, or one part at a time with the transformer's blocks
streamed from host memory. All three compute the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

GIB = 1024**3

Plan = Literal["resident", "exclusive", "streamed"]

#: Kept free for the allocator, the CUDA context and other programs on the card.
RESERVE = int(1.5 * GIB)
#: Decoding without tiles wants this much beside the weights at 720p in fp32 (measured: docs/benchmarks.md).
UNTILED_DECODE = 20 * GIB
#: Activations of one forward of a 14B model at 720p and 81 frames, eager, batch 1 (measured: docs/benchmarks.md).
ACTIVATIONS = 10 * GIB


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the parts of one model live."""

    plan: Plan = "resident"
    pinned: bool = False  #: streamed blocks lie in page-locked memory (twice as fast, can't be swapped out)
    vae_tiling: bool = False  #: decode in tiles: less memory, slightly other pixels

    @property
    def streamed(self) -> bool:
        return self.plan == "streamed"

    @property
    def keeps_everything(self) -> bool:
        return self.plan == "resident"


def choose_placement(
    part_bytes: Mapping[str, int],
    device_free: int,
    host_free: int,
    *,
    activations: int = ACTIVATIONS,
) -> Placement:
    """The first plan that fits.

    `part_bytes`: weight bytes by part (`text_encoder`, `vae`, `transformer`, …) in the dtype it runs in. `device_free`,
    `host_free`: bytes that may be used now. `activations`: working memory of one forward. Never fails: the last plan is
    the smallest there is.
    """
    usable = device_free - RESERVE
    if sum(part_bytes.values()) + max(activations, UNTILED_DECODE) <= usable:
        return Placement("resident")
    vae_tiling = part_bytes.get("vae", 0) + UNTILED_DECODE > usable
    if max(part_bytes.values(), default=0) + activations <= usable:
        return Placement("exclusive", vae_tiling=vae_tiling)
    experts = sum(size for name, size in part_bytes.items() if name.startswith("transformer"))
    return Placement("streamed", pinned=experts * 1.2 <= host_free, vae_tiling=vae_tiling)
