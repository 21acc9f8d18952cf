"""Planner: under which plan requests run on this process's device, and what its runs have taught. Loads nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from wanreel.core.alternatives import Outlook, alternatives
from wanreel.core.catalog import ModelSpec
from wanreel.core.machines import Machine
from wanreel.core.memory_plan import Learned, MemoryPlan, PlanRun, Stage
from wanreel.core.parallel_memory import group_ladder, group_price
from wanreel.core.placement import Placement
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload

#: A measured peak corrects the prediction by no more than this, either way.
_MOST = 1.5
#: And the measured time of a step by no more than this.
_MOST_TIME = 3.0
#: Steps of a run that say something about its time.
_STEPS = 3


class PlanRecords(Protocol):
    """Where runs are remembered beyond this process."""

    def runs(self, machine: str, model: str) -> Iterable[PlanRun]:
        """Newest first."""
        ...

    def add(self, run: PlanRun) -> None: ...


@dataclass
class NoRecords:
    """Remembers as long as the process lives."""

    kept: list[PlanRun] = field(default_factory=list[PlanRun])

    def runs(self, machine: str, model: str) -> Iterable[PlanRun]:
        return [run for run in reversed(self.kept) if (run.machine, run.model) == (machine, model)]

    def add(self, run: PlanRun) -> None:
        self.kept.append(run)


@dataclass
class Planner:
    """Plans for one device. `machine` is asked anew for each plan, as other programs come and go."""

    machine: Callable[[], Machine]
    wishes: Wishes = field(default_factory=Wishes)
    records: PlanRecords = field(default_factory=NoRecords)

    def plans(self, spec: ModelSpec, request: ResolvedRequest, held: Placement | None) -> tuple[MemoryPlan, ...]:
        """The plan and those to try after it.

        A model that is loaded is not loaded otherwise for a gain that is smaller than the time that loading takes,
        except where little memory was asked for and it takes more.
        """
        work, machine, wishes = Workload.of(spec, request), self.machine(), self.wishes.joined(request.memory)
        plans = group_ladder(work, machine, wishes, self.learned(work, machine))
        best = plans[0]
        thrifty = wishes.mode in ("balanced", "smallest")
        for plan in plans if held is not None else ():
            kept = held is not None and plan.placement.loading == held.loading
            lost = plan.seconds(work.steps) - best.seconds(work.steps)
            fits = plan.gpu_bytes <= best.gpu_bytes or not thrifty
            if kept and fits and plan.placement.arithmetic <= best.placement.arithmetic and lost <= best.load_seconds:
                return (plan, *(it for it in plans if it is not plan))
        return plans

    def outlook(self, spec: ModelSpec, request: ResolvedRequest) -> Outlook:
        """The plan where nothing is loaded, and those that the request could ask for instead."""
        work, machine, asked = Workload.of(spec, request), self.machine(), request.memory
        learned, plain = self.learned(work, machine), replace(asked, precision=None, offload=None)
        return Outlook(
            machine,
            group_ladder(work, machine, self.wishes.joined(asked), learned)[0],
            alternatives(work, machine, self.wishes.joined(plain), learned),
        )

    def default(self, spec: ModelSpec) -> MemoryPlan:
        """The plan for a request that asks for nothing in particular."""
        size, pictures = spec.sizes[spec.default_resolution], {"text": 0, "picture": 1, "first_last": 2}[spec.modes[0]]
        passes = 2 if spec.guidance_high > 1.0 else 1
        work = Workload(spec, size.width, size.height, spec.num_frames, spec.steps, passes, pictures)
        machine = self.machine()
        return group_ladder(work, machine, self.wishes, self.learned(work, machine))[0]

    def learned(self, work: Workload, machine: Machine) -> Learned:
        """What earlier runs of this model on such a machine say."""
        runs = list(self.records.runs(machine.gpu, work.spec.name))
        size = size_of(work)
        return Learned(
            activations=_ratios(runs),
            step=_step_ratio(runs),
            refused=frozenset(run.plan for run in runs if run.failed and run.size == size),
        )

    def ran(
        self,
        spec: ModelSpec,
        request: ResolvedRequest,
        plan: MemoryPlan,
        peaks: Mapping[Stage, int],
        steps: Sequence[float] = (),
    ) -> None:
        """A run went well: its measured peaks and the seconds of its steps correct later predictions."""
        predicted: dict[Stage, int] = {it.stage: it.peak for it in plan.stages if it.stage in peaks}
        if not predicted:
            return
        work, machine = Workload.of(spec, request), self.machine()
        priced = group_price(work, machine, plan.placement)
        formula = [it for it in priced.stages if it.stage in peaks]
        run = PlanRun(
            machine.gpu,
            spec.name,
            size_of(work),
            str(plan.placement),
            predicted=predicted,
            measured={stage: peaks[stage] for stage in predicted},
            weights={it.stage: it.weights for it in formula},
            activations={it.stage: it.activations for it in formula},
            # The first step of a process is slower than the others.
            steps=(statistics.median(steps[1:]), priced.step_seconds) if len(steps) >= _STEPS else (),
        )
        self.records.add(run)

    def ran_out(self, spec: ModelSpec, request: ResolvedRequest, plan: MemoryPlan, stage: Stage) -> None:
        """Memory ran out: the plan is not taken again at this size."""
        work = Workload.of(spec, request)
        self.records.add(PlanRun(self.machine().gpu, spec.name, size_of(work), str(plan.placement), stage))


def size_of(work: Workload) -> str:
    """ "1280x720x81": what plans that failed are remembered by."""
    return f"{work.width}x{work.height}x{work.frames}"


def _step_ratio(runs: list[PlanRun]) -> float:
    """Measured over predicted seconds of a step, the median of the newest runs."""
    found = [run.steps[0] / run.steps[1] for run in runs[:20] if run.steps and run.steps[1] > 0]
    return min(_MOST_TIME, max(1 / _MOST_TIME, statistics.median(found))) if found else 1.0


def _ratios(runs: list[PlanRun]) -> dict[Stage, float]:
    """Measured over predicted activations, the median of the newest runs, by stage."""
    found: dict[Stage, list[float]] = {}
    for run in runs[:20]:
        for stage, activations in run.activations.items():
            found.setdefault(stage, []).append((run.measured[stage] - run.weights[stage]) / max(1, activations))
    return {stage: min(_MOST, max(1 / _MOST, statistics.median(values))) for stage, values in found.items()}
