"""Opening a model on all ranks at once. Knows nothing of which plan is best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wanreel.core.catalog import ModelSpec
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement
from wanreel.models.held import Held
from wanreel.models.parallel.crew import Crew
from wanreel.models.parallel.lead import Lead, LedExpert
from wanreel.models.parallel.sharing import share_out
from wanreel.models.wan_model import WanModel


@dataclass
class CrewOpener:
    """Opens models here and, where the placement is of several ranks, on all of the crew's."""

    crew: Crew
    open_here: Callable[[Any, Placement], Held]
    _opened: set[str] = field(default_factory=set[str])

    def open(self, spec: Any, placement: Placement) -> Held:
        """Raises what `open_here` raises, here or on another rank; DeviceFault when a rank is lost."""
        if placement.parallel.alone or not isinstance(spec, ModelSpec):
            return self.open_here(spec, placement)
        if self.crew.gather():
            self._opened.clear()
        self.crew.tell({"do": "open", "model": spec.name, "placement": placement.to_dict()})
        self._opened.add(spec.name)
        try:
            model = self.open_here(spec, placement)
        except BaseException:
            self.crew.disband()
            raise
        self.crew.answered()
        if not isinstance(model, WanModel):
            raise TypeError(f"{spec.name} runs on one rank alone")
        lead_model(self.crew, model, placement.parallel)
        return model

    def usable(self, held: Held) -> bool:
        """Whether the ranks that a model was opened on are there."""
        return not isinstance(held, WanModel) or held.lead is None or self.crew.gathered

    def close(self, name: str) -> None:
        """The model is let go of here: so do the others."""
        if name in self._opened and self.crew.gathered:
            self.crew.ask({"do": "drop", "model": name})
        self._opened.discard(name)


def lead_model(crew: Crew, model: WanModel, parallel: Parallel) -> None:
    """From now on the model's experts predict on all ranks, which have opened it too."""
    if parallel.fsdp:
        with crew.exchanging():
            crew.tell({"do": "share", "model": model.spec.name, "parallel": parallel.to_dict()})
            share_out(model, crew.mesh(parallel).everybody, crew)
        crew.answered()
    model.lead = Lead(crew, model.spec.name, parallel)
    for number, expert in enumerate(model.experts):
        expert.lead = LedExpert(model.lead, expert, number)
