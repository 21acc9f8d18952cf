"""Schema, copy and checkup on PostgreSQL, and `wanreel db`."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner
from sqlalchemy import text

from jobs.places import new_database, open_place, posix_only
from jobs.postgres_server import Server
from wanreel.core.errors import StoreError
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import ArtifactRef, JobFailure, JobStatus, NewJob, Progress
from wanreel.frontends.cli.db import db
from wanreel.jobs import JobStore, Liveness
from wanreel.jobs.checkup import check_server, migrate_url
from wanreel.jobs.database import Database
from wanreel.jobs.migrate import HEAD, MIGRATIONS
from wanreel.jobs.postgres import PostgresDatabase, make_engine, postgres_url
from wanreel.jobs.tables import metadata
from wanreel.jobs.transfer import copy_jobs

VERSIONS = sorted(one.name[:4] for one in (MIGRATIONS / "versions").glob("0*.py"))


def migrations_up_to(folder: Path, last: str) -> Path:
    """The folder of migrations of an earlier program."""
    then = folder / f"until-{last}"
    shutil.copytree(MIGRATIONS, then)
    for later in (then / "versions").glob("0*.py"):
        if later.name[:4] > last:
            later.unlink()
    return then


def put_job(server: Server, name: str) -> None:
    """A queued job, written as a program of that schema would."""
    wanted = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'jobs' "
    columns = server.sql(name, wanted + "AND is_nullable = 'NO' AND column_default IS NULL")
    known = {"id": "'a'", "status": "'queued'", "notes": "'[]'"}
    empty = {"text": "''", "boolean": "false"}
    values = [known.get(column, empty.get(kind, "0")) for column, kind in columns]
    server.sql(name, f"INSERT INTO jobs ({', '.join(column for column, _ in columns)}) VALUES ({', '.join(values)})")


def revision(server: Server, name: str) -> str:
    return server.sql(name, "SELECT version_num FROM alembic_version")[0][0]


# Schema


def test_the_migrations_make_the_same_tables(postgres: Server) -> None:
    engine = make_engine(postgres_url(postgres.new_database("wanreel_template")))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


@pytest.mark.parametrize("old", [VERSIONS[0], VERSIONS[-2]])
def test_an_older_schema_is_upgraded_only_when_that_is_asked_for(postgres: Server, tmp_path: Path, old: str) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    PostgresDatabase(url, tmp_path, migrations=migrations_up_to(tmp_path, old)).close()
    put_job(postgres, name)
    with pytest.raises(StoreError, match="older") as refused:
        PostgresDatabase(url, tmp_path)
    assert "wanreel db migrate" in refused.value.hint
    assert revision(postgres, name) == old
    assert migrate_url(url) == (old, HEAD)
    store = JobStore(PostgresDatabase(url, tmp_path))
    claimed = store.leases.claim("w")
    assert claimed is not None
    assert claimed.id == "a"
    store.close()
    with pytest.raises(StoreError, match="newer"):
        PostgresDatabase(
            url, tmp_path, migrations=migrations_up_to(tmp_path, VERSIONS[-2 if old != VERSIONS[-2] else 0])
        )


def test_another_programs_database_is_left_alone(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new_database()
    name = url.rpartition("/")[2]
    postgres.sql(name, "CREATE TABLE invoices (id int)")
    with pytest.raises(StoreError, match="another program"):
        PostgresDatabase(url, tmp_path)
    assert postgres.sql(name, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("invoices",)]


@posix_only
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside xdist's threads
@pytest.mark.parametrize(
    "fault", ["migrate.statement:kill@3", "migrate.statement:kill@20", "migrate.before_commit:kill"]
)
def test_a_kill_while_tables_are_made_leaves_none(postgres: Server, tmp_path: Path, fault: str) -> None:
    url = postgres.new_database()
    pid = os.fork()
    if pid == 0:
        try:
            PostgresDatabase(url, tmp_path, failpoints=Failpoints(fault)).close()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert postgres.sql(url.rpartition("/")[2], "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []
    PostgresDatabase(url, tmp_path).close()


# Copy


def filled(folder: Path) -> Path:
    """A SQLite database with a bit of everything."""
    path = new_database(folder)
    store = JobStore(open_place(str(path)), capacity=1000)
    words = "naïve 漢字 \u2028 'quoted'"
    for number in range(6):
        new = NewJob(
            f'{{"n": {number}}}', "demo", owner=f"o{number % 2}", prompt=words, webhook_url="https://a.example/"
        )
        store.enqueue(new, idempotency_key=f"k{number}")
    held = [store.leases.claim("gone") for _ in range(4)]
    done, failed, cancelled, running = (job for job in held if job is not None)
    store.leases.heartbeat(running.id, 1, Progress("denoise", 1, 8, 0.1), saved_step=1)
    files = (ArtifactRef("video", "a.mp4", "ab", 2**40, "video/mp4"),)
    store.leases.complete(done.id, 1, "ab", files, seconds=1 / 3)
    store.leases.fail(failed.id, 1, JobFailure("boom", "It\0 broke.", "…"))
    store.cancel(cancelled.id)
    store.leases.confirm_cancel(cancelled.id, 1)
    store.delete(cancelled.id)
    store.pause("moving house")
    store.close()
    return path


def test_a_copy_has_everything_and_goes_on(postgres: Server, tmp_path: Path) -> None:
    path, url = filled(tmp_path), postgres.new_database()
    counts = copy_jobs(path, url)
    assert (counts["jobs"], counts["artifacts"], counts["idempotency"]) == (5, 1, 5)
    old, new = JobStore(open_place(str(path)), capacity=1000), JobStore(open_place(url), capacity=1000)
    before, after = old.list(limit=100), new.list(limit=100)
    assert [job.evolve(error=None) for job in after] == [job.evolve(error=None) for job in before]
    for job in before:
        assert new.events(job.id) == old.events(job.id)
        assert [replace(it, error=None) for it in new.attempts(job.id)] == [
            replace(it, error=None) for it in old.attempts(job.id)
        ]
        assert new.artifacts(job.id) == old.artifacts(job.id)
    assert new.queue() == old.queue()
    numbers = [event.number for job in before for event in old.events(job.id)]
    # What runs on: keys, numbers, the holder that is gone, deliveries, the pause.
    known = next(job for job in before if job.request == '{"n": 5}')
    assert new.enqueue(NewJob(known.request, "demo", owner="o1"), idempotency_key="k5").id == known.id
    fresh = new.enqueue(NewJob("{}", "demo"))
    assert new.events(fresh.id)[0].number > max(numbers)
    assert new.leases.claim("w") is None
    new.resume()
    assert [job.status for job in new.leases.take_back(set(new.leases.overdue(0.0)))] == [JobStatus.QUEUED]
    assert new.outbox.take() is not None
    assert new.leases.claim("w") is not None
    old.close()
    new.close()


def test_a_copy_is_refused_where_it_would_mix_or_lose(postgres: Server, tmp_path: Path) -> None:
    path, url = filled(tmp_path), postgres.new_database("wanreel_template")
    store = JobStore(open_place(url))
    store.enqueue(NewJob("{}", "demo"))
    with pytest.raises(StoreError, match="not empty"):
        copy_jobs(path, url)
    assert len(store.list()) == 1
    store.close()
    source = JobStore(Database(path))
    name, lock = Liveness(tmp_path / "workers").new_worker("cpu")
    source.leases.register(name)
    with pytest.raises(StoreError, match=f"Worker {name} still works"):
        copy_jobs(path, postgres.new_database())
    lock.release()
    source.close()
    with pytest.raises(StoreError, match="no job database"):
        copy_jobs(tmp_path / "nowhere.db", url)


def test_a_row_that_arrives_changed_is_noticed(postgres: Server, tmp_path: Path) -> None:
    path, url = filled(tmp_path), postgres.new_database("wanreel_template")
    postgres.sql(
        url.rpartition("/")[2],
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.size := NEW.size + 1; RETURN NEW; END $$;"
        "CREATE TRIGGER spoil BEFORE INSERT ON artifacts FOR EACH ROW EXECUTE FUNCTION spoil()",
    )
    with pytest.raises(StoreError, match="Table artifacts did not arrive as it was"):
        copy_jobs(path, url)


# The command


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str, url: str = "") -> Any:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(folder))
    monkeypatch.setenv("WANREEL_DATABASE_URL", url)
    return CliRunner().invoke(db, list(words), standalone_mode=False, catch_exceptions=False)


def test_the_commands_move_a_data_directory(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    url = postgres.new_database()
    assert run(monkeypatch, tmp_path, "check").return_value == 0
    assert f"Schema {HEAD} made." in run(monkeypatch, tmp_path, "migrate", url=url).output
    assert "already" in run(monkeypatch, tmp_path, "migrate", "--url", url).output
    assert "5  jobs" in run(monkeypatch, tmp_path, "copy", "--to", url).output
    answer = run(monkeypatch, tmp_path, "check", "--json", url=url)
    found = {row["name"]: row for row in json.loads(answer.output)}
    assert found["jobs"]["value"] == "1 completed, 1 failed, 1 in progress, 2 queued"
    assert found["schema"]["value"] == HEAD
    # The tests' server has its syncs off, which must not pass for sound.
    assert answer.return_value == 4
    assert found["fsync"]["fault"]


def test_a_checkup_counts_late_workers(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new_database("wanreel_template")
    database = PostgresDatabase(url, tmp_path)
    JobStore(database).leases.register("late")
    database.write("age", lambda c: c.execute(text("UPDATE workers SET renewed_at = renewed_at - 100")))
    database.close()
    found = {it.name: it.value for it in check_server(url, tmp_path, 30.0)}
    assert found["workers that missed their lease"] == "1"
