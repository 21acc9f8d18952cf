"""T8: several processes empty one queue. `python worker_race.py PLACE JOBS PROCESSES` prints the figures as JSON.

A program of its own because it forks. The database must exist.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from jobs.places import open_place
from wanreel.core.job import JobStatus, NewJob, Outcome
from wanreel.jobs import JobStore


def worker(place: str, name: str, tell: int, start: int) -> None:
    store = JobStore(open_place(place))
    os.read(start, 1)
    while (job := store.leases.claim(name)) is not None:
        os.write(tell, f"{job.id}\n".encode())
        store.leases.complete(job.id, job.attempt, name)
    store.close()


def main(place: str, count: int, processes: int) -> int:
    store = JobStore(open_place(place), capacity=count)
    began = time.monotonic()
    accepted = {store.enqueue(NewJob("{}", "demo")).id for _ in range(count)}
    enqueued = time.monotonic() - began
    store.close()
    hear, tell = os.pipe()
    start, go = os.pipe()
    children: list[int] = []
    for number in range(processes):
        pid = os.fork()
        if pid == 0:
            os.close(hear)
            worker(place, f"w{number}", tell, start)
            os._exit(0)
        children.append(pid)
    os.close(tell)
    os.write(go, b"g" * processes)
    began = time.monotonic()
    with os.fdopen(hear) as heard:
        claims = Counter(line.strip() for line in heard)
    worked = time.monotonic() - began
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    store = JobStore(open_place(place))
    done = store.list(status=JobStatus.COMPLETED, limit=count + 1)
    shares = Counter(job.result_sha256 for job in done)
    figures = {
        "claimed_once": set(claims.values()) == {1} and claims.keys() == accepted,
        "completed_once": {job.id for job in done} == accepted and all(job.attempt == 1 for job in done),
        "attempts_agree": all(
            [a.outcome for a in store.attempts(job.id)] == [Outcome.COMPLETED] for job in done[: min(count, 500)]
        ),
        "children": codes,
        "shares": sorted(shares.values()),
        "enqueue_per_second": round(count / enqueued),
        "claim_and_complete_per_second": round(count / worked),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
