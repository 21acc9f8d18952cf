"""ModelPool: which models are in memory. Knows nothing of requests, queues or where weights come from."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from wanreel.core.catalog import ModelSpec
from wanreel.core.memory import MemoryPlan, Stage
from wanreel.core.placement import Placement
from wanreel.core.resolve import ResolvedRequest
from wanreel.models.wan_model import WanModel


@dataclass(frozen=True, slots=True)
class Acquired:
    """A model ready to use, and what it cost."""

    model: WanModel
    seconds: float  #: spent loading; 0.0 when it was in memory


class Planning(Protocol):
    """Who says under which plan a request runs."""

    def plans(self, spec: ModelSpec, request: ResolvedRequest, held: Placement | None) -> tuple[MemoryPlan, ...]:
        """The plan and those to try after it. `held`: how the model is loaded, if it is."""
        ...

    def ran(self, spec: ModelSpec, request: ResolvedRequest, plan: MemoryPlan, peaks: Mapping[Stage, int]) -> None:
        """The request ran under `plan`; `peaks`: GPU bytes at most, by stage."""
        ...

    def ran_out(self, spec: ModelSpec, request: ResolvedRequest, plan: MemoryPlan, stage: Stage) -> None:
        """Memory ran out under `plan`: at this size it is not taken again."""
        ...


class ModelPool:
    """Keeps the model used last and loads another in its place when one is asked for."""

    def __init__(self, load: Callable[[ModelSpec, Placement], WanModel], planning: Planning | None = None) -> None:
        self._load = load
        self._planning = planning
        self._held: WanModel | None = None

    @property
    def held(self) -> str | None:
        """Name of the model in memory."""
        return self._held.spec.name if self._held is not None else None

    def plans(self, spec: ModelSpec, request: ResolvedRequest) -> tuple[MemoryPlan, ...]:
        """The plan for a request and those to try should memory run out."""
        if self._planning is None:
            return (MemoryPlan(Placement()),)
        held = self._held.placement if self._held is not None and self._held.spec == spec else None
        return self._planning.plans(spec, request, held)

    def ran(self, spec: ModelSpec, request: ResolvedRequest, plan: MemoryPlan, peaks: Mapping[Stage, int]) -> None:
        """Tell whoever plans how it went."""
        if self._planning is not None:
            self._planning.ran(spec, request, plan, peaks)

    def ran_out(self, spec: ModelSpec, request: ResolvedRequest, plan: MemoryPlan, stage: Stage) -> None:
        """The same when memory ran out."""
        if self._planning is not None:
            self._planning.ran_out(spec, request, plan, stage)

    def acquire(self, spec: ModelSpec, placement: Placement | None = None) -> Acquired:
        """The model of `spec`, held and run as `placement` says; by default as it is, or all of it on the device.

        Raises ModelNotInstalled or BrokenWeights.
        """
        held = self._held
        if held is not None and held.spec == spec and (placement is None or _serves(held, placement)):
            if placement is not None:
                held.run_with(placement)
            return Acquired(held, 0.0)
        held = None
        self.evict()
        began = time.monotonic()
        self._held = self._load(spec, placement or Placement())
        return Acquired(self._held, time.monotonic() - began)

    def evict(self) -> None:
        """Free the memory of whatever is held."""
        if self._held is not None:
            self._held.vacate()
        self._held = None
        gc.collect()  # hooks and caches of a model refer to each other in circles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _serves(model: WanModel, placement: Placement) -> bool:
    return model.placement.loading == placement.loading
