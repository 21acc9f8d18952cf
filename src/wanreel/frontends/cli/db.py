"""`wanreel db`: the job database, in a file or on a PostgreSQL server."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wanreel.core.errors import SettingsError
from wanreel.core.settings import load_settings
from wanreel.frontends.cli.answer import json_option
from wanreel.wiring import check_store, copy_store, migrate_store

_URL = click.option("--url", metavar="URL", default=None, help="Another database than that of WANREEL_DATABASE_URL.")


@click.group()
def db() -> None:
    """Check, upgrade and move the job database."""


@db.command()
@_URL
@json_option
def check(url: str | None, json_: bool) -> int:
    """Say what the database is, and whether it can be relied on. Exit code 4 when it can't."""
    findings = check_store(load_settings(), url)
    if json_:
        rows = [{"name": it.name, "value": it.value, "fault": it.fault} for it in findings]
        click.echo(json.dumps(rows, ensure_ascii=False))
    else:
        width = max(len(it.name) for it in findings)
        for it in findings:
            click.echo(f"{it.name:{width}}  {it.value}" + (f"   ! {it.fault}" if it.fault else ""))
    return 4 if any(it.fault for it in findings) else 0


@db.command()
@_URL
def migrate(url: str | None) -> None:
    """Bring the tables to the schema of this program. Stop every Wanreel that uses a server's database first."""
    before, after = migrate_store(load_settings(), url)
    if before == after:
        click.echo(f"The schema is {after} already.")
    else:
        click.echo(f"Schema {after} made." if before is None else f"Schema {before} brought to {after}.")


@db.command("copy")
@click.option("--from", "source", metavar="URL", help="sqlite:PATH; the data directory's database by default.")
@click.option("--to", "target", metavar="URL", required=True, help="postgresql://USER:PASSWORD@HOST/NAME, empty.")
def copy_(source: str | None, target: str) -> None:
    """Copy all jobs from SQLite to an empty PostgreSQL database, and compare what arrived."""
    path = load_settings().data.database if source is None else _path_of(source)
    counts = copy_store(path, target)
    for name, count in counts.items():
        click.echo(f"{count:8}  {name}")
    click.echo(
        "Copied and compared. Set WANREEL_DATABASE_URL to use it; pictures, results and checkpoints stay where they are."
    )


def _path_of(source: str) -> Path:
    """Raises SettingsError for anything but SQLite."""
    kind, _, rest = source.partition(":")
    if kind != "sqlite" or not rest:
        raise SettingsError("--from: this is not the address of a SQLite file.", hint="sqlite:////home/me/wanreel.db")
    # sqlite:PATH, or as SQLAlchemy writes it: sqlite:///PATH for a relative path and sqlite:////PATH for an absolute one.
    return Path(rest.removeprefix("///"))
