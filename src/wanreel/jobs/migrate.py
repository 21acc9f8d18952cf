"""Bringing a database to the present schema. Knows nothing of what the tables mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, event, inspect, text

from wanreel.core.errors import StoreError
from wanreel.core.failpoints import Failpoints
from wanreel.host import fsync_file, replace_durably
from wanreel.jobs.locks import hold_schema
from wanreel.jobs.sqlite import SqlitePolicy, copy_database, make_engine, open_plain, writing

MIGRATIONS = Path(__file__).with_name("migrations")
#: The revision of `tables.py`. A test holds it equal to the newest file in `migrations/versions`.
HEAD = "0010"


def migrate(path: Path, policy: SqlitePolicy, folder: Path, failpoints: Failpoints) -> None:
    """Create or upgrade the tables in one transaction, with a copy of an older database made first.

    A database that is newer than the newest migration, or that is not ours, is refused and left as it is.
    """
    if folder == MIGRATIONS and revision_of(path) == HEAD:
        return
    steps = _Steps.of(folder)
    steps.refuse_newer(revision_of(path), str(path), "the backup it made beside the database")
    engine = make_engine(path, policy)
    try:
        _upgrade(engine, path, steps, failpoints)
    finally:
        engine.dispose()


def migrate_server(
    engine: Engine, name: str, folder: Path, failpoints: Failpoints, *, upgrade: bool = False
) -> str | None:
    """The same on a PostgreSQL server: creates the tables in an empty database. Returns the schema it had before.

    An older one is refused unless `upgrade` says so, as other machines may be using it right now; and no copy is made.
    """
    with engine.begin() as connection:
        found = server_revision(connection, name)
    if folder == MIGRATIONS and found == HEAD:
        return found
    steps = _Steps.of(folder)
    with engine.begin() as connection:
        hold_schema(connection)
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        found = server_revision(connection, name)
        steps.refuse_newer(found, name, "a copy from before")
        if found is not None and found != steps.head and not upgrade:
            raise StoreError(
                f"The job database {name} has schema {found}, which is older than this program's {steps.head}.",
                hint="Stop every Wanreel that uses it, make a copy (`pg_dump`), then run `wanreel db migrate`.",
            )
        steps.run(connection, failpoints)
    return found


def server_revision(connection: Connection, name: str) -> str | None:
    """The schema a PostgreSQL database has; None for one without tables. Raises StoreError for another program's."""
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables or "jobs" not in tables:
        raise StoreError(
            f"{name} is a database of another program.", hint="Give Wanreel a database of its own: `createdb wanreel`."
        )
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@dataclass(frozen=True)
class _Steps:
    """The migrations of a folder."""

    config: Any
    head: str | None
    known: frozenset[str]

    @classmethod
    def of(cls, folder: Path) -> Self:
        # Alembic takes a second to import, which only a first start or an upgrade should pay.
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        script = ScriptDirectory.from_config(config)
        known = frozenset(revision.revision for revision in script.walk_revisions())
        return cls(config, script.get_current_head(), known)

    def refuse_newer(self, found: str | None, name: str, copy: str) -> None:
        """Raises StoreError for a schema that these migrations don't know."""
        if found is not None and found not in self.known:
            raise StoreError(
                f"The job database {name} has schema {found}, which is newer than this program's {self.head}.",
                hint=f"Use the newer Wanreel that wrote it, or put back {copy}.",
            )

    def run(self, connection: Connection, failpoints: Failpoints) -> None:
        """All that are missing, in the transaction that is open."""
        from alembic import command

        def passed(*_: object) -> None:
            failpoints.hit("migrate.statement")

        event.listen(connection, "after_cursor_execute", passed)
        self.config.attributes["connection"] = connection
        command.upgrade(self.config, "head")
        failpoints.hit("migrate.before_commit")


def revision_of(path: Path) -> str | None:
    """The schema the file has; None for an empty file. Raises StoreError for a database that is not ours."""
    connection = open_plain(path)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise StoreError(
                f"{path} is a database of another program.", hint="Choose another data directory (WANREEL_DATA_DIR)."
            )
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    finally:
        connection.close()
    return None if row is None else row[0]


def _upgrade(engine: Engine, path: Path, steps: _Steps, failpoints: Failpoints) -> None:
    with writing(engine).begin() as connection:
        # Another process may have been faster; with the writer's lock held nobody can be from here on.
        found = revision_of(path)
        if found == steps.head:
            return
        if found is not None:
            _back_up(path, found)
        steps.run(connection, failpoints)
    failpoints.hit("migrate.after_commit")


def _back_up(path: Path, revision: str) -> None:
    """`wanreel.db.backup-0001` beside the database. A backup that an interrupted upgrade left is made anew."""
    temporary = path.with_name(f"{path.name}.backup.tmp")
    temporary.unlink(missing_ok=True)
    copy_database(path, temporary)
    fsync_file(temporary)
    replace_durably(temporary, path.with_name(f"{path.name}.backup-{revision}"))
