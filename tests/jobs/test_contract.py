"""T11: the store keeps the contract on both databases, with a clock that jumps about (T9)."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection, delete, update

from jobs.contract import CAPACITY, MAX_ATTEMPTS, StoreContract
from jobs.places import fast_folder, new_database, open_place
from jobs.postgres_server import Server
from wanreel.jobs import JobStore
from wanreel.jobs.ballast import Ballast
from wanreel.jobs.database import Database
from wanreel.jobs.tables import metadata, queue


def jumping_clock() -> Callable[[], float]:
    """Wall time that stands still, jumps an hour or a year either way, or goes before 1970."""
    chance = random.Random(5)
    now = 1.8e9

    def clock() -> float:
        nonlocal now
        now += chance.choice([0.0, 0.0, 0.1, 3600.0, -3600.0, 3.2e7, -3.2e7, -1.9e9, 1.9e9])
        return now

    return clock


class SqliteContract(StoreContract):
    """The contract on a file that outlives restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=fast_folder()))
        self.path = new_database(self.folder)

    def open_store(self) -> JobStore:
        ballast = Ballast(self.path.with_suffix(".ballast"), size=0)
        database = Database(self.path, ballast=ballast)
        return JobStore(database, capacity=CAPACITY, max_attempts=MAX_ATTEMPTS, clock=jumping_clock())

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


class PostgresContract(StoreContract):
    """The contract on a database of a server. It is emptied for each run, as making one takes longer."""

    url: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()
        database = open_place(self.url)
        database.write("empty", _empty)
        database.close()

    def open_store(self) -> JobStore:
        clock = jumping_clock()
        return JobStore(open_place(self.url), capacity=CAPACITY, max_attempts=MAX_ATTEMPTS, clock=clock)


def _empty(connection: Connection) -> None:
    for table in reversed(metadata.sorted_tables):
        if table.name != "queue":
            connection.execute(delete(table))
    connection.execute(update(queue).values(paused=False, automatic=False, reason=""))


def run(kind: type[StoreContract], examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(kind, settings=chosen)


def test_contract() -> None:
    run(SqliteContract, examples=30, steps=30)


@pytest.fixture
def on_postgres(postgres: Server) -> type[StoreContract]:
    return type("OnPostgres", (PostgresContract,), {"url": postgres.new_database("wanreel_template")})


def test_contract_on_postgres(on_postgres: type[StoreContract]) -> None:
    run(on_postgres, examples=10, steps=30)


@pytest.mark.deep
def test_contract_at_length() -> None:
    run(SqliteContract, examples=5000, steps=60)


@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_contract_at_length_on_postgres(on_postgres: type[StoreContract]) -> None:
    run(on_postgres, examples=300, steps=60)
