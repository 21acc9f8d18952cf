"""ModelPool: which models are in memory. Knows nothing of requests, queues or where weights come from."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, overload

import torch

from wanreel.core.catalog import ModelSpec
from wanreel.core.machines import Machine
from wanreel.core.memory_plan import MemoryPlan, Stage
from wanreel.core.picture_models import PictureSpec
from wanreel.core.placement import Placement
from wanreel.core.work import AnySpec, Work
from wanreel.models.held import Held
from wanreel.models.picture_model import PictureModel
from wanreel.models.wan_model import WanModel

Model = TypeVar("Model", bound=Held, covariant=True)


@dataclass(frozen=True, slots=True)
class Acquired(Generic[Model]):
    """A model ready to use, and what it cost."""

    model: Model
    seconds: float  #: spent loading; 0.0 when it was in memory


class Planning(Protocol):
    """Who says under which plan a request runs. What a spec and a request are is between it and the models."""

    def plans(self, spec: Any, request: Any, held: Placement | None) -> tuple[MemoryPlan, ...]:
        """The plan and those to try after it. `held`: how the model is loaded, if it is."""
        ...

    def ran(
        self,
        spec: Any,
        request: Any,
        plan: MemoryPlan,
        peaks: Mapping[Stage, int],
        steps: Sequence[float] = (),
    ) -> None:
        """The request ran under `plan`. `peaks`: GPU bytes at most, by stage; `steps`: seconds of each step."""
        ...

    def ran_out(self, spec: Any, request: Any, plan: MemoryPlan, stage: Stage) -> None:
        """Memory ran out under `plan`: at this size it is not taken again."""
        ...


class ModelPool:
    """Keeps the models used last, as many as fit beside each other, and lets go of those used longest ago.

    Without a `machine` to ask, a new model takes the place of whatever was there.
    """

    def __init__(
        self,
        load: Callable[[Any, Placement], Held],  #: from a row of the catalogue to its kind of model
        planning: Planning | None = None,
        machine: Callable[[], Machine] | None = None,
        closed: Callable[[str], None] | None = None,  #: told the name of each model that is let go of
        usable: Callable[[Held], bool] = lambda held: True,  #: False: what it runs on is gone, and it is loaded again
    ) -> None:
        self._load = load
        self._closed = closed
        self._usable = usable
        self._planning = planning
        self._machine = machine
        self._models: dict[str, Held] = {}  # used longest ago first
        self._needs: dict[tuple[str, Placement], MemoryPlan] = {}  # of the request at hand
        self._trying: Callable[[], None] = lambda: None

    @property
    def held(self) -> str | None:
        """Name of the model used last, if one is in memory."""
        return next(reversed(self._models), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all in memory, the one used longest ago first."""
        return tuple(self._models)

    def plans(self, spec: AnySpec, request: Work) -> tuple[MemoryPlan, ...]:
        """The plan for a request and those to try should memory run out.

        They count on all memory that this process holds, that of other models too: `acquire` makes the room.
        """
        if self._planning is None:
            return (MemoryPlan(Placement()),)
        held = self._find(spec)
        plans = self._planning.plans(spec, request, held.placement if held is not None else None)
        self._needs = {(spec.name, plan.placement): plan for plan in plans}
        return plans

    def ran(
        self,
        spec: AnySpec,
        request: Work,
        plan: MemoryPlan,
        peaks: Mapping[Stage, int],
        steps: Sequence[float] = (),
    ) -> None:
        """Tell whoever plans how it went."""
        if self._planning is not None and self.names == (spec.name,):  # else the peaks are of several models
            self._planning.ran(spec, request, plan, peaks, steps)

    def trying(self, spec: AnySpec, request: Work, plan: MemoryPlan, stage: Callable[[], Stage]) -> None:
        """A run begins under `plan`; `stage` says where it is."""
        planning = self._planning
        self._trying = lambda: None if planning is None else planning.ran_out(spec, request, plan, stage())

    def last_words(self) -> None:
        """Memory ran out in a run that does not come back: its plan is not taken again. From any thread."""
        self._trying()

    def ran_out(self, spec: AnySpec, request: Work, plan: MemoryPlan, stage: Stage) -> None:
        """The same when memory ran out. Other models leave, before a slower plan is tried beside them."""
        crowded = len(self._models) > 1
        for name in self.names:
            if name != spec.name:
                self.evict(name)
        if self._planning is not None and not crowded:  # beside others it says nothing about the plan
            self._planning.ran_out(spec, request, plan, stage)

    @overload
    def acquire(self, spec: ModelSpec, placement: Placement | None = None) -> Acquired[WanModel]: ...

    @overload
    def acquire(self, spec: PictureSpec, placement: Placement | None = None) -> Acquired[PictureModel]: ...

    def acquire(self, spec: AnySpec, placement: Placement | None = None) -> Acquired[Any]:
        """The model of `spec`, held and run as `placement` says; by default as it is, or all of it on the device.

        Raises ModelNotInstalled or BrokenWeights.
        """
        held = self._find(spec)
        if held is not None and (placement is None or _serves(held, placement)):
            self._models[spec.name] = self._models.pop(spec.name)
            if placement is not None:
                held.run_with(placement)
            self._make_room(spec, held.placement, held)
            return Acquired(held, 0.0)
        held = None
        self.evict(spec.name)
        placement = placement or Placement()
        self._make_room(spec, placement, None)
        began = time.monotonic()
        model = self._models[spec.name] = self._load_alone(spec, placement)
        return Acquired(model, time.monotonic() - began)

    def evict(self, name: str | None = None) -> None:
        """Free the memory of the model `name`, or of all."""
        for gone in self.names if name is None else (name,):
            held = self._models.pop(gone, None)
            if held is not None:
                held.vacate()
                if self._closed is not None:
                    self._closed(gone)
        gc.collect()  # hooks and caches of a model refer to each other in circles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _find(self, spec: AnySpec) -> Held | None:
        held = self._models.get(spec.name)
        if held is not None and not self._usable(held):
            held = None
            self.evict(spec.name)
        return held if held is not None and held.spec == spec else None

    def _load_alone(self, spec: AnySpec, placement: Placement) -> Held:
        """Load; where memory does not suffice beside other models, without them."""
        try:
            return self._load(spec, placement)
        except (torch.OutOfMemoryError, MemoryError):
            if not self._models:
                raise
        self.evict()  # not while the error is handled: it holds what was loaded so far
        return self._load(spec, placement)

    def _make_room(self, spec: AnySpec, placement: Placement, held: Held | None) -> None:
        """Let go of models used longest ago until this one's run fits beside the rest."""
        others = [name for name in self.names if name != spec.name]
        while others and not self._fits(spec, placement, held):
            self.evict(others.pop(0))

    def _fits(self, spec: AnySpec, placement: Placement, held: Held | None) -> bool:
        plan = self._needs.get((spec.name, placement))
        if self._machine is None or plan is None:
            return False
        machine = self._machine()
        others = sum(weight_bytes(it).gpu for name, it in self._models.items() if name != spec.name)
        host = plan.host_bytes
        if not machine.computes_on_gpu and not host:
            host = _UNKNOWN  # of a model whose sizes are in no table
        host -= weight_bytes(held).host if held is not None else 0
        # What the GPU has free counts all that we hold there; what the host has free does not.
        gpu = max((stage.needed for stage in plan.stages), default=0)
        return gpu + others <= machine.gpu_free and host <= machine.host_free


_UNKNOWN = 4 * 2**30  # bytes of host memory that a model of unknown size may take


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a model's tensors, by where they are."""

    gpu: int
    host: int


def weight_bytes(model: Held) -> Weights:
    """What the model takes now; of a part nothing while it is not loaded."""
    tensors = [tensor for module in model.modules.values() for tensor in (*module.parameters(), *module.buffers())]
    on_gpu = sum(tensor.nbytes for tensor in tensors if tensor.device.type == "cuda")
    return Weights(on_gpu, sum(tensor.nbytes for tensor in tensors if tensor.device.type == "cpu"))


def _serves(model: Held, placement: Placement) -> bool:
    return model.placement.loading == placement.loading
