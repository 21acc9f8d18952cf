"""Disk: what a job is taken to need, and what of it is held when."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from wanreel.core.errors import InsufficientStorage
from wanreel.core.job import JobStatus
from wanreel.host import free_bytes
from wanreel.service import request_of
from wanreel.worker.retention import Retention
from wanreel.worker.space import Reserve, checkpoint_bytes, needed_bytes, result_bytes, sweep
from wanreel.worker.task import Task
from worker.bench import Bench


def test_the_arithmetic_covers_the_largest_usual_job(bench: Bench) -> None:
    job = bench.submit(model="t2v-a14b", width=1280, height=720, num_frames=81)
    request, spec = request_of(job), bench.catalog.get("t2v-a14b")
    latents = 16 * 21 * 90 * 160 * 4
    assert checkpoint_bytes(request, spec) >= 2 * 4 * latents, "two generations of latents and history"
    assert result_bytes(request) >= 1280 * 720 * 81
    assert needed_bytes(request, spec) < 2**30


def test_space_is_held_until_it_is_needed(bench: Bench) -> None:
    held: dict[str, set[str]] = {}

    def look(task: Task, place: str) -> None:
        held[place] = {path.name.rpartition("-")[2] for path in bench.data.root.rglob("*.space")}

    bench.render.tricks.append(look)
    job = bench.submit()
    bench.work()
    assert held["loaded"] == {f"checkpoints{job.id}.space", f"result{job.id}.space"}
    assert held["step1"] == {f"result{job.id}.space"}
    assert held["decoded"] == set()


def test_no_room_is_said_with_figures(bench: Bench, tmp_path: Path) -> None:
    job = bench.submit()
    reserve = Reserve("cpu-1", tmp_path / "checkpoints", tmp_path / "results")
    with pytest.raises(InsufficientStorage, match="GiB left"):
        reserve.hold(request_of(job), bench.catalog.get(job.model), free_bytes(tmp_path))
    assert not list(tmp_path.rglob("*.space"))


def test_what_the_dead_held_is_swept(bench: Bench, tmp_path: Path) -> None:
    job = bench.submit()
    for worker in ("cpu-dead", "cuda-0-alive"):
        Reserve(worker, tmp_path / "c", tmp_path / "r").hold(request_of(job), bench.catalog.get(job.model), 0)
    for folder in (tmp_path / "c", tmp_path / "r"):
        sweep(folder, lambda name: name == "cuda-0-alive")
    assert {path.name for path in tmp_path.rglob("*.space")} == {
        ".cuda-0-alive-checkpoints.space",
        ".cuda-0-alive-result.space",
    }


def test_retention_takes_what_nobody_needs(bench: Bench) -> None:
    done, cancelled, waiting = bench.submit("done"), bench.submit("cancelled"), None
    bench.service.cancel(cancelled.id)
    bench.work()
    waiting = bench.submit("waiting")
    for name in (done.id, cancelled.id, waiting.id, "of-no-job"):
        folder = bench.data.checkpoints / name
        folder.mkdir(exist_ok=True)
        (folder / "clip000-step00001.safetensors").write_bytes(b"state")
    Retention(bench.store, bench.data.checkpoints, 0.0, bench.data.outputs).apply()
    assert {path.name for path in bench.data.checkpoints.iterdir()} == {done.id, waiting.id}
    assert [path.name for path in bench.service.checkpoints(done.id).iterdir()] == ["clip000-latents.safetensors"]
    assert bench.store.get(waiting.id).status is JobStatus.QUEUED
    time.sleep(0.01)
    Retention(bench.store, bench.data.checkpoints, 1e-9, bench.data.outputs).apply()
    assert {path.name for path in bench.data.checkpoints.iterdir()} == {waiting.id}
