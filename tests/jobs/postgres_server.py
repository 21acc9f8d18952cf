"""A PostgreSQL server for tests: on loopback, in a temporary folder, ended by its process id."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import pytest

from jobs.places import fast_folder
from wanreel.jobs.postgres import PostgresDatabase

_FAST = {
    "fsync": "off",  # these tests kill processes and servers, never the machine
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "5s",
    "log_min_messages": "fatal",
    "log_statement": "none",
}


def programs() -> Path | None:
    """The folder of the newest server's programs. Debian keeps them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


def needed() -> Path:
    """The same, or the test is skipped; in CI on Linux it fails, where never being run would look like passing."""
    folder = programs()
    if folder is None:
        if os.environ.get("CI") and sys.platform == "linux":
            pytest.fail("PostgreSQL is not installed; see scripts/install_test_tools.sh")
        pytest.skip("PostgreSQL is not installed")
    return folder


class Server:
    """Runs between `start` and `stop`; keeps its data until `close`."""

    def __init__(self, bin_folder: Path, folder: Path | None = None, **settings: str) -> None:
        self._bin = bin_folder
        self._settings = _FAST | settings
        self.folder = Path(tempfile.mkdtemp(prefix="wanreel-pg-", dir=folder or fast_folder()))
        # It refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("nobody")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._run("initdb", "-D", str(self.data), "-U", "wanreel", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str) -> str:
        return f"postgresql://wanreel@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        command = [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        options = self._settings | {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(self.folder)}
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self._user)
        self._process = cast("subprocess.Popen[bytes]", process)
        deadline = time.monotonic() + 30.0
        while not self._answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends every connection with 57P01 and stops; SIGQUIT leaves at once, as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30.0)
            self._process = None

    def new_database(self, template: str = "") -> str:
        """The URL of a fresh database: empty, or a copy of `template`."""
        self._count += 1
        name = f"t{self._count}"
        self.sql(
            "postgres", f"CREATE DATABASE {name}" + (f" TEMPLATE {template} STRATEGY file_copy" if template else "")
        )
        return self.url(name)

    def sql(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *command: str) -> None:
        subprocess.run(
            [str(self._bin / command[0]), *command[1:]], check=True, capture_output=True, cwd=self.folder, **self._user
        )


@contextmanager
def serving() -> Generator[Server]:
    """A server with a database `wanreel_template` of the present schema."""
    with Server(needed()) as server:
        server.sql("postgres", "CREATE DATABASE wanreel_template")
        PostgresDatabase(server.url("wanreel_template"), server.folder).close()
        yield server
