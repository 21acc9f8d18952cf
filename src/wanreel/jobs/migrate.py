"""Bringing a database to the present schema. Knows nothing of what the tables mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from wanreel.core.errors import StoreError
from wanreel.core.failpoints import Failpoints
from wanreel.host import fsync_file, replace_durably
from wanreel.jobs.sqlite import SqlitePolicy, copy_database, make_engine, open_plain, writing

MIGRATIONS = Path(__file__).with_name("migrations")
#: The revision of `tables.py`. A test holds it equal to the newest file in `migrations/versions`.
HEAD = "0006"


def migrate(path: Path, policy: SqlitePolicy, folder: Path, failpoints: Failpoints) -> None:
    """Create or upgrade the tables in one transaction, with a copy of an older database made first.

    A database that is newer than the newest migration, or that is not ours, is refused and left as it is.
    """
    if folder == MIGRATIONS and revision_of(path) == HEAD:
        return
    # Alembic takes a second to import, which only a first start or an upgrade should pay.
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    found = revision_of(path)
    if found is not None and found not in known:
        raise StoreError(
            f"The job database {path} has schema {found}, which is newer than this program's {script.get_current_head()}.",
            hint="Use the newer Wanreel that wrote it, or put back the backup it made beside the database.",
        )
    engine = make_engine(path, policy)
    try:
        _upgrade(engine, path, config, script.get_current_head(), failpoints)
    finally:
        engine.dispose()


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


def _upgrade(engine: Engine, path: Path, config: Any, head: str | None, failpoints: Failpoints) -> None:
    from alembic import command

    def passed(*_: object) -> None:
        failpoints.hit("migrate.statement")

    with writing(engine).begin() as connection:
        # Another process may have been faster; with the writer's lock held nobody can be from here on.
        found = revision_of(path)
        if found == head:
            return
        if found is not None:
            _back_up(path, found)
        event.listen(connection, "after_cursor_execute", passed)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        failpoints.hit("migrate.before_commit")
    failpoints.hit("migrate.after_commit")


def _back_up(path: Path, revision: str) -> None:
    """`wanreel.db.backup-0001` beside the database. A backup that an interrupted upgrade left is made anew."""
    temporary = path.with_name(f"{path.name}.backup.tmp")
    temporary.unlink(missing_ok=True)
    copy_database(path, temporary)
    fsync_file(temporary)
    replace_durably(temporary, path.with_name(f"{path.name}.backup-{revision}"))
