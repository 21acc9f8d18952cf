"""The event log of jobs. Knows nothing of what the kinds of event mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from wanreel.core.job import JobEvent
from wanreel.jobs.rows import event_of
from wanreel.jobs.tables import events, jobs


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
    if compact:
        connection.execute(delete(events).where(events.c.job_id == job_id, events.c.kind == kind, events.c.seq < seq))
    return number


def of_job(connection: Connection, job_id: str, after: int, limit: int) -> tuple[JobEvent, ...]:
    """The job's events with a seq above `after`, oldest first."""
    mine = select(events).where(events.c.job_id == job_id, events.c.seq > after).order_by(events.c.seq).limit(limit)
    return tuple(event_of(row) for row in connection.execute(mine))


def of_all(connection: Connection, after: int, limit: int) -> tuple[JobEvent, ...]:
    """Events of all jobs with a number above `after`, oldest first."""
    newer = select(events).where(events.c.number > after).order_by(events.c.number).limit(limit)
    return tuple(event_of(row) for row in connection.execute(newer))


def last_number(connection: Connection) -> int:
    """The number of the newest event; 0 before the first."""
    return connection.scalar(select(func.max(events.c.number))) or 0
