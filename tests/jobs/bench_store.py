"""Speed of the store with the durability settings of the product: `python bench_store.py [FOLDER]`.

FOLDER should be on the disk in question; by default the system's temporary folder. Prints medians in milliseconds.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from wanreel.core.job import Job, NewJob, Progress
from wanreel.jobs import JobStore
from wanreel.jobs.sqlite import SqlitePolicy

#: Copies of the first job, spread over 100 owners, as `enqueue` would have placed them.
_FILL = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)
INSERT INTO jobs (id, status, request, request_sha256, model, owner, parent_id, time_limit, priority, turn, place,
    created_at, attempt, attempts_charged, saved_step, stage, step, total_steps, cancel_requested, notes, last_event)
SELECT printf('%032x', i), status, request, request_sha256 || i, model, 'owner-' || (i % 100), parent_id, time_limit,
    priority, 1 + i / 100, i % 100, created_at, attempt, attempts_charged, saved_step, stage, step, total_steps,
    cancel_requested, notes, last_event
FROM n, (SELECT * FROM jobs WHERE owner = 'first' AND status = 'queued' LIMIT 1)
"""


def timed(times: int, call: Callable[[], object]) -> tuple[float, float, float]:
    """Median and 99th percentile in milliseconds, and calls a second."""
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took), sorted(took)[int(0.99 * times)], 1000 / statistics.mean(took)


Figures = tuple[float, float, float]


def say(what: str, figures: Figures) -> tuple[str, Figures]:
    sys.stdout.write(f"{what:34} {figures[0]:8.2f} ms median {figures[1]:8.2f} ms p99 {figures[2]:8.0f} /s\n")
    return what, figures


def measure(store: JobStore, new: NewJob, times: int) -> dict[str, Figures]:
    """Says and returns the figures of each kind of call."""
    claimed: list[Job] = []

    def claim() -> None:
        job = store.leases.claim("w")
        assert job is not None
        claimed.append(job)

    found = [say("enqueue", timed(times, lambda: store.enqueue(new))), say("claim", timed(times, claim))]
    beat, still, done = iter(claimed), iter(claimed), iter(claimed)
    calls: dict[str, Callable[[], object]] = {
        "heartbeat with progress": lambda: store.leases.heartbeat(next(beat).id, 1, Progress("d", 1, 2)),
        "heartbeat without": lambda: store.leases.heartbeat(next(still).id, 1),
        "complete": lambda: store.leases.complete(next(done).id, 1, "ab", seconds=1.0),
        "list of 20": lambda: store.list(limit=20),
    }
    found += [say(name, timed(times, call)) for name, call in calls.items()]
    last = store.queued(1)
    if last:
        found.append(say("state of the queue", timed(times // 4, store.queue)))
        found.append(say("standing of the first", timed(times // 4, lambda: store.standing(last[0].id))))
    return dict(found)


def main(folder: Path) -> None:
    path = folder / "wanreel.db"
    policy = SqlitePolicy.for_library()
    sys.stdout.write(f"SQLite {sqlite3.sqlite_version}, {policy.journal_mode}, {policy.synchronous}\n")
    store = JobStore.open(path, capacity=10**6)
    new = NewJob('{"prompt": "' + "x" * 500 + '"}', "demo", owner="first")
    measure(store, new, 400)
    store.enqueue(new)
    store.close()
    filler = sqlite3.connect(path)
    with filler:
        filler.execute(_FILL, {"count": 100_000})
    filler.close()
    began = time.perf_counter()
    store = JobStore.open(path, capacity=10**6)
    sys.stdout.write(f"\nwith 100,000 queued (opening takes {time.perf_counter() - began:.2f} s)\n")
    measure(store, new, 400)
    store.close()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
