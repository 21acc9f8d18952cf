"""Database: transactions on a SQLite file and what their failures mean. Knows nothing of jobs."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from wanreel.core.errors import InsufficientStorage, StoreError
from wanreel.core.failpoints import Failpoints
from wanreel.host import free_bytes
from wanreel.jobs.ballast import Ballast
from wanreel.jobs.migrate import MIGRATIONS, migrate
from wanreel.jobs.sqlite import SqlitePolicy, check_file, create_file, fault_of, make_engine, writing
from wanreel.jobs.transactions import Calls, Fault

T = TypeVar("T")

#: Below this much free space an I/O error is taken for a full disk, as a journal that can't be created is not
#: reported as one. Bytes.
_NEARLY_FULL = 2**20


class Database:
    """One job database file, opened, checked and migrated.

    Raises StoreError where the file is damaged, newer than this program, not ours, or on a network file system.
    """

    shared = False

    def __init__(
        self,
        path: Path,
        *,
        policy: SqlitePolicy | None = None,
        failpoints: Failpoints | None = None,
        ballast: Ballast | None = None,
        migrations: Path = MIGRATIONS,
    ) -> None:
        self.path = path
        self.ballast = ballast or Ballast(path.with_name(path.name + ".ballast"))
        self._failpoints = failpoints or Failpoints()
        self._policy = policy or SqlitePolicy.for_library()
        # SQLite lets waiting processes poll; threads of one process can queue up instead. Readers must: while one thread
        # of a process reads, SQLite lets the next ones of that process in past a writer that waits in another process, so
        # readers that overlap without end would lock every writer out.
        self._writer = threading.Lock()
        self._reader = threading.Lock()
        self._broken = ""
        try:
            create_file(path)
            check_file(path)
            # No setting is applied yet: a newer database must be left as it is, its journal mode too.
            migrate(path, self._policy, migrations, self._failpoints)
        except (DBAPIError, sqlite3.Error, OSError) as exc:
            raise self._meaning(exc) from exc
        self.folder = path.parent
        self._reader_engine = make_engine(path, self._policy)
        self._writer_engine = writing(self._reader_engine)
        self.ballast.restore()

    def read(self, body: Callable[[Connection], T]) -> T:
        """Run `body` on one snapshot. It must fetch all it needs, as a reader left open holds writers up."""
        self._refuse_if_broken()
        try:
            with self._reader, self._reader_engine.begin() as connection:
                return body(connection)
        except DBAPIError as exc:
            raise self._meaning(exc) from exc

    def write(self, name: str, body: Callable[[Connection], T], *, urgent: bool = False, repeatable: bool = False) -> T:
        """Run `body` in a transaction that is on disk when this returns, or has not happened.

        `urgent` writes give up the ballast when the disk is full; others raise InsufficientStorage. After a failed read,
        write or sync the outcome is unknown: the database then refuses everything until it is opened again.
        """
        try:
            return self._write_once(name, body)
        except InsufficientStorage:
            if not (urgent and self.ballast.release()):
                raise
        return self._write_once(name, body)

    def keep_space(self) -> None:
        """Take the ballast back that a full disk cost."""
        self.ballast.restore()

    def listening(self, calls: Calls) -> AbstractContextManager[object]:
        """Nothing is announced in a file: who waits for something has to look."""
        return nullcontext()

    def close(self) -> None:
        """Close every connection. A thread that is inside `read` or `write` must have left."""
        self._reader_engine.dispose()

    def _write_once(self, name: str, body: Callable[[Connection], T]) -> T:
        self._refuse_if_broken()
        try:
            with self._writer:
                with self._writer_engine.begin() as connection:
                    self._failpoints.hit(f"{name}.begun")
                    result = body(connection)
                    self._failpoints.hit(f"{name}.before_commit")
                self._failpoints.hit(f"{name}.after_commit")
        except DBAPIError as exc:
            raise self._meaning(exc) from exc
        return result

    def _refuse_if_broken(self) -> None:
        if self._broken:
            raise StoreError(self._broken, hint="Look at the disk, then start the program again.")

    def _meaning(self, error: DBAPIError | sqlite3.Error | OSError) -> InsufficientStorage | StoreError:
        """The error of ours for a foreign one."""
        text = str(error.orig if isinstance(error, DBAPIError) else error)
        fault = Fault.BROKEN if isinstance(error, OSError) else fault_of(error)
        if fault is Fault.BROKEN and free_bytes(self.path.parent) < _NEARLY_FULL:
            fault = Fault.FULL
        if fault is Fault.FULL:
            return InsufficientStorage(f"There is no disk space left for the job database {self.path}.")
        if fault is Fault.BUSY:
            return StoreError(
                f"The job database {self.path} was locked for {self._policy.busy_seconds:g} s.",
                hint="Find the program that holds it (`lsof`), or a stopped Wanreel process.",
            )
        if fault in (Fault.BROKEN, Fault.CORRUPT):
            self._broken = f"The job database {self.path} can't be read or written: {text}."
            return StoreError(self._broken, hint="Look at the disk, then start the program again.")
        return StoreError(f"The job database {self.path} refused a statement: {text}.")
