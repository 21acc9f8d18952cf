"""The machine as torch sees it: which device to use, and facts for `doctor` and for the record of a video."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any

import torch

from wanreel.core.errors import SettingsError
from wanreel.core.machines import Machine, machine_of
from wanreel.host import free_memory

GIB = 1024**3
HOPPER = (9, 0)  #: compute capability of the H100 and H200


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    index: int
    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What a result depends on beside its request."""

    python: str
    torch: str
    cuda: str | None  #: of the torch build; None for a CPU build
    cudnn: int | None
    gpus: tuple[Gpu, ...]


def machine_facts() -> MachineFacts:
    """Asks torch and the driver; starts no CUDA context where there is no GPU."""
    gpus = tuple(_gpu(index) for index in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    return MachineFacts(
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if gpus else None,
        gpus=gpus,
    )


def choose_device(wanted: str, memory_gb: float | None, threads: int | None) -> torch.device:
    """The device that `wanted` names; "auto" is the first GPU, else the CPU. Raises SettingsError for one that is absent.

    `memory_gb` caps what this process may take of the GPU; `threads` is the number of CPU threads.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise SettingsError(
            f"device: {wanted!r} is not a device.",
            hint="Use auto, cpu, cuda or cuda:N.",
        ) from exc
    if device.type == "cuda":
        _cap_gpu(device, memory_gb)
    elif device.type != "cpu":
        raise SettingsError(
            f"device: {wanted!r} is not supported.",
            hint="Use auto, cpu, cuda or cuda:N.",
        )
    return device


def describe_device(device: torch.device) -> str:
    """For people: "cpu", "cuda:0 NVIDIA H200"."""
    if device.type != "cuda":
        return str(device)
    return f"cuda:{device.index or 0} {torch.cuda.get_device_name(device)}"


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes that tensors took on a GPU since `restart_peak`; None elsewhere."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def restart_peak(device: torch.device) -> None:
    """Begin to look for the peak anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def machine_now(device: torch.device) -> Machine:
    """What this process may use on `device` now, with what it holds there already. Without a GPU: the host alone."""
    host_free = free_memory()
    if device.type != "cuda":
        return Machine(host_free=host_free)
    index = torch.cuda.current_device() if str(device) == "cuda" else device.index
    free, total = torch.cuda.mem_get_info(index)
    allowed = int(torch.cuda.get_per_process_memory_fraction(index) * total)  # what the operator lets us have
    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    free = min(free + torch.cuda.memory_reserved(index), allowed)
    return machine_of(name, total, free, capability, host_free=host_free)


def _grow_segments() -> None:
    """Segments that grow leave no gaps that nothing fits into: 7 GiB of tensors then need 7 GiB, not 9."""
    runtime: Any = torch._C  # pyright: ignore[reportPrivateUsage]
    # The one name since torch 2.10, the other before.
    change = (
        getattr(runtime, "_accelerator_setAllocatorSettings", None)
        or runtime._cuda_cudaCachingAllocator_set_allocator_settings
    )
    change("expandable_segments:True")


def _cap_gpu(device: torch.device, memory_gb: float | None) -> None:
    index = device.index or 0
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise SettingsError(
            f"device: this machine has no {device} that torch can use.",
            hint="Run `wanreel doctor`, or use `--device cpu`.",
        )
    _grow_segments()
    if memory_gb is not None:
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_gb * GIB / total), index)


def _gpu(index: int) -> Gpu:
    free, total = torch.cuda.mem_get_info(index)
    return Gpu(
        index,
        torch.cuda.get_device_name(index),
        total,
        free,
        torch.cuda.get_device_capability(index),
    )
