"""A step's progress on PostgreSQL, in one statement that is a transaction by itself. Knows nothing of leases.

Steps are most of what workers write. One by one the six statements of `Leases.heartbeat` cost server and worker three times
as much, most of it for going to and fro. Done twice it does no harm: the second event takes the place of the first.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Connection,
    Float,
    Integer,
    Row,
    Text,
    bindparam,
    case,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from wanreel.core.job import JobStatus
from wanreel.jobs import locks
from wanreel.jobs.tables import events, jobs, workers


def step(connection: Connection, job_id: str, attempt: int, **values: Any) -> Row[Any] | None:
    """Record stage, stage_share, step, total_steps, saved_step, and one event in the place of the one before.

    Further values: `data`, JSON text of the event, and `at`. Returns cancel_requested and drain; None, and nothing is
    recorded, where the attempt is not the one in force.
    """
    return connection.execute(_STEP, {"job": job_id, "number": attempt, **values}).first()


def _statement() -> Any:
    # The lock of `locks.enter` is taken before the job's row is found, and the event's number is drawn after that.
    entered = locks.ENTER.columns(column("entered", Boolean)).cte("entered")
    entered = entered.prefix_with("MATERIALIZED")
    saved = bindparam("saved_step", type_=Integer)
    changed = (
        update(jobs)
        .where(jobs.c.id == bindparam("job", type_=Text), jobs.c.status == JobStatus.IN_PROGRESS)
        .where(jobs.c.attempt == bindparam("number", type_=Integer), select(entered.c.entered).scalar_subquery())
        .values(
            {name: bindparam(name, type_=jobs.c[name].type) for name in ("stage", "stage_share", "step", "total_steps")}
        )
        .values(
            last_event=jobs.c.last_event + 1,
            saved_step=func.greatest(jobs.c.saved_step, saved),
            attempts_charged=case((saved > jobs.c.saved_step, 1), else_=jobs.c.attempts_charged),
        )
        .returning(jobs.c.id, jobs.c.last_event, jobs.c.worker, jobs.c.cancel_requested)
        .cte("changed")
    )
    event = (
        changed.c.id,
        changed.c.last_event,
        literal("step"),
        bindparam("data", type_=Text),
        bindparam("at", type_=Float),
    )
    told = insert(events).from_select(["job_id", "seq", "kind", "data", "at"], select(*event)).cte("told")
    older = (events.c.job_id == changed.c.id, events.c.kind == "step", events.c.seq < changed.c.last_event)
    gone = delete(events).where(*older).cte("gone")
    worker = changed.outerjoin(workers, workers.c.name == changed.c.worker)
    return select(changed.c.cancel_requested, workers.c.drain).select_from(worker).add_cte(told, gone)


_STEP = _statement()
