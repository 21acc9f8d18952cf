"""Where the tests of the store put their databases."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from wanreel.core.failpoints import Failpoints
from wanreel.jobs.ballast import Ballast
from wanreel.jobs.database import Database
from wanreel.jobs.transactions import Transactions


def fast_folder() -> str | None:
    """A folder in memory where there is one: for tests that open many databases and do not test durability."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@functools.cache
def _template() -> bytes:
    """An empty database of the present schema, made once because Alembic takes a second to import."""
    folder = Path(tempfile.mkdtemp())
    try:
        Database(folder / "wanreel.db").close()
        return (folder / "wanreel.db").read_bytes()
    finally:
        shutil.rmtree(folder)


def new_database(folder: Path) -> Path:
    """A fresh database file in the folder."""
    path = folder / "wanreel.db"
    path.write_bytes(_template())
    return path


def open_place(place: str, fault: str = "", *, patience: float = 30.0) -> Transactions:
    """The database at a file's path, without ballast, or at the URL of a server."""
    failpoints = Failpoints(fault)
    if place.startswith("postgresql:"):
        from wanreel.jobs.postgres import PostgresDatabase

        return PostgresDatabase(place, Path(tempfile.gettempdir()), patience=patience, failpoints=failpoints)
    path = Path(place)
    return Database(path, failpoints=failpoints, ballast=Ballast(path.with_suffix(".ballast"), size=0))


def needs(program: str) -> None:
    """Skip where a program is missing; but fail in CI on Linux, where never being run would look like passing."""
    if shutil.which(program) is None:
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail(f"{program} is not installed; see scripts/install_test_tools.sh")
        pytest.skip(f"{program} is not installed")


#: For tests that fork, or stop a process by a signal.
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="takes fork and POSIX signals")
