"""Forecast: the plan for a request on this machine or on another card, asked of the driver and not of torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wanreel.core.alternatives import Outlook
from wanreel.core.errors import SettingsError
from wanreel.core.machines import CARDS, GIB, Machine, card_named, machine_of, machine_of_card
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.resolved import Resolution
from wanreel.core.settings import Settings
from wanreel.host import free_memory, nvidia_gpus

if TYPE_CHECKING:
    from wanreel.models.planning import PlanRecords


_CONTEXT = int(0.6 * GIB)  # of a GPU, taken by the driver and the CUDA context


@dataclass(frozen=True)
class Forecast:
    """What a request would take."""

    settings: Settings
    records: PlanRecords | None  #: of earlier runs
    gpus: int = 1  #: that share a video

    def plan(self, resolution: Resolution, *, card: str = "", host_gib: float | None = None) -> MemoryPlan:
        """The plan for a request, asked of the driver and not of torch; or for another card of the table.

        The GPU counts as it is when this program has it for itself; a worker looks again before it begins.
        """
        from wanreel.models.planning import NoRecords, Planner

        machine = self._machine_named(card, host_gib) if card else self.machine()
        planner = Planner(lambda: machine, self.settings.wishes, self.records or NoRecords())
        return planner.plans(resolution.spec, resolution.request, None)[0]

    def outlook(self, resolution: Resolution) -> Outlook:
        """The plan for a request as `plan` makes it, and those that could be asked for."""
        from wanreel.models.planning import NoRecords, Planner

        machine = self.machine()
        planner = Planner(lambda: machine, self.settings.wishes, self.records or NoRecords())
        return planner.outlook(resolution.spec, resolution.request)

    def machine(self) -> Machine:
        """The machine as its driver describes it, without torch."""
        host = free_memory()
        wanted, _, number = self.settings.device.partition(":")
        found = [gpu for gpu in nvidia_gpus() if not number or gpu.index == int(number)] if wanted != "cpu" else []
        if not found:
            return Machine(host_free=host, gpus=self.gpus)
        gpu, allowed = found[0], self.settings.memory_gb
        free = gpu.total_bytes - _CONTEXT if allowed is None else int(allowed * GIB)
        one = machine_of(gpu.name, gpu.total_bytes, min(free, gpu.total_bytes), gpu.capability, host_free=host)
        return replace(one, gpus=self.gpus)

    def _machine_named(self, card: str, host_gib: float | None) -> Machine:
        row = card_named(card)
        if not row.name:
            known = ", ".join(it.name for it in CARDS)
            raise SettingsError(f"card: {card!r} is not in the table.", hint=f"Known are {known}.")
        return replace(machine_of_card(row, host_gib=host_gib or free_memory() / GIB), gpus=self.gpus)
