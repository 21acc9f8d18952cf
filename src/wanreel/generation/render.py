"""render: the spine. From a resolved request to a video on disk, as typed events; the only file that knows the order.

Knows nothing of jobs, queues or front ends. The caller owns the loop: closing the iterator, or an error, leaves no file
but checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import CheckpointError, InsufficientStorage
from wanreel.core.events import (
    Completed,
    Denoised,
    Encoded,
    Event,
    LorasApplied,
    Part,
    Preview,
    Resumed,
    Saved,
    StepCompleted,
)
from wanreel.core.picture import PictureRef
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.video import Video
from wanreel.generation.cadence import Cadence
from wanreel.generation.checkpoint import CheckpointStore, Finished, Identity, latents_digest, request_fingerprint
from wanreel.generation.conditioning import tokens_of
from wanreel.generation.denoise import denoise, planned_solver
from wanreel.generation.encode import Pictures, encode
from wanreel.generation.environment import environment_of
from wanreel.generation.export import Target, export
from wanreel.generation.ladder import Kept, descend
from wanreel.generation.preview_decoder import Previewer, previewer_of
from wanreel.generation.state import DenoiseState
from wanreel.generation.turns import Turns, parts_of
from wanreel.media.animation import encode_animation
from wanreel.media.pictures import open_picture
from wanreel.models.pool import ModelPool
from wanreel.models.suit import steps_of, suit, unsuited
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear

__all__ = ["Saving", "Target", "render"]

_log = logging.getLogger(__name__)

#: Previews cost at most this share of the run time, and skipping one loses nothing.
PREVIEWS = Cadence(share=0.02, loss=float("inf"))
FIRST_SAVE = 0.2  #: seconds that a save is taken to need before one was timed


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Saving:
    """How states are kept while denoising."""

    store: CheckpointStore
    job: str  #: whose they are
    cadence: Cadence = field(default_factory=Cadence)
    urgent: Callable[[], bool] = _never  #: True: save after this step, whatever it costs (the worker drains)


def render(
    pool: ModelPool, resolution: Resolution, target: Target, cancel: CancelToken, saving: Saving | None = None
) -> Iterator[Event]:
    """Runs one request, ending with Completed. Raises ModelError, MachineError, GenerationError (Cancelled is one).

    With `saving`, a killed run goes on from its last saved step, and finished latents are only decoded again. Where
    memory runs out, it goes on by itself under the next plan (see `ladder`).
    """
    began, request = time.monotonic(), resolution.request

    def attempt(model: WanModel, kept: Kept) -> Generator[Event, None, Video]:
        applied = wear(model, request.loras, request.num_inference_steps, target.loras)
        if applied:
            yield LorasApplied(applied)
        suit(model, tokens_of(model.spec, request))
        if model.experts[0].step is not None or model.placement.compute != "exact":
            yield steps_of(model)
        turns = Turns(pool, request, target.loras, cancel, kept)
        if kept.latents is None:
            clip = _Clip(model, request, target, cancel, saving, kept, turns)
            kept.latents = yield from clip.latents()
            unsuited(clip.model)
            model = yield from turns.take(clip.model, "decode")
        kept.enter("decode")
        return (yield from export(model, kept.latents, request, target, cancel))

    video = yield from descend(pool, resolution, attempt)
    yield Completed(video, time.monotonic() - began)


@dataclass
class _Clip:
    """One clip on its way to finished latents."""

    model: WanModel
    request: ResolvedRequest
    target: Target
    cancel: CancelToken
    saving: Saving | None
    kept: Kept
    turns: Turns

    def latents(self) -> Generator[Event, None, Tensor]:
        """Those of an earlier attempt, or encoded and denoised from where that one came to."""
        identity = self._identity()
        found, refused = self._finished(identity)
        if found is None:
            latents = yield from self._made(identity, refused)
            identity = replace(
                identity, environment=environment_of(self.model, self.request)
            )  # compiling may have failed
        else:
            latents = found.latents
            yield Resumed(len(identity.sigmas) - 1, tuple(f"resumed_inexact: {it}" for it in found.inexact))
        yield Denoised(latents_digest(latents), identity.sigmas, identity.environment, self._left_out())
        return latents

    def _left_out(self) -> int:
        """Steps that were foretold."""
        return self.kept.state.savings.scalars.get("left_out", 0) if self.kept.state is not None else 0

    def _identity(self) -> Identity:
        """What checkpoints of this clip belong to; its conditioning is not known yet."""
        solver = planned_solver(self.model, self.request, torch.Generator())
        return Identity(
            job=self.saving.job if self.saving else "",
            clip=0,
            request=request_fingerprint(self.request),
            sigmas=solver.sigmas,
            conditioning="",
            environment=environment_of(self.model, self.request),
        )

    def _finished(self, identity: Identity) -> tuple[Finished | None, tuple[str, ...]]:
        """Latents that an earlier attempt finished, or why those found can't be used."""
        if self.saving is None:
            return None, ()
        try:
            return self.saving.store.finished(identity, self.model.device), ()
        except CheckpointError as error:
            return None, (f"saved latents: {error.message}",)

    def _made(self, identity: Identity, refused: tuple[str, ...]) -> Generator[Event, None, Tensor]:
        kept = self.kept
        if kept.conditioning is None:
            began = time.monotonic()
            kept.conditioning = encode(self.model, self.request, self._pictures(), self.cancel)
            yield Encoded(time.monotonic() - began, kept.conditioning.notes)
        kept.enter("denoise")
        if self.saving is not None:
            identity = replace(identity, conditioning=kept.conditioning.fingerprint())
        if self.saving is not None and kept.state is None:
            found = self.saving.store.latest(identity, self.model.device)
            notes = (*refused, *found.refused, *(f"resumed_inexact: {it}" for it in found.inexact))
            kept.state = found.state
            if kept.state is not None or notes:
                yield Resumed(kept.step, notes)
            del found  # a state that waits shall not stay on the device
        return (yield from self._denoised(identity))

    def _denoised(self, identity: Identity) -> Generator[Event, None, Tensor]:
        """Part by part of the model. What one part made is on disk before the next one is waited for."""
        kept, parts = self.kept, parts_of(self.model, self.request)
        watch = _Watch(self.model, identity, self.saving)
        while kept.state is None or not kept.state.done:
            self.model = yield from self.turns.take(self.model, parts[kept.step])
            yield from self._denoise_part(watch, parts)
        return kept.state.latents

    def _denoise_part(self, watch: _Watch, parts: Sequence[Part]) -> Generator[Event]:
        """All steps that are left, or those until another part takes its turn."""
        kept, model = self.kept, self.model
        assert kept.conditioning is not None, "what is denoised was encoded"
        watch.begin()
        failure = model.compiler.failure
        for state in denoise(model, kept.conditioning, self.request, kept.state, self.cancel):
            over = model.placement.swaps and not state.done and parts[state.step] != parts[state.step - 1]
            kept.state = state
            if model.compiler.failure != failure:
                failure = model.compiler.failure
                yield steps_of(model)
            yield from watch.report(state, hand_over=over)
            if over:
                return

    def _pictures(self) -> Pictures:
        return Pictures(self._picture(self.request.image), self._picture(self.request.last_image))

    def _picture(self, picture: PictureRef | None) -> Image.Image | None:
        return None if picture is None else open_picture(self.target.pictures.open(picture.sha256))


class _Watch:
    """Times the steps, and turns each state into what is reported and saved of it."""

    def __init__(self, model: WanModel, identity: Identity, saving: Saving | None) -> None:
        self._model = model
        self._previewer: Previewer | None = None
        self._fps = model.spec.fps / model.spec.temporal_stride
        self._identity = identity
        self._saving = saving
        self._steps: list[float] = []  # seconds of each step of this run
        self._unsaved = 0.0  # seconds of work since the last save
        self._save_cost = FIRST_SAVE  # seconds of the last save
        self._unseen = float("inf")  # seconds of work since the last preview
        self._preview_cost = 0.0  # seconds of the last preview
        self._mark = time.monotonic()

    def begin(self) -> None:
        """The next step begins now."""
        self._mark = time.monotonic()

    def report(self, state: DenoiseState, *, hand_over: bool = False) -> Iterator[Event]:
        """Saved comes before StepCompleted: who is told of a step may rely on what is on disk. `hand_over`: the run may
        have to wait after this step, so it is saved."""
        seconds = time.monotonic() - self._mark
        self._steps.append(seconds)
        self._unsaved += seconds
        self._unseen += seconds
        if self._save(state, seconds, due=hand_over):
            yield Saved(state.step)
        left = state.total_steps - state.step
        eta = left * sum(self._steps) / len(self._steps)
        yield StepCompleted(state.step, state.total_steps, seconds, eta, state.expert)
        if PREVIEWS.due(since_save=self._unseen, step=seconds, save=self._preview_cost):
            yield Preview(state.step, self._preview(state))
        self._mark = time.monotonic()

    def _save(self, state: DenoiseState, seconds: float, *, due: bool) -> bool:
        """A disk that refuses costs the checkpoint, not the run."""
        saving = self._saving
        if saving is None:
            return False
        due = due or saving.cadence.due(since_save=self._unsaved, step=seconds, save=self._save_cost)
        if not (due or state.done or saving.urgent()):
            return False
        began = time.monotonic()
        try:
            if state.done:
                saving.store.save_latents(self._identity, state.latents)
            else:
                saving.store.save(self._identity, state)
        except (InsufficientStorage, CheckpointError) as error:
            _log.warning("step %d was not saved: %s", state.step, error)
            return False
        self._save_cost, self._unsaved = time.monotonic() - began, 0.0
        return True

    def _preview(self, state: DenoiseState) -> bytes:
        began = time.monotonic()
        self._previewer = self._previewer or previewer_of(self._model)
        latents = state.latents if state.estimate is None else state.estimate
        data = encode_animation(list(self._previewer.frames(latents)), self._fps)
        self._preview_cost, self._unseen = time.monotonic() - began, 0.0
        return data
