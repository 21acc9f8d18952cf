"""Torch's failures in our own words, mapped once, around a whole generation. Knows nothing of what was running."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from wanreel.core.errors import DeviceFault, OutOfMemory


@contextmanager
def mapped_faults() -> Generator[None]:
    """Raises OutOfMemory for memory that ran out, on GPU or CPU, and DeviceFault for any other failure of the GPU."""
    try:
        yield
    except torch.OutOfMemoryError as exc:
        torch.cuda.empty_cache()
        raise OutOfMemory(_first_line(exc)) from exc
    except RuntimeError as exc:
        text = str(exc)
        if "DefaultCPUAllocator" in text or "CUDA error: out of memory" in text:
            raise OutOfMemory(_first_line(exc)) from exc
        if isinstance(exc, torch.AcceleratorError) or "CUDA error" in text or "CUDNN_STATUS" in text:
            raise DeviceFault(_first_line(exc)) from exc
        raise


def _first_line(error: Exception) -> str:
    """What happened without the advice on debugging that follows it."""
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line}."
