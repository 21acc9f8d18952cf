"""History: how long finished jobs took. Knows nothing of estimates."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from wanreel.core.job import JobStatus, Outcome
from wanreel.core.measures import Measures
from wanreel.jobs.tables import attempts, jobs


def measured(connection: Connection, model: str, limit: int) -> tuple[tuple[str, Measures], ...]:
    """Requests and measures of the attempts that completed jobs of this model, newest first."""
    # By acceptance and not by end: that order is in the library's index, so that no request is read in vain.
    done = jobs.c.status == JobStatus.COMPLETED
    rows = connection.execute(
        select(jobs.c.request, attempts.c.measures)
        .join(attempts, (attempts.c.job_id == jobs.c.id) & (attempts.c.number == jobs.c.attempt))
        .where(done, jobs.c.model == model, attempts.c.outcome == Outcome.COMPLETED)
        .order_by(jobs.c.seq.desc())
        .limit(limit)
    )
    found = ((request, Measures.from_json(text)) for request, text in rows)
    return tuple((request, measures) for request, measures in found if measures is not None)


def run_seconds(connection: Connection) -> float:
    """Seconds that workers spent on the jobs that are kept, over all their attempts."""
    return float(connection.scalar(select(func.coalesce(func.sum(attempts.c.seconds), 0.0))) or 0.0)
