"""Signals: announcements that leave the database with the transaction that makes them. Knows nothing of who listens.

PostgreSQL delivers them (LISTEN and NOTIFY). With SQLite there are none: its workers are rung by `service.bell`, and its
watchers look by themselves.
"""

from __future__ import annotations

import json

from sqlalchemy import ColumnElement, Connection, Text, cast, func, select

from wanreel.core.job import JobStatus
from wanreel.jobs.locks import is_shared
from wanreel.jobs.tables import jobs, workers

#: A job can be claimed: a JSON list of its id, the number of idle workers, its model and its LoRAs. Or it was claimed: a list
#: of its id alone. Or, empty: whatever it be, look.
LINE = "wanreel_line"
ORDERS = "wanreel_orders"  #: the worker that is named has to stop its job, or to leave
NEWS = "wanreel_news"  #: something happened to a job that its watchers should hear of soon

_LONGEST = 1000  # characters of the LoRAs' names: a word has 8,000 bytes at most


def with_statement(connection: Connection, topic: str, word: str = "") -> tuple[ColumnElement[str], ...]:
    """The same as `announce`, as a column that a statement returns which is made anyhow."""
    return (func.pg_notify(topic, word),) if is_shared(connection) else ()


def taken(connection: Connection, job_id: str) -> tuple[ColumnElement[str], ...]:
    """The same, that the job was claimed: nobody else needs to look for it."""
    return with_statement(connection, LINE, json.dumps([job_id]))


def call_out(connection: Connection, job_id: str) -> None:
    """Tell all workers of a job that can be claimed, and how many of them are idle. Nothing where it waits for others."""
    if not is_shared(connection):
        return
    busy = select(func.count()).select_from(jobs).where(jobs.c.status == JobStatus.IN_PROGRESS).scalar_subquery()
    idle = select(func.count()).select_from(workers).scalar_subquery() - busy
    word = func.json_build_array(jobs.c.id, func.greatest(idle, 1), jobs.c.model, func.left(jobs.c.adapters, _LONGEST))
    ready = (jobs.c.id == job_id, jobs.c.status == JobStatus.QUEUED, jobs.c.waits == 0)
    connection.execute(select(func.pg_notify(LINE, cast(word, Text))).where(*ready))


def announce(connection: Connection, topic: str, word: str = "") -> None:
    """Tell all who listen, when this transaction has ended well."""
    if is_shared(connection):
        connection.execute(select(func.pg_notify(topic, word)))
