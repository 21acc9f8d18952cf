"""Measuring a piece of work on a device: its time, its peak, its error. Knows nothing of what the work is.

The one measurer of `wanreel bench`, of the step's benchmarks and of the VAE's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
GIB = 2**30
_SIDE = {"cuda": 8192, "cpu": 1024}  # of the matrices that the ceiling is measured with


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """What came out, and what it took."""

    value: T
    seconds: float
    peak_gib: float | None  #: allocated at most; None on a CPU


def timed(device: torch.device, work: Callable[[], T], times: int = 1) -> Timed[T]:
    """The median of `times`, the device waited for before and after each."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    seconds: list[float] = []
    value: T | None = None
    for _ in range(times):
        wait_for(device)
        began = time.perf_counter()
        value = work()
        wait_for(device)
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated(device) / GIB if cuda else None
    assert value is not None or times
    return Timed(value, statistics.median(seconds), peak)  # type: ignore[arg-type]


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def error_of(found: Tensor, exact: Tensor) -> float:
    """Relative, L2."""
    return float(torch.linalg.vector_norm(found - exact) / torch.linalg.vector_norm(exact))


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """TFLOP/s of a large matrix product of random numbers."""
    side = _SIDE.get(device.type, 1024)
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.mm(first, second)
    return 2 * side**3 / timed(device, lambda: torch.mm(first, second), 10).seconds / 1e12
