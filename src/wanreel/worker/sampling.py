"""Sampler: measures this machine every few seconds and leaves word in the store. Knows nothing of jobs.

CUDA counts GPUs among those that are visible, fastest first by default; the driver counts them all, by bus. The two agree
where all GPUs are alike, and the names that CUDA_VISIBLE_DEVICES gives are followed.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil

from wanreel.core.companion import Companion
from wanreel.core.errors import WanreelError
from wanreel.core.sample import GpuSample, Sample
from wanreel.core.settings import visible_gpus

_log = logging.getLogger(__name__)


class Probe:
    """Measures the host, and the GPU of a device where there is one."""

    def __init__(self, folder: Path, device: str = "", held: Callable[[], str | None] = lambda: None) -> None:
        self._folder = folder
        self._device = device
        self._held = held
        self._process = psutil.Process()
        psutil.cpu_percent()  # the first call only starts the measuring

    def sample(self) -> Sample:
        """Raises OSError where the folder is gone."""
        memory, disk = psutil.virtual_memory(), shutil.disk_usage(self._folder)
        return Sample(
            at=time.time(),
            cpu=psutil.cpu_percent(),
            ram_used=memory.total - memory.available,
            ram_total=memory.total,
            process_ram=self._process.memory_info().rss,
            disk_free=disk.free,
            disk_total=disk.total,
            device=self._device,
            model=self._held() or "",
            gpu=None if self._device == "cpu" else gpu_sample(self._device),
        )


class Sampler(Companion):
    """A context that reports a sample every `seconds`, from a thread of its own that ends with it."""

    def __init__(self, probe: Probe, report: Callable[[Sample], None], seconds: float) -> None:
        super().__init__("sampler")
        self._probe = probe
        self._report = report
        self._seconds = seconds

    def _run(self) -> None:
        while True:
            try:
                self._report(self._probe.sample())
            except (OSError, WanreelError) as error:
                # Figures are worth no job: the next one may go through.
                _log.warning("This machine's state could not be reported: %s", error)
            if self._over.wait(self._seconds):
                return


def gpu_sample(device: str) -> GpuSample | None:
    """The GPU that `device` ("auto", "cuda", "cuda:1") means, as the driver sees it; None without one."""
    with _nvml() as nvml:
        if nvml is None:
            return None
        try:
            return _measured(nvml, _handle(nvml, device))
        except nvml.NVMLError as error:
            _log.debug("The driver does not tell of %s: %s", device, error)
            return None


def _handle(nvml: Any, device: str) -> Any:
    index = int(device.partition(":")[2] or 0)
    visible = visible_gpus()
    name = visible[index] if visible is not None and index < len(visible) else str(index)
    if name.isdecimal():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)


def _measured(nvml: Any, handle: Any) -> GpuSample:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuSample(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        driver=_text(nvml.nvmlSystemGetDriverVersion()),
        # A slice of a GPU (MIG) and some drivers tell neither.
        utilisation=_told(nvml, lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
        memory_used=int(memory.used),
        memory_total=int(memory.total),
        temperature=_told(nvml, lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
    )


def _told(nvml: Any, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@contextlib.contextmanager
def _nvml() -> Generator[Any]:
    """The driver's library, open; None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
