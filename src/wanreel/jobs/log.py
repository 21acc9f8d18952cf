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
#: Kinds of which a job keeps the newest event only.
_COMPACT = ("step", "upload", "moved", "edited")


def append(
    connection: Connection,
    job_id: str,
    kind: str,
    at: float,
    data: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> int:
    """Record an event, with the columns of the job that change by it. Returns its number."""
    counted = update(jobs).where(jobs.c.id == job_id).values(last_event=jobs.c.last_event + 1, **(changes or {}))
    seq = connection.execute(counted.returning(jobs.c.last_event)).scalar_one()
    number = write(connection, job_id, seq, kind, at, data)
    if kind in _TO_THE_LINE:
        signals.call_out(connection, job_id)
    if kind in _COMPACT:
        connection.execute(delete(events).where(events.c.job_id == job_id, events.c.kind == kind, events.c.seq < seq))
    return number


def write(
    connection: Connection, job_id: str, seq: int, kind: str, at: float, data: Mapping[str, Any] | None = None
) -> int:
    """Record the event that has this `seq`, which its job counts already."""
    row = insert(events).values(job_id=job_id, seq=seq, kind=kind, data=text_of(data or {}), at=at)
    # Steps are many; whoever watches them looks by himself.
    news = () if kind == "step" else signals.with_statement(connection, signals.NEWS)
    if kind == "claimed":
        news += signals.taken(connection, job_id)
    return connection.execute(row.returning(events.c.number, *news)).one().number


def text_of(data: Mapping[str, Any]) -> str:
    """What an event tells, as it is kept. Raises ValueError for what JSON can't hold."""
    return json.dumps(dict(data), ensure_ascii=False, allow_nan=False)


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
