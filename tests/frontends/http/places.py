"""The whole API over a real store, without a worker: a `Hand` plays the worker where a job must end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from wanreel.core.job import ArtifactRef, Job, JobFailure, Progress
from wanreel.core.settings import load_settings
from wanreel.frontends.http.app import HttpApp, create_app
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.http.server import build_server
from wanreel.frontends.telemetry import Tracing
from wanreel.media.video import VideoFormat, VideoWriter, write_png, write_poster
from wanreel.service import Service
from wanreel.wiring import Runtime, build_runtime, build_service

HERE = "http://127.0.0.1:7860"


class Hand:
    """Does by hand what a worker does, without a model."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.leases = service.store.leases
        self.leases.register("hand")

    def claim(self) -> Job:
        job = self.leases.claim("hand")
        assert job is not None
        return job

    def step(self, job: Job, step: int, total: int) -> None:
        self.leases.heartbeat(job.id, job.attempt, Progress("denoise", step, total))

    def decode(self, job: Job, share: float) -> None:
        done = self.service.get(job.id).progress
        self.leases.heartbeat(job.id, job.attempt, Progress("decode", done.step, done.total_steps, share))

    def complete(self, job: Job, frames: int = 9) -> bytes:
        """Completes it with a real video of random frames; returns its bytes."""
        results = self.service.results
        results.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, (frames, 64, 96, 3), dtype=np.uint8)
        video, still, poster = (
            results / f"{job.id}.mp4",
            results / f"{job.id}.last.png",
            results / f"{job.id}.poster.jpg",
        )
        with VideoWriter(video, VideoFormat(96, 64, 16.0)) as writer:
            writer.write(pixels)
        write_png(still, pixels[-1])
        write_poster(poster, pixels[0])
        manifest = results / f"{job.id}.json"
        manifest.write_text(json.dumps({"version": 1, "job": job.id}))
        files = [
            artifact("video", video, "video/mp4"),
            artifact("last_frame", still, "image/png"),
            artifact("poster", poster, "image/jpeg"),
            artifact("manifest", manifest, "application/json"),
        ]
        self.leases.complete(job.id, job.attempt, files[0].sha256, tuple(files), seconds=1.0)
        return video.read_bytes()

    def fail(self, job: Job, code: str = "out_of_memory") -> None:
        self.leases.fail(job.id, job.attempt, JobFailure(code, "There was not enough memory.", "Ask for less."))


def artifact(kind: str, path: Path, media_type: str) -> ArtifactRef:
    data = path.read_bytes()
    return ArtifactRef(kind, path.name, hashlib.sha256(data).hexdigest(), len(data), media_type)


@dataclass
class Place:
    """An API of its own in a folder of its own."""

    folder: Path
    runtime: Runtime
    service: Service
    keys: KeyRing
    app: HttpApp
    client: TestClient
    hand: Hand

    def as_key(self, name: str, *scopes: str, **more: Any) -> dict[str, str]:
        """Headers of a new key."""
        return {"Authorization": f"Bearer {self.keys.create(name, scopes or ('read', 'submit'), **more)}"}

    def stop(self) -> None:
        """What the server says before it leaves."""
        assert self.client.portal is not None
        self.client.portal.call(self.app.begin_to_stop)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return self.app.api.openapi()

    def submit(self, **values: Any) -> dict[str, Any]:
        """A video queued through the API."""
        answer = self.client.post("/v1/videos", json={"prompt": "a red circle", "model": "demo", **values})
        assert answer.status_code == 200, answer.text
        return answer.json()


Open = Callable[..., Place]


@contextlib.contextmanager
def places(folder_of_all: Path, database: Path) -> Generator[Open]:
    opened: list[Place] = []

    def make(
        entrance: Entrance | None = None,
        *,
        keys: dict[str, tuple[str, ...]] | None = None,
        enter: bool = True,
        tracing: Tracing | None = None,
        **settings: Any,
    ) -> Place:
        folder = folder_of_all / f"data{len(opened)}"
        folder.mkdir()
        shutil.copy(database, folder / database.name)
        runtime = build_runtime(load_settings(data_dir=folder, **settings))
        service = build_service(runtime)
        ring = KeyRing(folder / "keys.json")
        for name, scopes in (keys or {}).items():
            ring.create(name, scopes)
        limit = runtime.settings.http.submits_per_minute
        app = create_app(runtime, service, entrance or Entrance(), ring, submits_per_minute=limit, tracing=tracing)
        client = TestClient(app, base_url=HERE, raise_server_exceptions=False)
        if enter:
            client.__enter__()
        place = Place(folder, runtime, service, ring, app, client, Hand(service))
        opened.append(place)
        return place

    yield make
    for place in opened:
        if place.client.portal is not None:
            place.client.__exit__(None, None, None)
        place.service.close()
        place.runtime.close()


@contextlib.contextmanager
def serving(app: Callable[..., object], stop: Callable[[], None] = lambda: None) -> Generator[int]:
    """The port of a real server in a thread."""
    made = build_server(app, stop)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not made.started:
                time.sleep(0.01)
            yield listener.getsockname()[1]
        finally:
            made.stop()
            thread.join()
