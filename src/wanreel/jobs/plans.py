"""Runs under memory plans, as they are remembered for the next ones. Knows nothing of how plans are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from sqlalchemy import Connection, Row, delete, insert, select

from wanreel.core.memory_plan import PlanRun
from wanreel.jobs.tables import plan_runs
from wanreel.jobs.transactions import Transactions

#: Of one model on one kind of machine; older ones say little, as software changes.
_KEPT = 200
_MAPPINGS = ("predicted", "measured", "weights", "activations")


class PlanRuns:
    """The remembered runs of one store."""

    def __init__(self, database: Transactions, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def runs(self, machine: str, model: str) -> tuple[PlanRun, ...]:
        """Newest first. `machine`: the GPU's name, empty for a CPU."""
        wanted = select(plan_runs).where(plan_runs.c.machine == machine, plan_runs.c.model == model)
        newest = wanted.order_by(plan_runs.c.seq.desc()).limit(_KEPT)
        rows = self._database.read(lambda c: c.execute(newest).all())
        return tuple(run for row in rows if (run := _run_of(row)) is not None)

    def newest(self, limit: int = 100) -> tuple[PlanRun, ...]:
        """Of all models and machines."""
        wanted = select(plan_runs).order_by(plan_runs.c.seq.desc()).limit(limit)
        rows = self._database.read(lambda c: c.execute(wanted).all())
        return tuple(run for row in rows if (run := _run_of(row)) is not None)

    def add(self, run: PlanRun) -> None:
        """Remember `run`, and forget the oldest ones of its kind."""
        stages = {name: dict(getattr(run, name)) for name in _MAPPINGS} | {"steps": run.steps}
        row = {
            "machine": run.machine,
            "model": run.model,
            "size": run.size,
            "plan": run.plan,
            "failed": run.failed,
            "stages": json.dumps(stages, separators=(",", ":")),
            "at": self._clock(),
        }

        def body(c: Connection) -> None:
            c.execute(insert(plan_runs).values(**row))
            mine = (plan_runs.c.machine == run.machine, plan_runs.c.model == run.model)
            kept = select(plan_runs.c.seq).where(*mine).order_by(plan_runs.c.seq.desc()).limit(1).offset(_KEPT)
            oldest = c.execute(kept).scalar()
            if oldest is not None:
                c.execute(delete(plan_runs).where(*mine, plan_runs.c.seq <= oldest))

        self._database.write("plan_run", body)


def _run_of(row: Row[Any]) -> PlanRun | None:
    """None for what another version wrote."""
    try:
        stages = cast("dict[str, Any]", json.loads(row.stages))
        mappings = {name: stages[name] for name in _MAPPINGS}
        steps = cast("Any", tuple(stages.get("steps", ())))
        return PlanRun(row.machine, row.model, row.size, row.plan, row.failed, steps=steps, **mappings)
    except (ValueError, KeyError, TypeError):
        return None
