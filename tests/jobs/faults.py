"""Running power_work.py while the machine misbehaves, and looking at what it left. For T3 and T4."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobs.power_loss import WORK, verdict_of
from wanreel.jobs.sqlite import SqlitePolicy

_CALLS = "pwrite64,fsync,fdatasync,openat,unlink,ftruncate"


def work(folder: Path, jobs: int, inject: str = "") -> subprocess.CompletedProcess[str]:
    """Run the program on FOLDER/data/wanreel.db; `inject` is an expression for strace's `-e inject=`.

    Only calls on the database and its journal are counted and made to fail.
    """
    policy = SqlitePolicy.for_library()
    command = [sys.executable, str(WORK), str(folder), str(jobs), policy.journal_mode, policy.synchronous]
    if inject:
        path = folder / "data" / "wanreel.db"
        watched = [path, f"{path}-journal", f"{path}-wal", path.parent]
        paths = [part for name in watched for part in ("-P", str(name))]
        quiet = ["-f", "-q", "-o", str(folder / "trace"), *paths]
        command = ["strace", *quiet, "-e", f"trace={_CALLS}", "-e", f"inject={inject}", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def acks(folder: Path) -> list[str]:
    """What the program said so far."""
    path = folder / "acks"
    return path.read_text().splitlines() if path.exists() else []


def fate(folder: Path) -> str:
    """ "" if all that was acknowledged is there and sound, else what is wrong."""
    promised = [line for line in acks(folder) if not line.startswith(("error", "refused", "accepted"))]
    return verdict_of(folder / "data" / "wanreel.db", promised)
