"""The generation as the worker runs it. The only module of the worker that leads to torch.

What makes pictures comes in with the first of them: with the libraries that it needs it takes a second, and most processes make
videos alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from wanreel.core.cancel import CancelToken
from wanreel.core.events import Event
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.resolved import Resolution
from wanreel.generation.cadence import Cadence
from wanreel.generation.checkpoint import CheckpointStore
from wanreel.generation.render import Saving, Target, render
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.pool import ModelPool
from wanreel.models.upscalers import UpscalerShelf
from wanreel.storage.disk import Blobs
from wanreel.storage.keeping import Keeping
from wanreel.worker.task import Task

Shelves = tuple[LoraShelf, UpscalerShelf]  #: where what requests name is found


def render_task(
    pool: ModelPool, pictures: Blobs, shelves: Shelves, task: Task, share: float, editor: PictureSpec | None = None
) -> Iterator[Event]:
    """As `generation.render`, under the task's names and with its checkpoints, which may cost `share` of the time.

    `editor` draws the keyframe, where one is asked for.
    """
    saving = None
    if task.checkpoints is not None:
        store = CheckpointStore(task.checkpoints)
        saving = Saving(store, task.work, Cadence(share), urgent=lambda: task.keeper.draining)
    target = Target(task.results, pictures, task.stem, shelves[0], task.handoffs, shelves[1])
    return _rendered(pool, Resolution(*task.video, ()), target, task.keeper.token, saving, editor)


def draw_task(pool: ModelPool, pictures: Blobs, task: Task, refiner: PictureSpec | None) -> Iterator[Event]:
    """As `generation.draw`, under the task's names. Nothing is saved on the way."""
    from wanreel.generation.draw import draw
    from wanreel.generation.picture_export import SheetTarget

    resolution = PictureResolution(*task.pictures, (), refiner)
    return draw(pool, resolution, SheetTarget(task.results, pictures, task.stem), task.keeper.token)


def _rendered(
    pool: ModelPool,
    resolution: Resolution,
    target: Target,
    cancel: CancelToken,
    saving: Saving | None,
    editor: PictureSpec | None,
) -> Iterator[Event]:
    if editor is None:
        return render(pool, resolution, target, cancel, saving)
    from wanreel.generation.keyframe import render_from_keyframe

    return render_from_keyframe(pool, resolution, target, cancel, saving, editor)


def render_here(
    pool: ModelPool, resolution: Resolution, target: Target, cancel: CancelToken, editor: PictureSpec | None
) -> Iterator[Event]:
    """As `generation.render`; nothing is kept on the way."""
    return _rendered(pool, resolution, target, cancel, None, editor)


def render_kept(  # noqa: PLR0913 - what it goes on from
    pool: ModelPool,
    resolution: Resolution,
    shelves: Shelves,
    keeping: Keeping,
    cancel: CancelToken,
    share: float,
    editor: PictureSpec | None = None,
) -> Iterator[Event]:
    """As `generation.render`, going on from what is kept, and keeping states at `share` of the run time."""
    saving = Saving(CheckpointStore(keeping.checkpoints), keeping.work, Cadence(share), urgent=keeping.urgent)
    target = Target(keeping.results, keeping.pictures, keeping.stem, shelves[0], keeping.handoffs, shelves[1])
    return _rendered(pool, resolution, target, cancel, saving, editor)
