"""Compute: how faithfully steps are computed, which a request chooses, and what that is worth. Pure data and arithmetic.

exact: the model's own numbers, in bf16. fast: matrices and attention in fp8, where the GPU multiplies fp8. turbo: fast, and
steps are left out whose result the steps before foretell. docs/speed.md has the measured errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Compute = Literal["exact", "fast", "turbo"]
COMPUTES: tuple[Compute, ...] = ("exact", "fast", "turbo")

#: When the blocks are compiled: where it pays back, always, or never.
Compile = Literal["auto", "always", "off"]

#: Compute capability from which matrices multiply in fp8 (Ada, Hopper, Blackwell).
FP8_SINCE = (8, 9)
#: Blocks at the end of a transformer that compute exactly in fp8 modes: what they round goes into the velocity as it is.
EXACT_END = 1
#: What all tokens have in common enters fp8 matrices in fp32, so that it isn't rounded.
MIDDLES = True
#: What compiling the blocks should gain. It takes 10 to 20 s the first time on a machine, and 2 to 6 s in every process
#: after that, as what was compiled is kept: the first video waits a little longer, so that all others wait less.
COMPILE_SECONDS = 8.0
#: Of the time of all steps, what turbo is planned to need of fast's; what it saves depends on the video.
TURBO_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Rates:
    """How a manner of computing differs from Diffusers' own blocks in bf16; measured on an H200 (docs/speed.md)."""

    linear: float  #: times as fast
    attention: float
    passes: int  #: rows and columns of activation read and written between matrices, in units of a block's input


EAGER = Rates(1.0, 1.0, 133)
COMPILED = Rates(1.0, 1.0, 48)
EIGHT_EAGER = Rates(1.9, 1.4, 240)
EIGHT = Rates(1.9, 1.4, 25)


def rates_of(*, eight: bool, compiled: bool) -> Rates:
    """`eight`: matrices and attention in fp8."""
    if eight:
        return EIGHT if compiled else EIGHT_EAGER
    return COMPILED if compiled else EAGER


def effective(asked: Compute, capability: tuple[int, int]) -> Compute:
    """What `asked` comes to on a GPU of `capability`, (0, 0) for a CPU: without fp8 matrices fast is exact."""
    return "exact" if asked == "fast" and capability < FP8_SINCE else asked


def pays_back(wish: Compile, *, saved: float) -> bool:
    """Whether to compile where all steps together get `saved` seconds shorter."""
    return wish == "always" or (wish == "auto" and saved > COMPILE_SECONDS)
