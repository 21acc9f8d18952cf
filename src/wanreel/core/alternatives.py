"""alternatives: the few plans of memory between which a person may choose, each with what it takes. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from wanreel.core.components import known
from wanreel.core.machines import Machine
from wanreel.core.memory_plan import Learned, MemoryPlan
from wanreel.core.parallel_memory import group_ladder
from wanreel.core.placement import PLANS, Precision
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload

FEWER_BITS: tuple[Precision, ...] = ("fp8", "int8", "int4")


@dataclass(frozen=True, slots=True)
class Outlook:
    """Under which plan a request runs on a machine, and under which others it could."""

    machine: Machine
    plan: MemoryPlan
    alternatives: tuple[MemoryPlan, ...] = ()


def alternatives(
    work: Workload, machine: Machine, wishes: Wishes, learned: Learned | None = None
) -> tuple[MemoryPlan, ...]:
    """The best plan for each place where weights can wait, then the best with weights in fewer bits.

    Those that do not fit are among them, with `fits` False. Only what `wishes` leave open; none on a CPU and for models of
    which nothing is known.
    """
    if not machine.computes_on_gpu or not known(work.spec):
        return ()
    return tuple(group_ladder(work, machine, each, learned)[0] for each in _open(wishes))


def _open(wishes: Wishes) -> Iterator[Wishes]:
    plain = replace(wishes, mode="auto" if wishes.mode == "custom" else wishes.mode, quantize=False)
    for way in PLANS if wishes.offload == "auto" else (wishes.offload,):
        yield replace(plain, offload=way)
    if wishes.precision == "auto":
        yield from (replace(plain, precision=precision) for precision in FEWER_BITS)
