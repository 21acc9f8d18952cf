"""Signals: announcements that leave the database with the transaction that makes them. Knows nothing of who listens.

PostgreSQL delivers them (LISTEN and NOTIFY). With SQLite there are none: its workers are rung by `service.bell`, and its
watchers look by themselves.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

from wanreel.jobs.locks import is_shared

LINE = "wanreel_line"  #: a job may be there to be claimed
ORDERS = "wanreel_orders"  #: the worker that is named has to stop its job, or to leave
NEWS = "wanreel_news"  #: something happened to a job that its watchers should hear of soon


def with_statement(connection: Connection, topic: str) -> tuple[ColumnElement[str], ...]:
    """The same, as a column that a statement returns which is made anyhow."""
    return (func.pg_notify(topic, ""),) if is_shared(connection) else ()


def announce(connection: Connection, topic: str, word: str = "") -> None:
    """Tell all who listen, when this transaction has ended well."""
    if is_shared(connection):
        connection.execute(select(func.pg_notify(topic, word)))
