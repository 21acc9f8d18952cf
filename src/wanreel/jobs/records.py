"""Single steps on one job's rows, shared by both faces of the store. Knows nothing of transactions."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, select, update

from wanreel.core.errors import IllegalTransition, JobNotFound
from wanreel.core.job import ArtifactRef, Attempt, Job, JobFailure, JobStatus
from wanreel.jobs import log, outbox, signals, uploads, waiting
from wanreel.jobs.rows import artifact_of, attempt_of, failure_columns, job_of
from wanreel.jobs.tables import artifacts, attempts, jobs, queue


def find(connection: Connection, job_id: str) -> Row[Any]:
    """The job's row. Raises JobNotFound."""
    return _found(connection, job_id, select(jobs))


def hold(connection: Connection, job_id: str) -> Row[Any]:
    """The same, and nobody else changes the job until this transaction ends."""
    return _found(connection, job_id, select(jobs).with_for_update(key_share=True))


def _found(connection: Connection, job_id: str, rows: Select[Any]) -> Row[Any]:
    row = connection.execute(rows.where(jobs.c.id == job_id)).first()
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}.", hint="List them with `wanreel jobs`.")
    return row


def find_queued(connection: Connection, job_id: str, action: str) -> Row[Any]:
    """The same as `hold`, for what can be done to queued jobs only. Raises IllegalTransition."""
    row = hold(connection, job_id)
    if row.status != JobStatus.QUEUED:
        raise illegal(row, action)
    return row


def illegal(row: Row[Any], action: str) -> IllegalTransition:
    """The error for doing `action` to a job that is not in a state for it."""
    return IllegalTransition(f"Job {row.id} is {row.status.replace('_', ' ')}, so it can't be {action}.")


def change(connection: Connection, job_id: str, **values: Any) -> None:
    """Set columns of the job."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def reread(connection: Connection, job_id: str) -> Job:
    """The job as it is now within this transaction."""
    return job_of(find(connection, job_id))


def end(
    connection: Connection,
    job_id: str,
    status: JobStatus,
    at: float,
    failure: JobFailure | None = None,
    *,
    result_sha256: str | None = None,
) -> None:
    """Put the job into a terminal state, and say so in its log and to whoever asked to be told."""
    data = {"code": failure.code, "message": failure.message, "hint": failure.hint} if failure else {}
    ended = {
        "status": status,
        "ended_at": at,
        "worker": None,
        "cancel_requested": status is JobStatus.CANCELLED,
        **failure_columns(failure),
        **({} if result_sha256 is None else {"result_sha256": result_sha256}),
    }
    number = log.append(connection, job_id, str(status), at, data)
    changed = update(jobs).where(jobs.c.id == job_id).values(**ended, ended_number=number)
    row = connection.execute(changed.returning(*jobs.c)).one()
    outbox.announce(connection, row, status, at, data)
    if status is JobStatus.COMPLETED:
        uploads.announce(connection, job_id, at)
    waiting.settle(connection, row, status, at, end)


def ask_to_stop(connection: Connection, row: Row[Any], at: float) -> None:
    """Have the worker of a running job hear that it is to stop. Twice is no fault."""
    if not row.cancel_requested:
        log.append(connection, row.id, "cancel_requested", at, changes={"cancel_requested": True})
        signals.announce(connection, signals.ORDERS, row.worker)


def attempts_of(connection: Connection, job_id: str) -> tuple[Attempt, ...]:
    """The job's attempts, oldest first."""
    mine = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
    return tuple(attempt_of(row) for row in connection.execute(mine))


def artifacts_of(connection: Connection, job_id: str) -> tuple[ArtifactRef, ...]:
    """The job's files, by kind."""
    mine = select(artifacts).where(artifacts.c.job_id == job_id).order_by(artifacts.c.kind)
    return tuple(artifact_of(row) for row in connection.execute(mine))


def remove(connection: Connection, job_id: str, at: float) -> tuple[ArtifactRef, ...]:
    """Delete the job with all its rows. Returns its files, for the caller to delete afterwards."""
    files = artifacts_of(connection, job_id)
    waiting.fail_waiting(connection, job_id, "was deleted", at, end)
    outbox.forget(connection, job_id)
    connection.execute(delete(jobs).where(jobs.c.id == job_id))
    return files


def queue_row(connection: Connection) -> Row[Any]:
    """The one row with the state of the queue."""
    return connection.execute(select(queue)).one()


def digest(text: str) -> str:
    """By what equal requests are found."""
    return hashlib.sha256(text.encode()).hexdigest()
