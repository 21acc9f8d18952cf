"""Copying a job database from SQLite to PostgreSQL, whole or not at all. Knows nothing of what the rows mean.

Workers are not copied: they are processes of the old place. A job that one of them held is found without its holder and put
back in line, to go on from its last checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, Table, func, insert, select, text, update

from wanreel.core.errors import StoreError
from wanreel.jobs import locks
from wanreel.jobs.database import Database
from wanreel.jobs.leases import Leases
from wanreel.jobs.liveness import Liveness
from wanreel.jobs.postgres import PostgresDatabase
from wanreel.jobs.tables import metadata, queue, workers

_AT_ONCE = 500  # rows
_COPIED = tuple(table for table in metadata.sorted_tables if table is not workers)


def copy_jobs(source: Path, target: str) -> Mapping[str, int]:
    """Copy the SQLite file `source` into the empty database at the URL `target`, and compare. Returns rows by table.

    Raises StoreError when the target holds anything, a worker still uses the source, or a row does not arrive as it was.
    """
    if not source.is_file():
        raise StoreError(f"There is no job database {source}.", hint="Say where it is: --from sqlite:PATH.")
    old = Database(source)
    try:
        _refuse_if_used(old, source.parent / "workers")
        new = PostgresDatabase(target, source.parent, patience=5.0)
        try:
            counts = old.read(lambda reader: new.write("copy", lambda writer: _copy(reader, writer, new.name)))
            _compare(old, new)
        finally:
            new.close()
    finally:
        old.close()
    return counts


def _refuse_if_used(old: Database, folder: Path) -> None:
    liveness = Liveness(folder)
    living = sorted(name for name in Leases(old, lambda: 0.0).known() if liveness.is_alive(name))
    if living:
        raise StoreError(
            f"Worker {living[0]} still works on {old.path}.", hint="Stop `wanreel serve` and its workers first."
        )


def _copy(reader: Connection, writer: Connection, name: str) -> dict[str, int]:
    locks.hold_schema(writer)
    for table in (*_COPIED, workers):
        if table is not queue and writer.execute(select(table).limit(1)).first() is not None:
            raise StoreError(f"{name} is not empty: its table {table.name} has rows.", hint="Copy into a new database.")
    counts: dict[str, int] = {}
    for table in _COPIED:
        counts[table.name] = _copy_table(reader, writer, table)
        _continue_numbers(reader, writer, table)
    return counts


def _copy_table(reader: Connection, writer: Connection, table: Table) -> int:
    count = 0
    for rows in reader.execute(select(table).order_by(*table.primary_key)).partitions(_AT_ONCE):
        values = [dict(row._mapping) for row in rows]  # pyright: ignore[reportPrivateUsage] - SQLAlchemy's public name
        if table is queue:
            writer.execute(update(queue).values(**values[0]))
        else:
            writer.execute(insert(table), values)
        count += len(values)
    return count


def _continue_numbers(reader: Connection, writer: Connection, table: Table) -> None:
    """The next row gets a number that was never given out, that of a deleted row included."""
    column = table.primary_key.columns[0]
    if len(table.primary_key.columns) > 1 or not isinstance(column.type, BigInteger | Integer) or table is queue:
        return
    given = text("SELECT seq FROM sqlite_sequence WHERE name = :name")
    last = reader.execute(given, {"name": table.name}).scalar() or reader.scalar(select(func.max(column))) or 0
    if last:
        writer.execute(select(func.setval(func.pg_get_serial_sequence(table.name, column.name), last)))


def _compare(old: Database, new: PostgresDatabase) -> None:
    for table in _COPIED:
        there, here = (it.read(lambda c, table=table: _digest(c, table)) for it in (old, new))
        if there != here:
            raise StoreError(
                f"Table {table.name} did not arrive as it was.", hint="Drop the new database and copy again."
            )


def _digest(connection: Connection, table: Table) -> str:
    """Of every row, in an order that both databases agree on."""
    rows = connection.execute(select(table))
    return hashlib.sha256("\n".join(sorted(_lines(rows))).encode()).hexdigest()


def _lines(rows: Any) -> Iterator[str]:
    for row in rows:
        values = (it.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(it, str) else it for it in row)
        yield hashlib.sha256(repr(tuple(values)).encode()).hexdigest()
