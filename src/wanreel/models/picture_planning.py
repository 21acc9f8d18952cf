"""Plans for models of either kind: videos by the Planner, pictures by arithmetic of their own. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wanreel.core.edit_memory import load_of, usual_load
from wanreel.core.memory_plan import MemoryPlan, PlanRun, Stage
from wanreel.core.picture_memory import picture_plans
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.placement import Placement
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.work import AnySpec, Work
from wanreel.models.planning import Planner


@dataclass(frozen=True, slots=True)
class PicturePlanner:
    """Plans of pictures on the machine of another planner, remembered where it remembers its own."""

    base: Planner

    def plans(self, spec: PictureSpec, request: ResolvedPicture, held: Placement | None) -> tuple[MemoryPlan, ...]:
        """The plan and those to try after it. A model that is loaded stays loaded as it is, if it may."""
        load, machine = load_of(spec, request), self.base.machine()
        runs = self.base.records.runs(machine.gpu, spec.name)
        refused = frozenset(run.plan for run in runs if run.failed and run.size == load.size)
        plans = picture_plans(load, machine, self.base.wishes, refused)
        kept = [plan for plan in plans if held is not None and plan.placement.loading == held.loading]
        return (*kept, *(plan for plan in plans if plan not in kept))

    def default(self, spec: PictureSpec) -> MemoryPlan:
        """The plan for a request that asks for nothing in particular."""
        return picture_plans(usual_load(spec), self.base.machine(), self.base.wishes)[0]

    def ran_out(self, spec: PictureSpec, request: ResolvedPicture, plan: MemoryPlan, stage: Stage) -> None:
        """Memory ran out: the plan is not taken again at this size."""
        size = load_of(spec, request).size
        self.base.records.add(PlanRun(self.base.machine().gpu, spec.name, size, str(plan.placement), stage))


@dataclass(frozen=True, slots=True)
class EveryPlanner:
    """What a pool of both kinds of models asks."""

    videos: Planner

    @property
    def pictures(self) -> PicturePlanner:
        return PicturePlanner(self.videos)

    def plans(self, spec: AnySpec, request: Work, held: Placement | None) -> tuple[MemoryPlan, ...]:
        if isinstance(spec, PictureSpec):
            return self.pictures.plans(spec, _picture(request), held)
        return self.videos.plans(spec, _video(request), held)

    def ran(
        self,
        spec: AnySpec,
        request: Work,
        plan: MemoryPlan,
        peaks: Mapping[Stage, int],
        steps: Sequence[float] = (),
    ) -> None:
        """Peaks of pictures teach nothing yet: their formula is exact but for the kernels' own memory."""
        if not isinstance(spec, PictureSpec):
            self.videos.ran(spec, _video(request), plan, peaks, steps)

    def ran_out(self, spec: AnySpec, request: Work, plan: MemoryPlan, stage: Stage) -> None:
        if isinstance(spec, PictureSpec):
            self.pictures.ran_out(spec, _picture(request), plan, stage)
        else:
            self.videos.ran_out(spec, _video(request), plan, stage)

    def default(self, spec: AnySpec) -> MemoryPlan:
        """The plan for a request that asks for nothing in particular."""
        return self.pictures.default(spec) if isinstance(spec, PictureSpec) else self.videos.default(spec)


def _picture(request: Work) -> ResolvedPicture:
    if not isinstance(request, ResolvedPicture):
        raise TypeError("a model that makes pictures was given a request for a video")
    return request


def _video(request: Work) -> ResolvedRequest:
    if not isinstance(request, ResolvedRequest):
        raise TypeError("a model that makes videos was given a request for pictures")
    return request
