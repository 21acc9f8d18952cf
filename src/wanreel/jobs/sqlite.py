"""How SQLite is used: settings in force on every connection, transactions, error codes. Knows nothing of jobs.

Nothing outside this module names SQLite's ways; PostgreSQL's are in `postgres.py`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from wanreel.core.errors import StoreError
from wanreel.host import fsync_directory, is_network_filesystem
from wanreel.jobs.transactions import Fault

_WRITES = "wanreel_writes"

#: The first library in which two processes can write one WAL without risk of corruption (sqlite.org, "WAL-reset bug").
_SAFE_WAL = (3, 51, 3)

_SYNCHRONOUS = {"OFF": 0, "NORMAL": 1, "FULL": 2, "EXTRA": 3}


@dataclass(frozen=True, slots=True)
class SqlitePolicy:
    """The settings that decide whether an acknowledged commit survives a power loss."""

    journal_mode: str  #: "wal" or "delete"
    synchronous: str  #: "EXTRA", "FULL"; the weaker ones lose data and exist for tests
    busy_seconds: float = 30.0  #: how long a statement waits for another process's lock

    @classmethod
    def for_library(cls, version: Sequence[int] = sqlite3.sqlite_version_info) -> Self:
        """WAL with FULL where the library is safe for it, else a rollback journal with EXTRA.

        With a rollback journal the commit is the journal's deletion, and FULL leaves that deletion in the directory's
        cache: after a power loss the journal is back and rolls an acknowledged commit back. EXTRA is FULL plus a sync of
        the directory (sqlite.org/pragma.html#pragma_synchronous).
        """
        return cls("wal", "FULL") if tuple(version) >= _SAFE_WAL else cls("delete", "EXTRA")


_FAULTS = {
    sqlite3.SQLITE_FULL: Fault.FULL,
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_IOERR: Fault.BROKEN,
    sqlite3.SQLITE_CANTOPEN: Fault.BROKEN,
    sqlite3.SQLITE_READONLY: Fault.BROKEN,
    sqlite3.SQLITE_CORRUPT: Fault.CORRUPT,
    sqlite3.SQLITE_NOTADB: Fault.CORRUPT,
}


def fault_of(error: DBAPIError | sqlite3.Error) -> Fault:
    """What the error means."""
    original = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(original, "sqlite_errorcode", None)
    return Fault.OTHER if code is None else _FAULTS.get(code & 0xFF, Fault.OTHER)


def create_file(path: Path) -> None:
    """Make an empty database file that only its owner may read, unless there is one. Refuses network file systems.

    An existing file is not even opened: closing any descriptor of it would drop the locks that SQLite holds on it in
    this process (fcntl(2)).
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if is_network_filesystem(path.parent):
        raise StoreError(
            f"{path.parent} is on a network file system, where locks and syncs can't be relied on.",
            hint="Set WANREEL_DATA_DIR to a folder on a local disk; weights and outputs may stay where they are.",
        )
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        return
    fsync_directory(path.parent)


def connect(path: Path, policy: SqlitePolicy) -> sqlite3.Connection:
    """A connection with every setting of the policy in force. Raises StoreError where one does not take."""
    connection = open_plain(path, policy.busy_seconds)
    try:
        for name, value, expected in _pragmas(policy):
            connection.execute(f"PRAGMA {name}={value}").fetchall()
            row = connection.execute(f"PRAGMA {name}").fetchone()
            if row is None or row[0] != expected:
                raise StoreError(
                    f"SQLite {sqlite3.sqlite_version} did not take the setting {name}={value} for {path}: "
                    f"it reports {row and row[0]!r}.",
                    hint="Stop other programs that hold the database open, and start again.",
                )
    except BaseException:
        connection.close()
        raise
    return connection


def open_plain(path: Path, busy_seconds: float = 30.0) -> sqlite3.Connection:
    """A connection to an existing file without changing any setting kept in it."""
    # mode=rw: a database that was deleted under us must be an error and not a new empty one.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _pragmas(policy: SqlitePolicy) -> tuple[tuple[str, str | int, str | int], ...]:
    """Name, value to set, value to read back. busy_timeout comes first because the others may have to wait."""
    busy = int(policy.busy_seconds * 1000)
    return (
        ("busy_timeout", busy, busy),
        ("journal_mode", policy.journal_mode, policy.journal_mode),
        ("synchronous", policy.synchronous, _SYNCHRONOUS[policy.synchronous]),
        ("foreign_keys", "ON", 1),
        ("trusted_schema", "OFF", 0),
        ("cell_size_check", "ON", 1),
        # A statement journal in a full temporary directory would fail a write that the database has room for.
        ("temp_store", "MEMORY", 2),
    )


def make_engine(path: Path, policy: SqlitePolicy) -> Engine:
    """An engine whose transactions are those of `writing` and, for all other connections, plain reads."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=lambda: connect(path, policy),
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=-1,
    )
    event.listen(engine, "begin", _begin)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine for transactions that write: they take the writer's lock at once, so none has to be given up."""
    return engine.execution_options(**{_WRITES: True})


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def check_file(path: Path) -> None:
    """Look for damage without changing the file. Raises StoreError."""
    try:
        connection = open_plain(path)
        try:
            findings = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        finally:
            connection.close()
    except sqlite3.Error as exc:
        if fault_of(exc) is not Fault.CORRUPT:
            raise
        findings = [str(exc)]
    if findings != ["ok"]:
        raise StoreError(
            f"The job database {path} is damaged: {'; '.join(findings)}.",
            hint=f"Move it away and put a backup ({path.name}.backup-*) in its place, or start with an empty queue.",
        )


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of what is committed, made while others may read and one transaction may be open."""
    reader = open_plain(source)
    try:
        copy = sqlite3.connect(target)
        try:
            reader.backup(copy)
        finally:
            copy.close()
    finally:
        reader.close()
