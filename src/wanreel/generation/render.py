"""render: the spine. From a resolved request to a video on disk, as typed events; the only file that knows the order.

Knows nothing of jobs, queues or front ends. The caller owns the loop: closing the iterator, or an error, leaves no file
but checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import CheckpointError
from wanreel.core.events import (
    Completed,
    Denoised,
    Encoded,
    Event,
    LorasApplied,
    Part,
    Resumed,
)
from wanreel.core.picture import PictureRef
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.video import Video
from wanreel.generation.checkpoint import Finished, Identity, latents_digest, request_fingerprint
from wanreel.generation.conditioning import tokens_of
from wanreel.generation.denoise import denoise, planned_solver
from wanreel.generation.encode import Pictures, encode
from wanreel.generation.environment import environment_of
from wanreel.generation.export import Target, export
from wanreel.generation.ladder import Kept, descend
from wanreel.generation.turns import Turns, parts_of
from wanreel.generation.watch import Saving, Watch
from wanreel.media.pictures import open_picture
from wanreel.models.pool import ModelPool
from wanreel.models.suit import steps_of, suit, unsuited
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear

__all__ = ["Saving", "Target", "render"]

_log = logging.getLogger(__name__)


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
        with Watch(model, saving) as watch:
            if kept.latents is None:
                clip = _Clip(model, request, target, cancel, saving, kept, turns, watch)
                kept.latents = yield from clip.latents()
                unsuited(clip.model)
                model = yield from turns.take(clip.model, "decode")
            kept.enter("decode")
            return (yield from watch.among(export(model, kept.latents, request, target, cancel)))

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
    watch: Watch

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
        while kept.state is None or not kept.state.done:
            self.model = yield from self.turns.take(self.model, parts[kept.step])
            yield from self._denoise_part(identity, parts)
        return kept.state.latents

    def _denoise_part(self, identity: Identity, parts: Sequence[Part]) -> Generator[Event]:
        """All steps that are left, or those until another part takes its turn."""
        kept, model = self.kept, self.model
        assert kept.conditioning is not None, "what is denoised was encoded"
        self.watch.begin(identity)
        failure = model.compiler.failure
        for state in denoise(model, kept.conditioning, self.request, kept.state, self.cancel):
            over = model.placement.swaps and not state.done and parts[state.step] != parts[state.step - 1]
            kept.state = state
            if model.compiler.failure != failure:
                failure = model.compiler.failure
                yield steps_of(model)
            # Where parts take turns, the run may have to wait for the next one, and for the decoder too.
            yield from self.watch.report(state, hand_over=over or (model.placement.swaps and state.done))
            if over:
                return

    def _pictures(self) -> Pictures:
        return Pictures(self._picture(self.request.image), self._picture(self.request.last_image))

    def _picture(self, picture: PictureRef | None) -> Image.Image | None:
        return None if picture is None else open_picture(self.target.pictures.open(picture.sha256))
