"""Where the tests of the store put their databases."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from wanreel.jobs.database import Database


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


def needs(program: str) -> None:
    """Skip where a program is missing; but fail in CI on Linux, where never being run would look like passing."""
    if shutil.which(program) is None:
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail(f"{program} is not installed; see scripts/install_test_tools.sh")
        pytest.skip(f"{program} is not installed")


#: For tests that fork, or stop a process by a signal.
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="takes fork and POSIX signals")
