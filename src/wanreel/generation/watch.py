"""Watch: times the steps of a run, and turns each state into what is reported and saved of it.

States that are large are written, and previews compressed, in threads beside the next step; nothing of them is lost when the
run ends, however it does. Knows nothing of models but how to preview their latents.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

from wanreel.core.errors import CheckpointError, InsufficientStorage
from wanreel.core.events import Event, Exported, Preview, Saved, StepCompleted
from wanreel.generation.cadence import Cadence
from wanreel.generation.checkpoint import CheckpointStore, Identity
from wanreel.generation.preview_decoder import Previewer, previewer_of
from wanreel.generation.state import DenoiseState
from wanreel.media.animation import encode_animation
from wanreel.models.wan_model import WanModel

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: Previews cost at most this share of the run time, and skipping one loses nothing.
PREVIEWS = Cadence(share=0.02, loss=float("inf"))
FIRST_SAVE = 0.2  #: seconds that a save is taken to need before one was timed
BESIDE = 2**23  #: bytes of latents from which on saves and previews are made beside the run; others take no time

_HOST = torch.device("cpu")


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Saving:
    """How states are kept while denoising."""

    store: CheckpointStore
    job: str  #: whose they are
    cadence: Cadence = field(default_factory=Cadence)
    urgent: Callable[[], bool] = _never  #: True: save after this step, whatever it costs (the worker drains)
    beside: int = BESIDE  #: bytes of latents from which on states are written beside the run


@dataclass(frozen=True, slots=True)
class _Write:
    """A save that was begun."""

    step: int
    work: float  #: seconds of work that it saves
    seconds: Future[float | None]  #: that it took; None: the disk refused


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A preview that was begun."""

    step: int
    seconds: float  #: that the steps waited for it
    data: Future[bytes]


class Watch:
    """A context for one run. Saves come out as Saved once they are on disk: those of small states before StepCompleted of
    their step, others when they are there, at the latest before Exported."""

    def __init__(self, model: WanModel, saving: Saving | None) -> None:
        self._model = model
        self._saving = saving
        self._beside = BESIDE if saving is None else saving.beside
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="beside")
        self._identity: Identity | None = None
        self._writing: _Write | None = None
        self._drawing: _Drawing | None = None
        self._previewer: Previewer | None = None
        self._fps = model.spec.fps / model.spec.temporal_stride
        self._steps: list[float] = []  # seconds of each step of this run
        self._unsaved = 0.0  # seconds of work since the last save
        self._save_cost = FIRST_SAVE  # seconds of the last save
        self._unseen = float("inf")  # seconds of work since the last preview
        self._preview_cost = 0.0  # seconds of the last preview
        self._mark = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown()

    def begin(self, identity: Identity) -> None:
        """The next step begins now. Its state will belong to `identity`."""
        self._identity = identity
        self._mark = time.monotonic()

    def report(self, state: DenoiseState, *, hand_over: bool = False) -> Iterator[Event]:
        """`hand_over`: the run may have to wait after this step, so it is on disk first."""
        seconds = time.monotonic() - self._mark
        self._steps.append(seconds)
        self._unsaved += seconds
        self._unseen += seconds
        yield from self._ready()
        yield from self._save(state, seconds, hand_over=hand_over)
        left = state.total_steps - state.step
        eta = left * sum(self._steps) / len(self._steps)
        yield StepCompleted(state.step, state.total_steps, seconds, eta, state.expert)
        if self._drawing is None and PREVIEWS.due(since_save=self._unseen, step=seconds, save=self._preview_cost):
            yield from self._preview(state)
        self._mark = time.monotonic()

    def among(self, events: Generator[Event, None, T]) -> Generator[Event, None, T]:
        """`events`, and between them what becomes ready meanwhile: all of it before Exported."""
        with contextlib.closing(events):
            while True:
                try:
                    event = next(events)
                except StopIteration as end:
                    return end.value
                yield from self._rest() if isinstance(event, Exported) else self._ready()
                yield event

    def _save(self, state: DenoiseState, seconds: float, *, hand_over: bool) -> Iterator[Event]:
        saving = self._saving
        if saving is None:
            return
        at_once = hand_over or (not state.done and saving.urgent())
        due = saving.cadence.due(since_save=self._unsaved, step=seconds, save=self._save_cost)
        if not (due or state.done or at_once):
            return
        yield from self._written()
        beside = self._is_large(state)
        # On a CPU that copies nothing. It need not: no step writes into a tensor of a state that was given out.
        kept = state.to(_HOST) if beside else state
        assert self._identity is not None, "a step has begun"
        self._writing = _Write(state.step, self._unsaved, self._beginning(_write, saving.store, self._identity, kept))
        self._unsaved = 0.0
        if at_once or not beside:
            yield from self._written()

    def _preview(self, state: DenoiseState) -> Iterator[Event]:
        began = time.monotonic()
        self._previewer = self._previewer or previewer_of(self._model)
        frames = list(self._previewer.frames(state.latents if state.estimate is None else state.estimate))
        data = self._beginning(encode_animation, frames, self._fps)
        beside = self._is_large(state)
        if not beside:
            wait([data])
        self._drawing = _Drawing(state.step, time.monotonic() - began, data)
        if not beside:
            yield from self._drawn()
        self._preview_cost, self._unseen = time.monotonic() - began, 0.0

    def _beginning(self, work: Callable[..., T], *given: Any) -> Future[T]:
        """Of work on a thread, which logs as the run does."""
        return self._threads.submit(contextvars.copy_context().run, work, *given)

    def _is_large(self, state: DenoiseState) -> bool:
        return state.latents.nbytes >= self._beside

    def _ready(self) -> Iterator[Event]:
        if self._writing is not None and self._writing.seconds.done():
            yield from self._written()
        if self._drawing is not None and self._drawing.data.done():
            yield from self._drawn()

    def _rest(self) -> Iterator[Event]:
        yield from self._written()
        yield from self._drawn()

    def _written(self) -> Iterator[Event]:
        """Wait for the save that was begun last."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        seconds = writing.seconds.result()
        if seconds is None:
            self._unsaved += writing.work
        else:
            self._save_cost = seconds
            yield Saved(writing.step)

    def _drawn(self) -> Iterator[Event]:
        drawing, self._drawing = self._drawing, None
        if drawing is not None:
            yield Preview(drawing.step, drawing.data.result(), seconds=drawing.seconds)


def _write(store: CheckpointStore, identity: Identity, state: DenoiseState) -> float | None:
    """Seconds that it took; None where the disk refused, which costs the checkpoint and not the run."""
    began = time.monotonic()
    try:
        if state.done:
            store.save_latents(identity, state.latents)
        else:
            store.save(identity, state)
    except (InsufficientStorage, CheckpointError) as error:
        _log.warning("step %d was not saved: %s", state.step, error)
        return None
    return time.monotonic() - began
