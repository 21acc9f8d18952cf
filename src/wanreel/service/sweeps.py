"""Sweeps in the queue: every cell a job of one group, and what its workers make of their results. Imports no torch.

All cells are accepted or none. They wait for nobody, so any number of workers may make them, in whatever order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.group import Group, NewGroup
from wanreel.core.job import Job, JobStatus, NewJob
from wanreel.core.resolved import Adjustment, Resolution
from wanreel.core.sweep import Cell, Sweep
from wanreel.jobs.groups import new_id
from wanreel.service.bell import ring
from wanreel.service.grouped import OVER, Grouped
from wanreel.service.service import Terms
from wanreel.service.stored import json_text, text_of

KIND = "sweep"
FILES = ("sheet", "video", "csv", "json")  #: what is made of the cells


@dataclass(frozen=True, slots=True)
class SweepView:
    """A sweep as it stands."""

    group: Group
    sweep: Sweep
    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]  #: of the cells, in order

    @property
    def status(self) -> str:
        """As a job's: completed only when its sheet is there too; a cell that failed or was stopped is no bar to that."""
        states = {job.status for job in self.jobs}
        running = states & {JobStatus.QUEUED, JobStatus.IN_PROGRESS}
        if states == {JobStatus.QUEUED}:
            return "queued"
        if running or not self.group.resting:
            return "in_progress"
        if JobStatus.COMPLETED not in states:
            return OVER[JobStatus.FAILED if JobStatus.FAILED in states else JobStatus.CANCELLED]
        if self.group.error is not None:
            return "failed"
        return "completed" if self.whole else "in_progress"

    @property
    def whole(self) -> bool:
        """Whether the files are of all cells that completed."""
        return self.group.made_of == tuple(job.id for job in self.jobs if job.status is JobStatus.COMPLETED)

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """What was made, by FILES; empty before the first time."""
        return cast("dict[str, dict[str, Any]]", json.loads(self.group.result)["files"]) if self.group.result else {}


@dataclass(frozen=True)
class Sweeps(Grouped[SweepView]):
    """Over one service. What is there when a sweep is stopped becomes its sheet."""

    kind = KIND

    def plan(self, sweep: Sweep) -> tuple[Sweep, tuple[Resolution, ...]]:
        """What would run, cell by cell, with one seed for all where none was asked for. Raises InvalidRequest, ModelError.

        Cells that resolve to the same request (two names of one thing) are a problem: they would be the same video.
        """
        sweep = self._pinned(sweep)
        problems: list[Problem] = []
        made: dict[str, tuple[str, ...]] = {}
        resolutions: list[Resolution] = []
        for cell in sweep.cells():
            try:
                resolution = self.service.resolve(cell.request)
            except InvalidRequest as error:
                problems.extend(error.problems)
                continue
            resolutions.append(resolution)
            equal = made.setdefault(text_of(resolution.request), cell.labels)
            if equal is not cell.labels:
                text = f"{', '.join(cell.labels)} is the same video as {', '.join(equal)}."
                problems.append(Problem("axes", "contradiction", text, "Leave one of them out."))
        if problems:
            raise InvalidRequest(*dict.fromkeys(problems))
        return sweep, tuple(resolutions)

    def create(
        self, sweep: Sweep, terms: Terms | None = None, *, body: str | None = None
    ) -> tuple[SweepView, tuple[Adjustment, ...]]:
        """Accept a sweep, and say how its cells differ from what was asked. Raises as `plan`, and QueueFull."""
        terms, group_id = terms or Terms(), new_id()
        digest = hashlib.sha256((body or json_text(sweep.to_dict())).encode()).hexdigest()
        sweep, resolutions = self.plan(sweep)
        jobs = [self._job(it, group_id, place, terms) for place, it in enumerate(resolutions)]
        title = sweep.title or sweep.base.prompt[:200]
        new = NewGroup(
            group_id,
            KIND,
            json_text(sweep.to_dict()),
            owner=terms.owner,
            title=title,
            gathering="ended",
            webhook=self.told(terms),
            storage=resolutions[0].storage,
        )
        group = self.service.store.groups.create(new, jobs, key=terms.idempotency_key, digest=digest)
        ring(self.service.data.workers)
        told = dict.fromkeys(note for resolution in resolutions for note in resolution.adjustments)
        return self.view(group), tuple(told)

    def view(self, group: Group) -> SweepView:
        sweep = Sweep.from_dict(json.loads(group.spec))
        return SweepView(group, sweep, sweep.cells(), self.service.store.groups.jobs(group.id))

    def paths(self, view: SweepView) -> tuple[Path, ...]:
        return tuple(path for kind in FILES if (path := self.path(view, kind)) is not None)

    def path(self, view: SweepView, kind: str) -> Path | None:
        """Where one of FILES lies; None while there is none."""
        return self.there(view.files.get(kind))

    def _pinned(self, sweep: Sweep) -> Sweep:
        """Cells are compared, so they begin from the same noise unless that is what differs."""
        asked = sweep.base.seed
        if any(axis.name == "seed" for axis in sweep.axes) or (asked is not None and asked >= 0):
            return sweep
        seed = self.service.resolve(sweep.cells()[0].request).request.seed
        return replace(sweep, base=replace(sweep.base, seed=seed))

    def _job(self, resolution: Resolution, group_id: str, place: int, terms: Terms) -> NewJob:
        new = self.service.job_of(resolution, terms)
        return replace(new, id=new_id(), group_id=group_id, cell=place)
