"""Jobs that make pictures, with real tiny models: draining, cancelling, and what their manifest says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.events import Event, StepCompleted
from wanreel.core.job import Job, JobStatus, Outcome
from wanreel.core.manifest import Manifest
from wanreel.core.picture_request import PictureRequest
from wanreel.core.picture_resolve import resolve_picture
from wanreel.core.settings import load_settings
from wanreel.core.work import AnySpec
from wanreel.service import Service
from wanreel.storage.digests import Digests
from wanreel.wiring import Runtime, build_runtime, build_service, build_worker, queue
from wanreel.worker.task import Task
from wanreel.worker.weights import hashes_of_work, same_weights, weight_hashes
from wanreel.worker.worker import Worker

Deed = Callable[[Worker, Task, StepCompleted], object]


@dataclass
class Studio:
    """A queue and workers on it. `deed` is done after each step."""

    runtime: Runtime
    service: Service
    deed: Deed = lambda worker, task, step: None
    steps: list[int] = field(default_factory=list[int])  #: of the last run

    def submit(self, **asked: Any) -> Job:
        values: dict[str, Any] = {"prompt": "a fox", "model": "tiny:sdxl-base", "seed": 3, "num_inference_steps": 4}
        return self.service.submit_picture(PictureRequest(**{**values, **asked}))

    def work(self, deed: Deed = lambda worker, task, step: None) -> None:
        self.deed = deed
        self.steps.clear()
        self.worker = build_worker(self.runtime)
        assert self.worker.run(once=True) == 0

    def watched(self, task: Task, events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, StepCompleted):
                self.steps.append(event.step)
                self.deed(self.worker, task, event)
            yield event

    def outputs(self) -> set[str]:
        folder = self.runtime.settings.results_dir
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def outcomes(self, job: Job) -> list[Outcome]:
        return [attempt.outcome for attempt in self.service.attempts(job.id)]

    def manifest(self, job: Job) -> Manifest:
        name = self.service.files(job.id)["manifest"].name
        return Manifest.from_json((self.runtime.settings.results_dir / name).read_text())


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    runtime = build_runtime(load_settings(data_dir=tmp_path, device="cpu", min_free_gb=0.05))
    made = Studio(runtime, build_service(runtime))
    render = queue._render
    monkeypatch.setattr(queue, "_render", lambda runtime, task: made.watched(task, render(runtime, task)))
    yield made
    made.service.close()
    runtime.close()


def test_drained_it_goes_back_and_is_made_later(studio: Studio) -> None:
    """Of a picture nothing is saved, so that there is nothing to wait for: it stops after the step."""
    job = studio.submit(num_inference_steps=6)
    studio.work(lambda worker, task, step: worker.stop("SIGTERM") if step.step == 2 else None)
    back = studio.service.get(job.id)
    assert (back.status, back.attempts_charged, studio.steps) == (JobStatus.QUEUED, 0, [1, 2])
    assert studio.outcomes(job) == [Outcome.DRAINED] and not studio.outputs()
    studio.work()
    done = studio.service.get(job.id)
    assert (done.status, studio.steps) == (JobStatus.COMPLETED, [1, 2, 3, 4, 5, 6])
    assert studio.outputs() == {file.name for file in studio.service.files(job.id).values()}
    unbroken = studio.submit(num_inference_steps=6)
    studio.work()
    assert studio.service.get(unbroken.id).result_sha256 == done.result_sha256


def test_cancelled_between_steps_it_leaves_nothing_and_the_next_is_made(studio: Studio) -> None:
    job, other = studio.submit(num_images=3), studio.submit(seed=4)

    def cancel(worker: Worker, task: Task, step: StepCompleted) -> None:
        if task.work == job.id and step.step == 5:  # in the second picture
            studio.service.cancel(job.id)
            assert task.keeper.token.wait(30)  # the keeper hears of it

    studio.work(cancel)
    assert studio.service.get(job.id).status is JobStatus.CANCELLED
    assert studio.steps == [1, 2, 3, 4, 5, 1, 2, 3, 4]
    assert studio.service.get(other.id).status is JobStatus.COMPLETED
    assert studio.outputs() == {file.name for file in studio.service.files(other.id).values()}


def test_the_manifest_names_every_model_that_took_part(studio: Studio) -> None:
    alone, refined = studio.submit(), studio.submit(refiner_inference_steps=2, strength=0.9)
    studio.work()
    made_up = {"made up": "from the model's name"}
    assert studio.manifest(alone).weights == made_up
    assert studio.manifest(refined).weights == made_up | {"tiny:sdxl-refiner/made up": made_up["made up"]}


# Of models that have files


def folders(root: Path) -> Callable[[AnySpec], Path]:
    """One for each model, with a file of its own."""

    def find(spec: AnySpec) -> Path:
        file = root / spec.name / "unet" / "model.safetensors"
        if not file.is_file():
            file.parent.mkdir(parents=True)
            file.write_text(spec.name)
        return root / spec.name

    return find


@pytest.mark.parametrize("refined", [False, True])
def test_weights_are_the_same_when_those_of_every_model_are(tmp_path: Path, refined: bool) -> None:
    catalog, digests, find = Catalog(), Digests(tmp_path / "digests.json"), folders(tmp_path)
    asked = PictureRequest(prompt="a", seed=1, refiner_inference_steps=5 if refined else None)
    request = resolve_picture(asked, catalog.picture, "sdxl-base").request
    weights = hashes_of_work(request, lambda name: weight_hashes(find(catalog.weights(name)), digests))
    both = {"unet/model.safetensors", "sdxl-refiner/unet/model.safetensors"}
    assert set(weights) == (both if refined else {"unet/model.safetensors"})
    assert len(set(weights.values())) == len(weights)
    path = tmp_path / "manifest.json"
    path.write_text(Manifest(request=request, weights=weights, software={}, device="cpu").to_json())
    assert same_weights(path, catalog, find, digests)
    base_alone = {name: digest for name, digest in weights.items() if name.startswith("unet")}
    path.write_text(Manifest(request=request, weights=base_alone, software={}, device="cpu").to_json())
    assert same_weights(path, catalog, find, digests) is not refined, "one that tells half knows nothing"
    path.write_text(Manifest(request=request, weights=weights, software={}, device="cpu").to_json())
    (find(catalog.weights("sdxl-refiner")) / "unet" / "model.safetensors").write_text("another one")
    assert same_weights(path, catalog, find, digests) is not refined
    assert json.loads(path.read_text())["weights"] == weights
