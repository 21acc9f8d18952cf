"""Checkup: what a job database is and whether it can be relied on. Changes nothing."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, extract, func, select, text

from wanreel.core.failpoints import Failpoints
from wanreel.jobs.database import Database
from wanreel.jobs.migrate import HEAD, MIGRATIONS, migrate_server, revision_of
from wanreel.jobs.postgres import OLDEST, PostgresDatabase, make_engine, postgres_url, shown
from wanreel.jobs.tables import jobs, workers
from wanreel.jobs.transactions import Transactions


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the database."""

    name: str
    value: str
    fault: str = ""  #: what is wrong with it; empty when nothing is


def check_file(path: Path) -> tuple[Finding, ...]:
    """A SQLite file: opening it looks for damage already. Raises StoreError."""
    database = Database(path)
    try:
        mode, sync = (
            database.read(lambda c, name=name: str(c.execute(text(f"PRAGMA {name}")).scalar_one()))
            for name in ("journal_mode", "synchronous")
        )
        return (
            Finding("database", str(path)),
            Finding("SQLite", sqlite3.sqlite_version),
            Finding("schema", revision_of(path) or ""),
            Finding(
                "journal", f"{mode}, synchronous {sync}", "" if sync in ("2", "3") else "A power loss can lose jobs."
            ),
            *_contents(database),
        )
    finally:
        database.close()


def check_server(url: str, folder: Path, lease_seconds: float) -> tuple[Finding, ...]:
    """A database on a server. Raises SettingsError, StoreError."""
    database = PostgresDatabase(url, folder, patience=0.0)
    try:
        settings = database.read(_server_settings)
        began = time.monotonic()
        database.read(lambda c: c.execute(text("SELECT 1")).scalar_one())
        delay = time.monotonic() - began
        version = int(settings["server_version_num"]) // 10_000
        overdue = database.read(
            lambda c: c.scalar(select(func.count()).select_from(workers).where(_late(lease_seconds)))
        )
        return (
            Finding("database", database.name),
            Finding(
                "PostgreSQL", settings["server_version"], "" if version >= OLDEST else f"It must be {OLDEST} or newer."
            ),
            Finding("schema", HEAD),
            Finding(
                "encoding",
                settings["server_encoding"],
                "" if settings["server_encoding"] == "UTF8" else "It must be UTF8.",
            ),
            *(
                Finding(name, settings[name], "" if settings[name] == "on" else "A power loss can lose or damage jobs.")
                for name in ("fsync", "full_page_writes")
            ),
            Finding("synchronous_commit", settings["synchronous_commit"]),
            Finding("a transaction takes", f"{1000 * delay:.1f} ms"),
            *_contents(database),
            Finding("workers that missed their lease", str(overdue or 0)),
        )
    finally:
        database.close()


def migrate_path(path: Path) -> tuple[str | None, str]:
    """Bring the SQLite file to the present schema, with a copy made first. Returns the schema before and after."""
    before = revision_of(path) if path.is_file() else None
    Database(path).close()
    return before, HEAD


def migrate_url(url: str) -> tuple[str | None, str]:
    """Bring the database at `url` to the present schema. Returns the one before, None for an empty one, and this one."""
    parsed = postgres_url(url)
    engine = make_engine(parsed)
    try:
        return migrate_server(engine, shown(parsed), MIGRATIONS, Failpoints(), upgrade=True), HEAD
    finally:
        engine.dispose()


def _late(seconds: float) -> Any:
    return workers.c.renewed_at < extract("epoch", func.clock_timestamp()) - seconds


def _server_settings(connection: Connection) -> dict[str, str]:
    names = (
        "server_version",
        "server_version_num",
        "server_encoding",
        "fsync",
        "full_page_writes",
        "synchronous_commit",
    )
    return {
        name: str(connection.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one())
        for name in names
    }


def _contents(database: Transactions) -> tuple[Finding, ...]:
    by_status = select(jobs.c.status, func.count()).group_by(jobs.c.status).order_by(jobs.c.status)
    found = database.read(lambda c: [(row[0], row[1]) for row in c.execute(by_status)])
    listed = database.read(lambda c: c.scalar(select(func.count()).select_from(workers))) or 0
    said = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in found)
    return Finding("jobs", said or "none"), Finding("workers", str(listed))
