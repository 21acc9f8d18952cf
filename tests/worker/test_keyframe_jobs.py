"""Jobs of videos whose first picture is edited before: one job, its keyframe a file of it, kept over an attempt's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.events import Event, KeyframeStep, StepCompleted
from wanreel.core.job import JobStatus
from wanreel.core.request import VideoRequest
from wanreel.core.settings import load_settings
from wanreel.wiring import build_runtime, build_service, build_worker, queue
from wanreel.worker.task import Task

PHOTO = Path(__file__).parents[2] / "examples" / "cat.jpg"


def test_a_job_edits_then_animates_and_goes_on_from_what_it_drew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = build_runtime(load_settings(data_dir=tmp_path, device="cpu", min_free_gb=0.05))
    service = build_service(runtime)
    render, seen = queue._render, list[type[Event]]()
    first: list[Any] = []  # the worker that is stopped

    def watched(runtime: Any, task: Task) -> Iterator[Event]:
        for event in render(runtime, task):
            seen.append(type(event))
            if isinstance(event, StepCompleted) and task.keeper.pace.stage == "denoise" and first:
                first.pop().stop("SIGTERM")  # after the keyframe, in the video's first step
            yield event

    monkeypatch.setattr(queue, "_render", watched)
    request = VideoRequest(
        prompt="it purrs",
        image=runtime.take_picture_file(PHOTO),
        edit_prompt="make it night",
        edit_model="tiny:qwen-image-edit-2509",
        model="tiny:ti2v-5b",
        width=64,
        height=64,
        num_frames=5,
        num_inference_steps=3,
        seed=2,
    )
    job = service.submit(request)
    worker = build_worker(runtime)
    first.append(worker)
    assert worker.run(once=True) == 0
    worker = build_worker(runtime)
    assert worker.run(once=True) == 0
    done = service.get(job.id)
    assert done.status is JobStatus.COMPLETED, done
    files = service.files(job.id)
    assert files["keyframe"].media_type == "image/png"
    assert (runtime.settings.results_dir / files["keyframe"].name).is_file()
    assert "tiny:qwen-image-edit-2509/made up" in (runtime.settings.results_dir / files["manifest"].name).read_text()
    # Drawn once, though there were two attempts.
    assert seen.count(KeyframeStep) == 5 and len(service.attempts(job.id)) == 2
    service.close()
    runtime.close()
