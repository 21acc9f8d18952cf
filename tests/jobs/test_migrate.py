"""Schema: made, upgraded with a backup, killed at each statement (T22), refused when newer or foreign."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from jobs.places import fast_folder, new_database, posix_only
from wanreel.core.errors import StoreError
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import NewJob
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.jobs.migrate import HEAD, MIGRATIONS, revision_of
from wanreel.jobs.sqlite import SqlitePolicy, make_engine
from wanreel.jobs.tables import metadata

NEXT = '''
"""A later schema, to upgrade to."""
import sqlalchemy as sa
from alembic import op
revision = "later"
down_revision = "{head}"


def upgrade() -> None:
    op.create_table("labels", sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text))
    with op.batch_alter_table("jobs") as batch:
        batch.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="red"))
    op.execute("UPDATE jobs SET colour = 'blue' WHERE model = 'demo'")
    op.execute("INSERT INTO labels (text) SELECT colour FROM jobs")
    op.create_index("ix_jobs_colour", "jobs", ["colour"])
'''


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The folder of migrations of a later program."""
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    (folder / "versions" / "later_labels.py").write_text(NEXT.format(head=HEAD))
    return folder


def filled(folder: Path) -> tuple[Path, list[str]]:
    """A database of the present schema with some jobs."""
    path = new_database(folder)
    store = JobStore.open(path)
    ids = [store.enqueue(NewJob(f"{number}", "demo")).id for number in range(3)]
    store.close()
    return path, ids


@pytest.mark.parametrize("old", sorted(one.name[:4] for one in (MIGRATIONS / "versions").glob("0*.py"))[:-1])
def test_every_older_schema_is_upgraded_with_its_jobs(tmp_path: Path, old: str) -> None:
    then = tmp_path / "then"
    shutil.copytree(MIGRATIONS, then)
    for later in (then / "versions").glob("0*.py"):
        if later.name[:4] > old:
            later.unlink()
    path = tmp_path / "wanreel.db"
    Database(path, migrations=then).close()
    assert revision_of(path) == old
    put_job(path)
    JobStore.open(path).close()
    assert revision_of(path) == HEAD
    assert rows(path, "SELECT id FROM jobs") == [("a",)]


def put_job(path: Path) -> None:
    """A queued job, written as a program of the file's own schema would."""
    known: dict[str, object] = {"id": "a", "status": "queued", "notes": "[]"}
    needed = [(name, kind) for _, name, kind, is_needed, *_ in rows(path, "PRAGMA table_info(jobs)") if is_needed]
    values = [known.get(str(name), "" if kind == "TEXT" else 0) for name, kind in needed]
    connection = sqlite3.connect(path)
    with connection:
        names, marks = ", ".join(str(name) for name, _ in needed), ", ".join("?" * len(needed))
        connection.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", values)
    connection.close()


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    engine = make_engine(new_database(tmp_path), SqlitePolicy.for_library())
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_head_is_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_opening_again_needs_no_alembic(tmp_path: Path) -> None:
    path, _ = filled(tmp_path)
    script = (
        "import sys, pathlib; from wanreel.jobs import JobStore;"
        "JobStore.open(pathlib.Path(sys.argv[1])).close(); sys.exit('alembic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 0


def test_upgrade_keeps_the_jobs_and_makes_a_backup(tmp_path: Path, newer: Path) -> None:
    path, ids = filled(tmp_path)
    Database(path, migrations=newer).close()
    assert revision_of(path) == "later"
    assert rows(path, "SELECT id, colour FROM jobs ORDER BY seq") == [(job_id, "blue") for job_id in ids]
    backup = path.with_name(f"wanreel.db.backup-{HEAD}")
    assert revision_of(backup) == HEAD
    assert rows(backup, "SELECT id FROM jobs ORDER BY seq") == [(job_id,) for job_id in ids]


def upgrade_in_child(path: Path, migrations: Path, fault: str) -> int:
    """The wait status of a process that upgrades; forked, because a new interpreter a statement would take minutes."""
    pid = os.fork()
    if pid == 0:
        try:
            Database(path, migrations=migrations, failpoints=Failpoints(fault)).close()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """In memory where there is one: what is killed leaves what it gave to the kernel, so nothing has to reach a disk."""
    folder = Path(tempfile.mkdtemp(dir=fast_folder()))
    yield folder
    shutil.rmtree(folder)


@posix_only
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside xdist's threads
@pytest.mark.parametrize(
    ("begun", "stride"), [("empty", 7), ("filled", 1), pytest.param("empty", 1, marks=pytest.mark.deep)]
)
def test_upgrade_killed_at_each_statement(fast_path: Path, newer: Path, begun: str, stride: int) -> None:
    """An empty database goes through all migrations there are: each seventh statement of them, and all in the long form."""
    number = 0
    for number in range(1, 400, stride):
        folder = fast_path / str(number)
        folder.mkdir()
        ids: list[str] = []
        if begun == "filled":
            path, ids = filled(folder)
        else:
            path = folder / "wanreel.db"
        before = revision_of(path) if path.exists() else None
        status = upgrade_in_child(path, newer, f"migrate.statement:kill@{number}")
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert revision_of(path) == before, "a half upgrade is visible"
        Database(path, migrations=newer).close()
        assert revision_of(path) == "later"
        assert rows(path, "SELECT id, colour FROM jobs ORDER BY seq") == [(job_id, "blue") for job_id in ids]
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    assert number > 8, "the failpoint is not passed at each statement"


@posix_only
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside xdist's threads
@pytest.mark.parametrize("fault", ["migrate.before_commit", "migrate.after_commit"])
def test_upgrade_killed_around_the_commit(tmp_path: Path, newer: Path, fault: str) -> None:
    path, ids = filled(tmp_path)
    assert os.WIFSIGNALED(upgrade_in_child(path, newer, f"{fault}:kill"))
    assert revision_of(path) == (HEAD if fault == "migrate.before_commit" else "later")
    Database(path, migrations=newer).close()
    assert rows(path, "SELECT id, colour FROM jobs ORDER BY seq") == [(job_id, "blue") for job_id in ids]


def test_a_newer_database_is_refused_and_left_as_it_is(tmp_path: Path, newer: Path) -> None:
    path, _ = filled(tmp_path)
    Database(path, migrations=newer).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="newer") as refused:
        JobStore.open(path)
    assert "backup" in refused.value.hint
    assert path.read_bytes() == before


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wanreel.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        JobStore.open(path)
    assert path.read_bytes() == before


def test_processes_that_start_together_upgrade_once(tmp_path: Path) -> None:
    path = tmp_path / "wanreel.db"
    script = "import sys, pathlib; from wanreel.jobs import JobStore; JobStore.open(pathlib.Path(sys.argv[1])).close()"
    together = [subprocess.Popen([sys.executable, "-c", script, str(path)]) for _ in range(3)]
    assert [process.wait() for process in together] == [0, 0, 0]
    assert revision_of(path) == HEAD
