"""The generation as the worker runs it. The only module of the worker that leads to torch."""

from __future__ import annotations

from collections.abc import Iterator

from wanreel.core.events import Event
from wanreel.core.resolve import Resolution
from wanreel.generation.checkpoint import CheckpointStore
from wanreel.generation.render import Saving, Target, render
from wanreel.models.pool import ModelPool
from wanreel.storage.disk import Blobs
from wanreel.worker.attempt import Task


def render_task(pool: ModelPool, pictures: Blobs, task: Task) -> Iterator[Event]:
    """As `generation.render`, under the task's names and with its checkpoints."""
    saving = None
    if task.checkpoints is not None:
        saving = Saving(CheckpointStore(task.checkpoints), task.work, urgent=lambda: task.keeper.draining)
    target = Target(task.results, pictures, task.stem)
    return render(pool, Resolution(task.request, task.spec, ()), target, task.keeper.token, saving)
