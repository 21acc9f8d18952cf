"""A bench: a real store and service, and workers with a render that draws nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.catalog import Catalog
from wanreel.core.data_directory import DataDirectory
from wanreel.core.events import (
    Completed,
    Decoded,
    Denoised,
    Encoded,
    Event,
    Exported,
    ModelLoaded,
    Saved,
    StepCompleted,
)
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import Job
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.video import Video
from wanreel.jobs import JobStore
from wanreel.service import Service, make_less
from wanreel.storage.disk import BlobStore
from wanreel.storage.shared import SharedStates
from wanreel.worker.retention import Retention
from wanreel.worker.space import Reserve
from wanreel.worker.taking import Taking
from wanreel.worker.task import Task
from wanreel.worker.worker import Life, Worker
from wanreel.worker.workshop import Workshop

Trick = Callable[[Task, str], object]


@dataclass
class FakeRender:
    """Goes through the events of a generation and writes real files. `tricks` are called at places in it."""

    tricks: list[Trick] = field(default_factory=list[Trick])
    tasks: list[Task] = field(default_factory=list[Task])

    def __call__(self, task: Task) -> Iterator[Event]:
        self.tasks.append(task)
        steps = task.request.num_inference_steps
        yield self._at(task, "loaded", ModelLoaded(task.request.model, "cpu", 0.1, ("a note",)))
        yield self._at(task, "encoded", Encoded(0.1))
        for step in range(1, steps + 1):
            task.keeper.token.check()
            if task.checkpoints is not None:
                task.checkpoints.mkdir(parents=True, exist_ok=True)
                (task.checkpoints / f"clip000-step{step:05}.safetensors").write_bytes(b"state")
                yield Saved(step)
            yield self._at(task, f"step{step}", StepCompleted(step, steps, 0.1, 0.1 * (steps - step)))
        if task.checkpoints is not None:
            (task.checkpoints / "clip000-latents.safetensors").write_bytes(b"latents")
        yield self._at(task, "denoised", Denoised("ab" * 32, (1.0, 0.0), {"torch": "0"}))
        yield self._at(task, "decoded", Decoded(task.request.num_frames, task.request.num_frames))
        task.keeper.token.check()
        video = self._write(task)
        yield self._at(task, "exported", Exported(video, 0.1))
        yield Completed(video, 1.0)

    def _at(self, task: Task, place: str, event: Event) -> Event:
        for trick in list(self.tricks):
            trick(task, place)
        return event

    def _write(self, task: Task) -> Video:
        request, _ = task.video
        task.results.mkdir(parents=True, exist_ok=True)
        stem = task.results / task.stem
        path = Path(f"{stem}.{request.output_format}")
        data = json.dumps(task.request.to_dict()).encode()
        stills = (Path(f"{stem}.last.png"), Path(f"{stem}.poster.jpg"))
        for file in (path, *stills):
            file.write_bytes(data)
        return Video(
            path=path,
            last_frame=stills[0],
            poster=stills[1],
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            width=64,
            height=64,
            num_frames=task.request.num_frames,
            fps=task.request.fps,
            request=request,
        )


class Bench:
    """A data directory with its queue, and workers on it."""

    def __init__(self, root: Path, store: JobStore | None = None) -> None:
        self.data = DataDirectory(root)
        self.store = store or JobStore.open(self.data.database)
        self.render = FakeRender()
        self.batch = 1
        catalog = Catalog()
        names = frozenset(spec.name for spec in catalog)
        defaults = Defaults({"text": "demo", "picture": "demo", "first_last": "demo"}, names)
        self.catalog = catalog
        self.keep_free = 0
        self.states: SharedStates | None = None
        self.service = Service(
            store=self.store,
            resolve=lambda request: resolve(request, catalog, defaults),
            data=self.data,
            results=self.data.outputs,
            time_limit=3600.0,
            same_weights=lambda manifest: manifest.is_file(),
        )

    def submit(self, prompt: str = "a red circle", **knobs: object) -> Job:
        values = {"prompt": prompt, "model": "tiny:ti2v-5b", "seed": 1, "num_inference_steps": 3, "num_frames": 5}
        return self.service.submit(VideoRequest.from_mapping({**values, "width": 64, "height": 64, **knobs}))

    def worker(self, fault: str = "", **options: object) -> Worker:
        life = Life.begin(self.data.workers, ("cpu",))
        shop = Workshop(
            store=self.store,
            render=self.render,
            spec_of=self.catalog.get,
            weights_of=lambda spec: {"file": "hash"},
            data=self.data,
            results=self.data.outputs,
            reserve=Reserve(life.name, self.data.checkpoints, self.data.outputs),
            failpoints=Failpoints(fault),
            taking=Taking(self.store, self.data.outputs, BlobStore(self.data.pictures)),
            keep_free=self.keep_free,
            reduce=lambda job_id: make_less(self.service, job_id),
            states=self.states,
            batch=self.batch,
        )
        return Worker(life, shop, Retention(self.store, self.data.checkpoints, 0.0, self.data.outputs), **options)  # type: ignore[arg-type]

    def work(self) -> int:
        return self.worker().run(once=True)

    def outputs(self) -> set[str]:
        folder = self.data.outputs
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
