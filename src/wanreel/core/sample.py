"""Sample: how a machine fares at one moment, and what of it deserves a warning. Knows nothing of who measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

_GIB = 2**30
#: Shares from which on something is said. Memory that is in use is no fault; memory that runs out is.
_RAM, _VRAM = 0.92, 0.97
_DISK_BYTES = 5 * _GIB  #: free disk below it is named
_HOT = 87  #: degrees Celsius at which NVIDIA's GPUs begin to slow down


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU, as the driver sees it."""

    name: str
    driver: str
    utilisation: float | None  #: per cent of the last moment in which a kernel ran
    memory_used: int  #: bytes, of all processes
    memory_total: int  #: bytes
    temperature: int | None  #: degrees Celsius


@dataclass(frozen=True, slots=True)
class Sample:
    """One machine, and what a worker on it holds."""

    at: float  #: wall clock, seconds since 1970; for display only
    cpu: float  #: per cent of all cores, since the sample before
    ram_used: int  #: bytes, of all processes
    ram_total: int  #: bytes
    process_ram: int  #: bytes, of the process that measured
    disk_free: int  #: bytes, where the data directory lies
    disk_total: int  #: bytes
    device: str = ""  #: as the worker was told: "auto", "cpu", "cuda:0"
    model: str = ""  #: held in memory; "" for none
    gpu: GpuSample | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What runs short, in words."""
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        if self.ram_used >= _RAM * self.ram_total:
            yield f"memory is nearly full: {_gib(self.ram_used)} of {_gib(self.ram_total)} GiB"
        if self.disk_free < _DISK_BYTES:
            yield f"the disk has only {_gib(self.disk_free)} GiB left"
        gpu = self.gpu
        if gpu is not None and gpu.memory_used >= _VRAM * gpu.memory_total:
            yield f"GPU memory is nearly full: {_gib(gpu.memory_used)} of {_gib(gpu.memory_total)} GiB"
        if gpu is not None and gpu.temperature is not None and gpu.temperature >= _HOT:
            yield f"the GPU is hot: {gpu.temperature} °C"

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self | None:
        """None for what is none, or of another version."""
        try:
            values: dict[str, Any] = json.loads(text)
            gpu: dict[str, Any] | None = values.pop("gpu")
            return cls(**values, gpu=None if gpu is None else GpuSample(**gpu))
        except (ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """A worker as it stands in the store."""

    name: str
    description: str  #: what it was told to run on
    started_at: float  #: wall clock, seconds since 1970; for display only
    draining: bool
    sample: Sample | None  #: None until it wrote one


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f}"
