"""What a worker measures: its machine against psutil, its GPU through the driver, its stages by the clock."""

from __future__ import annotations

import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from wanreel.core.events import Denoised, Encoded, Exported, ModelLoaded, StepCompleted
from wanreel.core.measures import Measures
from wanreel.core.sample import GpuSample, Sample
from wanreel.worker.sampling import Probe, gpu_sample
from wanreel.worker.stopwatch import Stopwatch
from worker.bench import Bench, Trick

GIB = 2**30
CALM = Sample(0.0, 10.0, 4 * GIB, 16 * GIB, GIB, 100 * GIB, 200 * GIB)


class Nvml:
    """NVIDIA's library with two GPUs, of which the second tells less."""

    class NVMLError(Exception): ...

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.open = 0

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 1:
            raise self.NVMLError
        return index

    def nvmlDeviceGetHandleByUUID(self, name: str) -> int:
        return {"GPU-one": 1}[name]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=(handle + 1) * GIB, total=80 * GIB)

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return f"NVIDIA Test {handle}"

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"570.1"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle:
            raise self.NVMLError
        return SimpleNamespace(gpu=55)

    def nvmlDeviceGetTemperature(self, handle: int, _sensor: int) -> int:
        return 40 + handle


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    library = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return library


def test_the_host_is_what_psutil_says(tmp_path: Path) -> None:
    probe = Probe(tmp_path, "cpu", lambda: "demo")
    sample, memory, disk = probe.sample(), psutil.virtual_memory(), shutil.disk_usage(tmp_path)
    assert sample.ram_total == memory.total and sample.disk_total == disk.total
    assert sample.ram_used == pytest.approx(memory.total - memory.available, rel=0.2)
    assert sample.process_ram == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert sample.disk_free == pytest.approx(disk.free, rel=0.05)
    assert 0.0 <= sample.cpu <= 100.0
    assert (sample.device, sample.model, sample.gpu) == ("cpu", "demo", None)


def test_the_gpu_is_what_the_driver_says(nvml: Nvml) -> None:
    assert gpu_sample("cuda:0") == GpuSample("NVIDIA Test 0", "570.1", 55.0, GIB, 80 * GIB, 40)
    assert gpu_sample("auto") == gpu_sample("cuda") == gpu_sample("cuda:0")
    assert gpu_sample("cuda:1") == GpuSample("NVIDIA Test 1", "570.1", None, 2 * GIB, 80 * GIB, 41)
    assert gpu_sample("cuda:2") is None
    assert nvml.open == 0


@pytest.mark.parametrize("visible", ["1,0", "GPU-one"])
def test_the_gpu_is_the_one_that_cuda_sees(nvml: Nvml, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = gpu_sample("cuda:0")
    assert seen is not None and seen.name == "NVIDIA Test 1"


def test_without_a_driver_there_is_no_gpu() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has a driver")
    assert gpu_sample("auto") is None


def test_warnings_come_at_thresholds() -> None:
    def warnings(**changes: Any) -> tuple[str, ...]:
        values = {name: getattr(CALM, name) for name in CALM.__slots__} | changes
        return Sample(**values).warnings

    assert CALM.warnings == ()
    assert warnings(ram_used=15 * GIB) == ("memory is nearly full: 15.0 of 16.0 GiB",)
    assert warnings(disk_free=2 * GIB) == ("the disk has only 2.0 GiB left",)
    hot = GpuSample("x", "1", 100.0, 79 * GIB, 80 * GIB, 90)
    assert warnings(gpu=hot) == ("GPU memory is nearly full: 79.0 of 80.0 GiB", "the GPU is hot: 90 °C")
    assert warnings(gpu=GpuSample("x", "1", None, 70 * GIB, 80 * GIB, None)) == ()


def test_a_sample_survives_as_text() -> None:
    gpu = GpuSample("x", "1", None, 1, 2, None)
    for sample in (CALM, replace(CALM, gpu=gpu)):
        assert Sample.from_json(sample.to_json()) == sample
    assert Sample.from_json("") is None and Sample.from_json('{"at": 1}') is None and Sample.from_json("[]") is None


def test_a_worker_leaves_word_while_it_works(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Sample | None] = []
    told = threading.Event()
    report = bench.store.leases.report

    def reporting(worker: str, sample: Sample) -> None:
        report(worker, sample)
        told.set()

    def look(*_: object) -> None:
        assert told.wait(30)
        seen.extend(record.sample for record in bench.store.worker_records())

    tricks: list[Trick] = [lambda _task, place: look() if place == "step1" else None]
    bench.render.tricks = tricks
    monkeypatch.setattr(bench.store.leases, "report", reporting)
    bench.submit()
    bench.work()
    (sample,) = seen
    assert sample is not None and sample.ram_total == psutil.virtual_memory().total
    assert bench.store.worker_records() == ()


def test_the_stages_of_an_attempt_are_measured(bench: Bench) -> None:
    job = bench.submit()
    bench.work()
    ((request, measures),) = bench.store.measured(job.model)
    assert request == job.request
    assert (measures.device, measures.steps, measures.load, measures.encode) == ("cpu", 3, 0.1, 0.1)
    assert measures.denoise > 0.0 and measures.export == 0.1
    told = [event.data for event in bench.store.events(job.id) if event.kind == "measured"]
    assert [Measures.from_dict(data) for data in told] == [measures]


def test_the_stopwatch_reads_the_clock() -> None:
    now = 100.0
    watch = Stopwatch(lambda: now)
    watch.see(ModelLoaded("m", "cuda:1 NVIDIA Test", 7.0))
    watch.see(Encoded(2.0))
    for step in (1, 2):
        now += 3.0
        watch.see(StepCompleted(step, 2, 2.5, 0.0))
    watch.see(Denoised("", (), {}))
    watch.see(Exported(None, 5.0, 4.0))  # type: ignore[arg-type]
    assert watch.measures == Measures("cuda:1 NVIDIA Test", 2, 7.0, 2.0, 6.0, 4.0, 1.0)
    assert watch.measures.machine == "NVIDIA Test"


def test_finished_latents_cost_no_denoising() -> None:
    now = 0.0
    watch = Stopwatch(lambda: now)
    watch.see(ModelLoaded("m", "cpu", 0.0))
    now = 9.0
    watch.see(Denoised("", (), {}))
    assert (watch.measures.steps, watch.measures.denoise) == (0, 0.0)
