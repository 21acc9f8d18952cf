"""The ladder: when memory runs out, the same request goes on under the next plan, from where it stood.

At most four rungs, each reported. A rung changes where weights lie and in which portions is computed, never what was
asked. Knows nothing of what an attempt does; what it made so far is in `Kept`.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from wanreel.core.errors import OutOfMemory
from wanreel.core.events import Event, ModelLoaded, PlanChanged, StepCompleted
from wanreel.core.memory import MAX_RUNGS, next_rung
from wanreel.core.memory_plan import STAGES, MemoryPlan, Stage
from wanreel.core.work import AnyResolution
from wanreel.generation.conditioning import Conditioning
from wanreel.generation.faults import mapped_faults
from wanreel.generation.state import DenoiseState
from wanreel.models.held import Held
from wanreel.models.machine import describe_device, peak_bytes, restart_peak
from wanreel.models.pool import ModelPool

T = TypeVar("T")

#: What is visiting the device while pictures and prompt are encoded.
_ENCODING: dict[str, Stage] = {"text_encoder": "text", "image_encoder": "picture", "vae": "condition"}


@dataclass
class Kept:
    """What an attempt has made that the next one need not make again, and where it stands."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    model: Held | None = None  #: that the attempt uses
    visiting_share: float | None = None  #: as `MemoryPlan.visiting_share`
    stage: Stage = "text"
    conditioning: Conditioning | None = None
    state: DenoiseState | None = None
    latents: Tensor | None = None
    peaks: dict[Stage, int] = field(default_factory=dict[Stage, int])  #: bytes allocated on the GPU at most
    seconds: list[float] = field(default_factory=list[float])  #: of each step under the plan at hand

    def enter(self, stage: Stage) -> None:
        """A stage begins; that of the one before is measured."""
        self.measure()
        self.stage = stage

    def measure(self) -> None:
        """Note the peak of the running stage."""
        peak = peak_bytes(self.device)
        if peak is not None:
            self.peaks[self.stage] = max(peak, self.peaks.get(self.stage, 0))
        restart_peak(self.device)

    def move(self, device: torch.device) -> None:
        """Take everything that was made so far to `device`."""
        self.conditioning = self.conditioning and self.conditioning.to(device)
        self.state = self.state and self.state.to(device)
        self.latents = None if self.latents is None else self.latents.to(device)

    @property
    def step(self) -> int:
        return self.state.step if self.state is not None else 0


def descend(
    pool: ModelPool, resolution: AnyResolution, attempt: Callable[[Any, Kept], Generator[Event, None, T]]
) -> Generator[Event, None, T]:
    """What `attempt`, given the resolution's model, returns under the first plan that carries it.

    Raises OutOfMemory when none is left.
    """
    spec, request = resolution.spec, resolution.request
    plans = pool.plans(spec, request)
    plan, kept = plans[0], Kept()
    for rung in range(MAX_RUNGS + 1):
        kept.model, kept.visiting_share = None, plan.visiting_share(request.num_inference_steps)
        pool.trying(spec, request, plan, lambda: _stage(kept))
        try:
            with mapped_faults():
                acquired = pool.acquire(spec, plan.placement)
                kept.model = model = acquired.model
                kept.device = model.device
                kept.move(model.device)
                restart_peak(kept.device)
                notes = (*model.notes, *_shared(plan))
                yield ModelLoaded(
                    spec.name, describe_device(model.device), acquired.seconds, notes, str(plan.placement)
                )
                result = yield from _timed(attempt(model, kept), kept)
                kept.measure()
        except OutOfMemory as error:
            said = error.message
        else:
            pool.ran(spec, request, plan, kept.peaks, kept.seconds)
            return result
        # Out of the handler: while an error is handled it holds every tensor of the frames that it came through.
        model = None
        stage = _stage(kept)
        # First, as a process that has lost a rank does not come back from its GPU.
        pool.ran_out(spec, request, plan, stage)
        _make_room(kept.model)
        following = next_rung(plans, plan, stage) if rung < MAX_RUNGS else None
        if following is None:
            raise OutOfMemory(
                f"Memory ran out to {STAGES[stage]}, under the last plan there is ({plan.placement}). {said}"
            )
        yield PlanChanged(
            rung + 1, stage, kept.step, str(plan.placement), str(following.placement), _same_bits(plan, following), said
        )
        plan, kept.model = following, None
    raise OutOfMemory(f"Memory ran out under {MAX_RUNGS + 1} plans.")


def _timed(attempt: Generator[Event, None, T], kept: Kept) -> Generator[Event, None, T]:
    """The same events, their steps' seconds noted; none of those of a plan before."""
    kept.seconds = []
    with contextlib.closing(attempt):
        while True:
            try:
                event = next(attempt)
            except StopIteration as end:
                return end.value
            if isinstance(event, StepCompleted):
                kept.seconds.append(event.seconds)
            yield event


def _stage(kept: Kept) -> Stage:
    """Where memory ran out; while encoding, by the part that was at work."""
    if kept.conditioning is None and kept.latents is None and kept.model is not None:
        return _ENCODING.get(kept.model.visitor, kept.stage)
    return kept.stage


def _shared(plan: MemoryPlan) -> tuple[str, ...]:
    """For the job's record, where several GPUs share the work."""
    parallel = plan.placement.parallel
    return () if parallel.alone else (f"shared by {parallel}",)


def _same_bits(plan: MemoryPlan, following: MemoryPlan) -> bool:
    """Whether the next plan computes what the last one did, to the bit."""
    before, after = plan.placement, following.placement
    parts = ("precision", "tile", "feed_forward_rows", "compute", "compiled")
    return all(getattr(before, name) == getattr(after, name) for name in parts)


def _make_room(model: Held | None) -> None:
    gc.collect()
    if model is not None:
        model.vacate()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
