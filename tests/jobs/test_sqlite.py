"""The settings that durability rests on, and what happens to a file that can't be used."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from jobs.places import new_database, posix_only
from wanreel.core.errors import StoreError
from wanreel.core.job import NewJob
from wanreel.jobs import JobStore, sqlite
from wanreel.jobs.database import Database
from wanreel.jobs.line import next_in_line
from wanreel.jobs.sqlite import SqlitePolicy, check_file, connect, make_engine, writing


def reported(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((3, 40, 1), ("delete", "EXTRA")),
        ((3, 51, 2), ("delete", "EXTRA")),
        ((3, 51, 3), ("wal", "FULL")),
        ((3, 52, 0), ("wal", "FULL")),
        ((4, 0, 0), ("wal", "FULL")),
    ],
)
def test_the_policy_goes_by_the_library(version: tuple[int, ...], expected: tuple[str, str]) -> None:
    policy = SqlitePolicy.for_library(version)
    assert (policy.journal_mode, policy.synchronous) == expected


@pytest.mark.parametrize("policy", [SqlitePolicy("delete", "EXTRA"), SqlitePolicy("wal", "FULL")])
def test_every_connection_of_the_engine_has_the_settings(tmp_path: Path, policy: SqlitePolicy) -> None:
    engine = make_engine(new_database(tmp_path), policy)
    open_together = [engine.connect() for _ in range(6)]
    for held in open_together:
        raw = held.connection.driver_connection
        assert raw is not None
        assert reported(raw, "journal_mode") == policy.journal_mode
        assert reported(raw, "synchronous") == {"FULL": 2, "EXTRA": 3}[policy.synchronous]
        assert reported(raw, "foreign_keys") == 1
        assert reported(raw, "busy_timeout") == 30_000
    for held in open_together:
        held.close()
    engine.dispose()


def test_a_setting_that_does_not_take_is_refused(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN")
    other.execute("SELECT * FROM jobs").fetchall()
    with pytest.raises((StoreError, sqlite3.OperationalError)):
        connect(path, SqlitePolicy("delete", "EXTRA", busy_seconds=0.1))
    other.close()


def test_a_pragma_unknown_to_the_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A library built without a feature ignores its pragma, so only reading back tells.
    monkeypatch.setattr(sqlite, "_pragmas", lambda _: (("no_such_pragma", 1, 1),))
    with pytest.raises(StoreError, match="no_such_pragma"):
        connect(new_database(tmp_path), SqlitePolicy.for_library())


def test_writers_lock_at_once_and_readers_do_not(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    engine = make_engine(path, SqlitePolicy("delete", "EXTRA", busy_seconds=0.05))
    with writing(engine).begin(), engine.begin() as reader:
        assert reader.exec_driver_sql("SELECT count(*) FROM jobs").scalar() == 0
        with pytest.raises(Exception, match="locked"), writing(engine).begin():
            pass
    engine.dispose()


@posix_only
def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    JobStore.open(tmp_path / "new" / "wanreel.db").close()
    assert stat.S_IMODE((tmp_path / "new" / "wanreel.db").stat().st_mode) == 0o600


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Mounting one needs a server; the detection itself is tested with wanreel.host.
    monkeypatch.setattr(sqlite, "is_network_filesystem", lambda _: True)
    with pytest.raises(StoreError, match="network file system") as refused:
        JobStore.open(tmp_path / "wanreel.db")
    assert "WANREEL_DATA_DIR" in refused.value.hint
    assert not (tmp_path / "wanreel.db").exists()


@pytest.mark.parametrize("at", [0, 20, 100, 4096, 2 * 4096, 20 * 4096])
def test_a_damaged_file_is_refused_at_start(tmp_path: Path, at: int) -> None:
    # Structure is found out; SQLite keeps no checksums, so a flipped bit inside a text is not.
    path = new_database(tmp_path)
    store = JobStore.open(path)
    for _ in range(30):
        store.enqueue(NewJob("x" * 500, "demo"))
    store.close()
    data = bytearray(path.read_bytes())
    data[at : at + 64] = bytes(byte ^ 0xFF for byte in data[at : at + 64])
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"damaged|read or written") as refused:
        JobStore.open(path)
    assert refused.value.hint


def test_a_truncated_file_is_refused_at_start(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(StoreError, match="damaged"):
        JobStore.open(path)


def test_a_sound_file_passes(tmp_path: Path) -> None:
    check_file(new_database(tmp_path))


def test_a_database_deleted_under_us_is_not_made_anew(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    database = Database(path)
    database.close()
    path.unlink()
    with pytest.raises(StoreError):
        JobStore(database).queue()
    assert not path.exists()


def test_another_program_that_holds_the_lock_is_named_as_the_cause(tmp_path: Path) -> None:
    path = new_database(tmp_path)
    policy = SqlitePolicy("delete", "EXTRA", busy_seconds=0.1)
    store = JobStore(Database(path, policy=policy))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"locked for 0\.1 s"):
        store.enqueue(NewJob("{}", "demo"))
    other.execute("ROLLBACK")
    other.close()
    assert store.enqueue(NewJob("{}", "demo")).id
    store.close()


def test_two_stores_of_one_process_keep_each_others_locks(tmp_path: Path) -> None:
    # Opening and closing the file by any other way than SQLite would drop the locks of the first store.
    path = new_database(tmp_path)
    first = Database(path, policy=SqlitePolicy("delete", "EXTRA", busy_seconds=0.1))

    def with_lock_held(_: object) -> None:
        JobStore.open(path).close()
        outside = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
            "try: c.execute('BEGIN IMMEDIATE')\nexcept sqlite3.OperationalError: sys.exit(7)"
        )
        assert subprocess.run([sys.executable, "-c", outside, str(path)], check=False).returncode == 7

    first.write("test", with_lock_held)
    first.close()


def test_the_next_job_is_found_by_the_index_alone(tmp_path: Path) -> None:
    # With 100,000 jobs in line, sorting or scanning them would take a worker's claim from milliseconds to seconds.
    queries: list[str] = []
    engine = make_engine(new_database(tmp_path), SqlitePolicy.for_library())
    event.listen(engine, "before_cursor_execute", lambda *call: queries.append(call[2]))
    with writing(engine).begin() as connection:
        next_in_line(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {queries[-1]}", ("queued", 0, 1, 0)).all()
    assert [row.detail for row in plan] == ["SEARCH jobs USING INDEX ix_jobs_line (status=?)"]
    engine.dispose()
