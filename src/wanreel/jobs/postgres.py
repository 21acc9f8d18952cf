"""How PostgreSQL is used: connections, transactions, what its errors mean. Knows nothing of jobs.

A server that restarts or fails over costs time and nothing else: reads and writes wait for it up to `patience`. Where the
connection broke while a transaction ended, the server is asked afterwards how it ended, so that nothing is done twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from wanreel.core.errors import (
    InsufficientStorage,
    MissingDependency,
    SettingsError,
    StoreError,
    StoreUnavailable,
    WanreelError,
)
from wanreel.core.failpoints import Failpoints
from wanreel.jobs import locks
from wanreel.jobs.migrate import MIGRATIONS, migrate_server
from wanreel.jobs.notices import Listener
from wanreel.jobs.transactions import Calls, Fault

T = TypeVar("T")

OLDEST = 13  #: major version of the server: the first with pg_xact_status of 64-bit numbers

#: By SQLSTATE, whole or its class (postgresql.org/docs/current/errcodes-appendix.html).
_FAULTS = {
    "08": Fault.GONE,
    "57P01": Fault.GONE,  # the administrator ends the connection, or the server stops
    "57P02": Fault.GONE,
    "57P03": Fault.GONE,  # it is starting
    "57P05": Fault.GONE,
    "53300": Fault.GONE,  # it has no connection left
    "25006": Fault.GONE,  # it became a standby, so another one is the primary now
    "25P03": Fault.GONE,  # this process was stopped in the middle of a transaction, which was undone
    "40001": Fault.AGAIN,
    "40P01": Fault.AGAIN,
    "53100": Fault.FULL,
    "55P03": Fault.BUSY,
    "57014": Fault.BUSY,
    "58030": Fault.BROKEN,
    "XX001": Fault.CORRUPT,
    "XX002": Fault.CORRUPT,
}
_TRIES = 20  # of a transaction that others stood in the way of
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0  # seconds between looks whether the server is back

_OUTCOME = text("SELECT pg_xact_status(CAST(:xid AS xid8))")

#: A half-open connection is noticed within 25 s; a process that stops in mid-transaction blocks others for 60 s at most.
_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": "wanreel",
}
_SETTINGS = (
    "SELECT set_config('lock_timeout', '30s', false), set_config('idle_in_transaction_session_timeout', '60s', false),"
    " set_config('statement_timeout', '120s', false),"
    # A job that was accepted must survive the server's power loss. What is stronger than "on" is left as it is.
    " set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
    " THEN 'on' ELSE current_setting('synchronous_commit') END, false)"
)


@dataclass
class _Unanswered(Exception):
    """The connection broke while the transaction ended."""

    xid: str
    result: Any
    error: DBAPIError


class PostgresDatabase:
    """The job database on a PostgreSQL server, opened and checked. An empty one gets its tables.

    Raises SettingsError for an address that makes no sense, StoreUnavailable where nobody answers, StoreError for a
    database that is older or newer than this program, or another program's.
    """

    shared = True

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        patience: float = 5.0,
        failpoints: Failpoints | None = None,
        migrations: Path = MIGRATIONS,
    ) -> None:
        self.folder = folder
        self.patience = patience  #: seconds that a call waits for a server that is away
        self._failpoints = failpoints or Failpoints()
        self._url = postgres_url(url)
        self.name = shown(self._url)
        self.engine = make_engine(self._url)
        self._alone = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._readers = self.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        try:
            self._insist(lambda: migrate_server(self.engine, self.name, migrations, self._failpoints))
        except BaseException:
            self.engine.dispose()
            raise

    def read(self, body: Callable[[Connection], T]) -> T:
        """Run `body` on one snapshot."""

        def once() -> T:
            with self._readers.begin() as connection:
                return body(connection)

        return self._insist(once)

    def write(self, name: str, body: Callable[[Connection], T], *, urgent: bool = False, repeatable: bool = False) -> T:
        """Run `body` in a transaction that is durable when this returns, or has not happened.

        Raises StoreUnavailable when the server is away for longer than `patience`, InsufficientStorage when its disk is full.
        """
        once = self._write_alone if repeatable else self._write_once
        return self._insist(lambda: once(name, body))

    def keep_space(self) -> None:
        """The server's disk is not ours to keep."""

    def listening(self, calls: Calls) -> AbstractContextManager[object]:
        """While it is open, what others announce is called here, from a thread of its own."""
        return Listener(self._url, calls)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _write_once(self, name: str, body: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection, connection.begin() as transaction:
            xid = locks.enter(connection)
            self._failpoints.hit(f"{name}.begun")
            result = body(connection)
            self._failpoints.hit(f"{name}.before_commit")
            try:
                transaction.commit()
            except DBAPIError as exc:
                if fault_of(exc) is not Fault.GONE:
                    raise
                raise _Unanswered(xid, result, exc) from exc
        self._failpoints.hit(f"{name}.after_commit")
        return result

    def _write_alone(self, name: str, body: Callable[[Connection], T]) -> T:
        """The statement is a transaction by itself, which the server ends: nothing is sent to begin and to end it."""
        with self._alone.connect() as connection:
            self._failpoints.hit(f"{name}.begun")
            self._failpoints.hit(f"{name}.before_commit")
            result = body(connection)
        self._failpoints.hit(f"{name}.after_commit")
        return result

    def _insist(self, once: Callable[[], T]) -> T:
        """Call it until it is done, or fails for a reason that waiting does not cure."""
        until, waits, tries = time.monotonic() + self.patience, _waits(), 0
        while True:
            try:
                return once()
            except _Unanswered as lost:
                if self._happened(lost, until):
                    return lost.result
            except PoolTimeout as exc:
                raise self._gone(exc) from exc
            except DBAPIError as exc:
                fault, tries = fault_of(exc), tries + 1
                if fault is Fault.AGAIN and tries < _TRIES:
                    continue
                if fault is not Fault.GONE or time.monotonic() >= until:
                    raise self._meaning(exc, fault) from exc
                time.sleep(next(waits))

    def _happened(self, lost: _Unanswered, until: float) -> bool:
        """Whether a transaction whose end was not heard did take place. Raises StoreUnavailable while that is unknown."""
        for wait in _waits():
            try:
                with self._readers.begin() as connection:
                    outcome = connection.execute(_OUTCOME, {"xid": lost.xid}).scalar_one()
                if outcome in ("committed", "aborted"):
                    return outcome == "committed"
            except DBAPIError as exc:
                if fault_of(exc) is not Fault.GONE:
                    # A standby that never heard of it took over.
                    raise self._gone(exc) from exc
            if time.monotonic() >= until:
                break
            time.sleep(wait)
        raise self._gone(lost.error) from lost.error

    def _gone(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(f"The job database {self.name} can't be reached: {_words(error)}.")

    def _meaning(self, error: DBAPIError, fault: Fault) -> WanreelError:
        """The error of ours for a foreign one."""
        said = _words(error)
        if fault is Fault.GONE:
            return self._gone(error)
        if fault is Fault.FULL:
            return InsufficientStorage(f"There is no disk space left for the job database {self.name}.")
        if fault in (Fault.BUSY, Fault.AGAIN):
            return StoreUnavailable(
                f"The job database {self.name} was locked: {said}.",
                hint="Look for long transactions in pg_stat_activity.",
            )
        if fault in (Fault.BROKEN, Fault.CORRUPT):
            return StoreError(f"The job database {self.name} is damaged: {said}.", hint="Look at the server's log.")
        return StoreError(f"The job database {self.name} refused a statement: {said}.")


def postgres_url(url: str) -> URL:
    """`postgresql://user:password@host/database` as SQLAlchemy wants it. Raises SettingsError, without the password."""
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise SettingsError("database_url: this is no address of a database.", hint=_HINT) from exc
    if parsed.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise SettingsError(f"database_url: {parsed.drivername} is not supported.", hint=_HINT)
    return parsed.set(drivername="postgresql+psycopg")


_HINT = "It looks like postgresql://user:password@host:5432/wanreel; leave it empty for SQLite in the data directory."


def shown(url: URL) -> str:
    """The address as it may be seen: without password and options."""
    return URL.create("postgresql", url.username, None, url.host, url.port, url.database).render_as_string()


def make_engine(url: URL) -> Engine:
    """An engine whose connections have our settings. Raises MissingDependency."""
    try:
        engine = create_engine(url, pool_size=4, max_overflow=28, pool_timeout=30.0, connect_args=_CONNECT)
    except ImportError as exc:
        raise MissingDependency(
            "PostgreSQL takes a package that is not installed.", hint="pip install 'wanreel[postgres]'"
        ) from exc
    event.listen(engine, "connect", _prepare)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    """Settings for the whole session; NUL, which PostgreSQL's text can't hold, is replaced."""
    from psycopg.types.string import StrDumper, StrDumperVarchar

    class Text(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))

    class Varchar(StrDumperVarchar):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))

    connection.adapters.register_dumper(str, Varchar)
    connection.adapters.register_dumper(str, Text)
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS)
    connection.commit()


def fault_of(error: DBAPIError) -> Fault:
    """What the error means."""
    code = getattr(error.orig, "sqlstate", None)
    if code is None:
        # Without a code it is the driver that speaks: no connection, or one that broke.
        return Fault.GONE if type(error.orig).__name__ in ("OperationalError", "ConnectionTimeout") else Fault.OTHER
    return _FAULTS.get(code) or _FAULTS.get(code[:2], Fault.OTHER)


def _words(error: Exception) -> str:
    """What the server or the driver said, on one line."""
    said = str(error.orig if isinstance(error, DBAPIError) else error)
    return " ".join(said.split()).rstrip(".?")


def _waits() -> Iterator[float]:
    wait = _FIRST_WAIT
    while True:
        yield wait
        wait = min(2 * wait, _LONGEST_WAIT)
