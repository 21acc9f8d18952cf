"""Lets the tests of the store import what they share, as `jobs.places`; and gives them a database of each kind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from jobs.postgres_server import Server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running PostgreSQL server."""
    from jobs.postgres_server import serving

    with serving() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh database of each kind lies; see `places.open_place`."""
    if request.param == "sqlite":
        from jobs.places import new_database

        return str(new_database(tmp_path))
    server: Server = request.getfixturevalue("postgres")
    return server.new_database("wanreel_template")
