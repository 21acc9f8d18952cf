"""Task: what the renderer is told of an attempt. Knows nothing of models or of the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import GenerationError
from wanreel.core.events import Event
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.work import AnySpec, Work
from wanreel.worker.keeper import Keeper


@dataclass(frozen=True, slots=True)
class Task:
    """What the renderer needs to know of an attempt."""

    work: str  #: whose checkpoints are used: the job's id, or for another export the id of the job with the latents
    request: Work
    spec: AnySpec
    results: Path  #: folder for the video and the pictures beside it
    stem: str  #: their names without suffix; belongs to this attempt alone
    checkpoints: Path | None  #: folder of saved states; None to save none
    keeper: Keeper  #: `token` to stop at once, `draining` to save after this step
    handoffs: tuple[int, ...] = ()  #: frames, counted back from the last one, that other jobs go on from

    @property
    def video(self) -> tuple[ResolvedRequest, ModelSpec]:
        """Request and model of a task that makes a video. Raises GenerationError for another."""
        if not isinstance(self.request, ResolvedRequest) or not isinstance(self.spec, ModelSpec):
            raise GenerationError(f"{self.spec.name} can't make what the job asks for.")
        return self.request, self.spec

    @property
    def pictures(self) -> tuple[ResolvedPicture, PictureSpec]:
        """The same of a task that makes pictures."""
        if not isinstance(self.request, ResolvedPicture) or not isinstance(self.spec, PictureSpec):
            raise GenerationError(f"{self.spec.name} can't make what the job asks for.")
        return self.request, self.spec


#: Turns a task into its result, as `generation.render` and `draw`: events up to Completed or Drawn; typed errors;
#: closing it leaves nothing.
#: The one seam between jobs and models.
Render = Callable[[Task], Iterator[Event]]
