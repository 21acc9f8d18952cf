"""Waiting: what the end of one job means for those that wait for it. Knows nothing of transactions or results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from wanreel.core.job import JobFailure, JobStatus
from wanreel.jobs import log, signals
from wanreel.jobs.tables import groups, jobs, waits

DEPENDENCY_FAILED = "dependency_failed"  #: code of a job that failed because one it waits for did

_BECAUSE = {JobStatus.FAILED: "failed", JobStatus.CANCELLED: "was cancelled"}
_HINT = "Retry that one, and this one goes on by itself."

#: Ends a job as `records.end` does.
End = Callable[[Connection, str, JobStatus, float, JobFailure], None]


def settle(connection: Connection, row: Row[Any], status: JobStatus, at: float, end: End) -> None:
    """After the end of the job in `row`: those that waited may go, or fail with it; its group is to be looked at."""
    if status is JobStatus.COMPLETED:
        _let_go(connection, row.id)
    else:
        fail_waiting(connection, row.id, _BECAUSE[status], at, end)
    if row.group_id is not None:
        looked_at = {"pending": True, "failures": 0}
        connection.execute(update(groups).where(groups.c.id == row.group_id).values(**looked_at))


def fail_waiting(connection: Connection, job_id: str, why: str, at: float, end: End) -> None:
    """Jobs that wait for one that will not come."""
    for waiting in _waiting_for(connection, job_id, JobStatus.QUEUED):
        failure = JobFailure(DEPENDENCY_FAILED, f"Job {job_id}, from which this one goes on, {why}.", _HINT)
        end(connection, waiting.id, JobStatus.FAILED, at, failure)


def revive(connection: Connection, job_id: str, at: float, untried: Mapping[str, Any]) -> None:
    """A job that was retried: those that failed with it are queued again, where they stood."""
    for waiting in _waiting_for(connection, job_id, JobStatus.FAILED):
        if waiting.error_code != DEPENDENCY_FAILED:
            continue
        back = {**untried, "status": JobStatus.QUEUED, "ended_at": None, "ended_number": None, "notes": waiting.notes}
        connection.execute(update(jobs).where(jobs.c.id == waiting.id).values(**back))
        log.append(connection, waiting.id, "queued", at, {"retry": True})
        revive(connection, waiting.id, at, untried)


def _let_go(connection: Connection, job_id: str) -> None:
    counts = select(waits.c.job_id, func.count()).where(waits.c.for_id == job_id).group_by(waits.c.job_id)
    released = connection.execute(counts.order_by(waits.c.job_id)).all()
    for waiting, count in released:
        # By what it is and not to what it should be: two that it waits for may complete at once.
        fewer = update(jobs).where(jobs.c.id == waiting, jobs.c.waits >= count).values(waits=jobs.c.waits - count)
        connection.execute(fewer)
        signals.call_out(connection, waiting)


def _waiting_for(connection: Connection, job_id: str, status: JobStatus) -> list[Row[Any]]:
    ids = select(waits.c.job_id).where(waits.c.for_id == job_id).distinct()
    mine = select(jobs).where(jobs.c.id.in_(ids), jobs.c.status == status, jobs.c.waits > 0).order_by(jobs.c.seq)
    return list(connection.execute(mine.with_for_update(key_share=True)))
