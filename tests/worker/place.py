"""A place: a data directory with its queue, and real workers with the demo model in this process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from wanreel.core.settings import load_settings
from wanreel.core.sweep import parse_sweep
from wanreel.media.video import read_frames
from wanreel.service import Service
from wanreel.service.sweeps import Sweeps, SweepView
from wanreel.wiring import Runtime, build_runtime, build_service, build_worker

SMALL = {"width": 64, "height": 64, "num_frames": 5, "num_inference_steps": 2, "model": "demo"}


class Place:
    """A data directory with its queue and workers that run to the end of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runtime: Runtime = build_runtime(load_settings(data_dir=root, device="cpu", threads=1, min_free_gb=0.0))
        self.service: Service = build_service(self.runtime)
        self.sweeps = Sweeps(self.service)

    def create(self, axes: Any, **knobs: Any) -> SweepView:
        view, _ = self.sweeps.create(parse_sweep({**SMALL, "axes": axes, **knobs}))
        return view

    def work(self) -> None:
        build_worker(self.runtime).run(once=True)

    def shas(self, view: SweepView) -> dict[tuple[str, ...], str]:
        """Of the cells' videos, without the recipes in them, by their labels."""
        found: dict[tuple[str, ...], str] = {}
        for cell, job in zip(view.cells, view.jobs, strict=True):
            path = self.service.results / self.service.files(job.id)["video"].name
            found[cell.labels] = hashlib.sha256(b"".join(frame.tobytes() for frame in read_frames(path))).hexdigest()
        return found

    def close(self) -> None:
        self.service.close()
        self.runtime.close()
