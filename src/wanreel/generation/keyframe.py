"""render_from_keyframe: a video whose first picture is edited before. Knows nothing of jobs or front ends.

picture → edit → animate, in one run: see core/keyframe.py. A picture that an earlier attempt drew is not drawn again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import GenerationError, InsufficientStorage, UnreadableRecipe
from wanreel.core.events import (
    Completed,
    Downloading,
    Drawn,
    Encoded,
    Event,
    KeyframeDrawn,
    KeyframeStep,
    ModelLoaded,
    PlanChanged,
    StepCompleted,
    Turn,
)
from wanreel.core.keyframe import with_picture
from wanreel.core.picture import PictureRef
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.resolved import Resolution
from wanreel.generation.draw import draw
from wanreel.generation.export import Target
from wanreel.generation.picture_export import SheetTarget
from wanreel.generation.render import Saving, render
from wanreel.media.pictures import read_picture
from wanreel.media.recipe import read_recipe
from wanreel.models.pool import ModelPool
from wanreel.storage.disk import Blobs, MemoryBlobs
from wanreel.storage.durable import write_durably

KEPT = "keyframe.png"  #: beside the saved states of a job
SUFFIX = ".keyframe.png"  #: beside its result


def render_from_keyframe(
    pool: ModelPool,
    resolution: Resolution,
    target: Target,
    cancel: CancelToken,
    saving: Saving | None,
    editor: PictureSpec,
) -> Iterator[Event]:
    """As `render`, its request's keyframe drawn by `editor` first. Ends with Completed, the keyframe beside the video."""
    request = resolution.request
    if request.keyframe is None or request.image is None:
        raise GenerationError("There is no picture to be changed first.")
    began = time.monotonic()
    edit = with_picture(request.keyframe, request.image)
    png = kept = _kept(saving, edit)
    if png is None:
        png = yield from _drawn(pool, PictureResolution(edit, editor, ()), target.pictures, cancel)
        _keep(saving, png)
    picture = read_picture(png)
    own = _Beside(target.pictures, MemoryBlobs())
    first = PictureRef(own.put(picture.png), picture.width, picture.height)
    yield KeyframeDrawn(picture.width, picture.height, time.monotonic() - began, kept is not None)
    shown = replace(resolution, request=replace(request, image=first, keyframe=edit))
    for event in render(pool, shown, replace(target, pictures=own), cancel, saving):
        if not isinstance(event, Completed):
            yield event
            continue
        path = event.video.path.with_suffix(SUFFIX)
        write_durably(path, png if request.metadata else picture.png)
        yield Completed(replace(event.video, keyframe=path), time.monotonic() - began)


@dataclass(frozen=True, slots=True)
class _Beside:
    """Pictures of the request, and one that no other request sees."""

    given: Blobs
    own: MemoryBlobs

    def put(self, data: bytes) -> str:
        return self.own.put(data)

    def open(self, sha256: str) -> bytes:
        return (self.own if self.own.has(sha256) else self.given).open(sha256)

    def has(self, sha256: str) -> bool:
        return self.own.has(sha256) or self.given.has(sha256)


def _drawn(
    pool: ModelPool, resolution: PictureResolution, pictures: Blobs, cancel: CancelToken
) -> Generator[Event, None, bytes]:
    """The PNG with its recipe. Of the drawing only what people wait for is told."""
    resolution = replace(resolution, request=replace(resolution.request, metadata=True))
    with TemporaryDirectory(prefix="wanreel-") as folder:
        running = draw(pool, resolution, SheetTarget(Path(folder), pictures, "keyframe"), cancel)
        with contextlib.closing(running):  # type: ignore[arg-type]  # it is a generator
            for event in running:
                match event:
                    case Downloading() | Turn():
                        yield event
                    case ModelLoaded(model=model, notes=notes):
                        yield KeyframeStep(0, resolution.request.total_steps, 0.0, model, notes)
                    case Encoded(notes=notes) if notes:
                        yield KeyframeStep(0, resolution.request.total_steps, 0.0, notes=notes)
                    case PlanChanged():
                        yield KeyframeStep(0, resolution.request.total_steps, 0.0, notes=(f"keyframe: {event}",))
                    case StepCompleted(step=step, total_steps=total, eta_seconds=eta):
                        yield KeyframeStep(step, total, eta)
                    case Drawn(drawing=drawing):
                        return drawing.path.read_bytes()
                    case _:
                        pass
    raise GenerationError("The keyframe was not drawn.")


def _kept(saving: Saving | None, edit: ResolvedPicture) -> bytes | None:
    """What an earlier attempt drew, if it is this very edit."""
    path = saving.store.folder / KEPT if saving is not None else None
    if path is None or not path.is_file():
        return None
    try:
        recipe = json.loads(read_recipe(path))
        found = ResolvedPicture.from_dict(recipe["request"])
    except (UnreadableRecipe, KeyError, TypeError):
        return None
    return path.read_bytes() if found == replace(edit, metadata=True) else None


def _keep(saving: Saving | None, png: bytes) -> None:
    """A disk that refuses costs the picture, not the run."""
    if saving is not None:
        with contextlib.suppress(InsufficientStorage):
            saving.store.folder.mkdir(parents=True, exist_ok=True)
            write_durably(saving.store.folder / KEPT, png)
