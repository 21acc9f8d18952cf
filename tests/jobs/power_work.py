"""The program whose system calls are traced for T2 and made to fail for T3: a client and a worker on one store.

`python power_work.py FOLDER JOBS JOURNAL_MODE SYNCHRONOUS` writes a line to FOLDER/acks for each thing it was promised,
and ends with 0, or with 3 when the store raised an error of ours, which is then the last line.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from wanreel.core.errors import StoreError, WanreelError
from wanreel.core.job import ArtifactRef, NewJob, Progress
from wanreel.jobs import JobStore
from wanreel.jobs.ballast import Ballast
from wanreel.jobs.database import Database
from wanreel.jobs.sqlite import SqlitePolicy


def main(folder: Path, count: int, journal_mode: str, synchronous: str) -> int:
    acks = os.open(folder / "acks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        work(folder / "data" / "wanreel.db", count, SqlitePolicy(journal_mode, synchronous), acks)
    except WanreelError as exc:
        os.write(acks, f"error {exc.code} {exc.message}\n".encode())
        return 3
    return 0


def work(path: Path, count: int, policy: SqlitePolicy, acks: int) -> None:
    ballast = Ballast(path.with_suffix(".ballast"), size=0)
    store = JobStore(Database(path, policy=policy, ballast=ballast))
    os.write(acks, b"open\n")
    store.leases.recover(lambda _: False)
    try:
        serve(store, count, acks)
    except StoreError:
        # After a failed sync nobody knows what is on disk, so a second try must not be taken for a success.
        with contextlib.suppress(StoreError):
            store.enqueue(NewJob("{}", "demo"))
            os.write(acks, b"accepted after a fault\n")
        raise
    store.close()


def serve(store: JobStore, count: int, acks: int) -> None:
    for number in range(count):
        job = store.enqueue(NewJob(f'{{"prompt": "{number}"}}', "demo"), idempotency_key=f"key-{number}")
        os.write(acks, f"queued {job.id}\n".encode())
        if number % 3 == 2:
            claimed = store.leases.claim("worker")
            assert claimed is not None
            os.write(acks, f"claimed {claimed.id}\n".encode())
            store.leases.heartbeat(claimed.id, claimed.attempt, Progress("denoise", 1, 2), saved_step=1)
            sha256 = claimed.id[::-1]
            files = (ArtifactRef("video", f"{claimed.id}.mp4", sha256, 1, "video/mp4"),)
            store.leases.complete(claimed.id, claimed.attempt, sha256, files)
            os.write(acks, f"done {claimed.id}\n".encode())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
