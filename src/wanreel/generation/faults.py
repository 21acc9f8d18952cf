"""Torch's failures in our own words, mapped once, around a whole generation. Knows nothing of what was running."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from wanreel.core.errors import DeviceFault, OutOfMemory

#: What libraries below torch say when they get no memory: its own allocator, the driver, cuBLAS, cuDNN, oneDNN (which says
#: no more than that).
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "could not create a primitive",
)


@contextmanager
def mapped_faults() -> Generator[None]:
    """Raises OutOfMemory for memory that ran out, on GPU or CPU, and DeviceFault for any other failure of the GPU."""
    try:
        yield
    except torch.OutOfMemoryError as exc:
        torch.cuda.empty_cache()
        raise OutOfMemory(_first_line(exc)) from exc
    except MemoryError as exc:
        raise OutOfMemory(_first_line(exc) if str(exc) else "The machine ran out of memory.") from exc
    except RuntimeError as exc:
        text = str(exc)
        if any(sign in text for sign in _NO_MEMORY):
            raise OutOfMemory(_first_line(exc)) from exc
        if isinstance(exc, torch.AcceleratorError) or "CUDA error" in text or "CUDNN_STATUS" in text:
            raise DeviceFault(_first_line(exc)) from exc
        raise


def _first_line(error: Exception) -> str:
    """What happened without the advice on debugging that follows it."""
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line}."
