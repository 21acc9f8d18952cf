"""KeptProgress: what a generation keeps on disk while it runs, so that another process can go on.

Joins the checkpoint file format with the question when saving is worth it. Knows nothing of who will go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Generator, Tensor

from wanreel.core.errors import CheckpointError, InsufficientStorage
from wanreel.core.events import Event, Resumed, Saved
from wanreel.core.resolve import ResolvedRequest
from wanreel.generation.cadence import Cadence
from wanreel.generation.checkpoint import CheckpointStore, Identity, request_fingerprint
from wanreel.generation.conditioning import Conditioning
from wanreel.generation.denoise import planned_solver
from wanreel.generation.environment import environment_of
from wanreel.generation.state import DenoiseState
from wanreel.models.wan_model import WanModel

Opened = tuple[DenoiseState | None, Tensor | None, tuple[Event, ...]]
FIRST_GUESS = 0.2  #: seconds that a save takes before one was measured


class NothingKept:
    """For a generation that nobody will go on with."""

    def open(self, model: WanModel, request: ResolvedRequest, conditioning: Conditioning) -> Opened:
        return None, None, ()

    def step(self, state: DenoiseState) -> Iterator[Event]:
        return iter(())

    def finished(self, latents: Tensor) -> None:
        pass


@dataclass
class KeptProgress:
    """States and final latents of one clip. Used by one run, from `open` to `finished`."""

    store: CheckpointStore
    job: str  #: whose they are
    clip: int = 0
    cadence: Cadence = Cadence()
    save_now: Callable[[], bool] = lambda: False  #: asked after each step; True saves whatever the cadence says
    _identity: Identity | None = field(default=None, init=False)
    _saved_at: float = field(default=0.0, init=False)
    _cost: float = field(default=FIRST_GUESS, init=False)
    _last_tick: float = field(default=0.0, init=False)

    def open(self, model: WanModel, request: ResolvedRequest, conditioning: Conditioning) -> Opened:
        """(state to go on from, final latents, events to tell): at most one of the first two is there."""
        self._identity = identity = self._identify(model, request, conditioning)
        self._saved_at = self._last_tick = time.monotonic()
        latents, refused = self._final(identity, model)
        if latents is not None:
            return None, latents, (Resumed(request.num_inference_steps),)
        restored = self.store.latest(identity, model.device)
        inexact = tuple(f"resumed_inexact: {change}" for change in restored.inexact)
        notes = (*inexact, *(f"checkpoint refused: {why}" for why in (*refused, *restored.refused)))
        if restored.state is None:
            return None, None, (Resumed(0, notes),) if notes else ()
        return restored.state, None, (Resumed(restored.state.step, notes),)

    def step(self, state: DenoiseState) -> Iterator[Event]:
        """Saves the state when that is worth its time. Yields Saved when it is on disk."""
        now = time.monotonic()
        step, self._last_tick = now - self._last_tick, now
        due = self.cadence.due(since_save=now - self._saved_at, step=step, save=self._cost)
        if state.done or self._identity is None or not (due or self.save_now()):
            return
        try:
            self.store.save(self._identity, state)
        except InsufficientStorage:
            # A full disk costs this checkpoint, not the video: the generation goes on without it.
            return
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - now
        yield Saved(state.step)

    def finished(self, latents: Tensor) -> None:
        """Keeps final latents, so that a failed decode or export can be done again alone. Raises InsufficientStorage."""
        if self._identity is not None:
            self.store.save_latents(self._identity, latents)

    def _identify(self, model: WanModel, request: ResolvedRequest, conditioning: Conditioning) -> Identity:
        return Identity(
            job=self.job,
            clip=self.clip,
            request=request_fingerprint(request),
            sigmas=sigmas_of(model, request),
            conditioning=conditioning.fingerprint(),
            environment=environment_of(model),
        )

    def _final(self, identity: Identity, model: WanModel) -> tuple[Tensor | None, tuple[str, ...]]:
        try:
            return self.store.load_latents(identity, model.device), ()
        except CheckpointError as error:
            return None, (error.message,)


def sigmas_of(model: WanModel, request: ResolvedRequest) -> tuple[float, ...]:
    """The noise levels that `request` passes through."""
    return planned_solver(model, request, Generator("cpu")).sigmas
