"""The event log of jobs. Knows nothing of what the kinds of event mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from wanreel.core.job import JobEvent
from wanreel.jobs import locks, signals
from wanreel.jobs.rows import event_of
from wanreel.jobs.tables import events, jobs

#: Kinds of events after which a worker may find a job.
_TO_THE_LINE = ("queued", "requeued")


def append(
    connection: Connection,
    job_id: str,
    kind: str,
    at: float,
    data: Mapping[str, Any] | None = None,
    *,
    compact: bool = False,
) -> int:
    """Record an event and return its number. A compact event takes the place of the job's earlier ones of its kind."""
    counter = update(jobs).where(jobs.c.id == job_id).values(last_event=jobs.c.last_event + 1)
    seq = connection.execute(counter.returning(jobs.c.last_event)).scalar_one()
    text = json.dumps(dict(data or {}), ensure_ascii=False, allow_nan=False)
    row = insert(events).values(job_id=job_id, seq=seq, kind=kind, data=text, at=at)
    number = connection.execute(row.returning(events.c.number)).scalar_one()
    if kind in _TO_THE_LINE:
        signals.announce(connection, signals.LINE)
    if kind != "step":  # steps are many; whoever watches them looks by himself
        signals.announce(connection, signals.NEWS)
    if compact:
        connection.execute(delete(events).where(events.c.job_id == job_id, events.c.kind == kind, events.c.seq < seq))
    return number


def of_job(connection: Connection, job_id: str, after: int, limit: int) -> tuple[JobEvent, ...]:
    """The job's events with a seq above `after`, oldest first."""
    mine = select(events).where(events.c.job_id == job_id, events.c.seq > after).order_by(events.c.seq).limit(limit)
    return tuple(event_of(row) for row in connection.execute(mine))


def of_all(connection: Connection, after: int, settled: int, limit: int) -> tuple[JobEvent, ...]:
    """Events of all jobs with a number above `after` and up to `settled`, oldest first."""
    newer = select(events).where(events.c.number > after, events.c.number <= settled)
    return tuple(event_of(row) for row in connection.execute(newer.order_by(events.c.number).limit(limit)))


def settled(connection: Connection) -> int:
    """The number up to which all events are there, or will be to a later transaction; 0 before the first."""
    number = locks.settled(connection)
    return (connection.scalar(select(func.max(events.c.number))) or 0) if number is None else number
