"""T1 for the store: a process that uses it is killed with SIGKILL again and again, and nothing may be lost or doubled.

Run as a program, because it forks: `python kill_loop.py PLACE KILLS SEED [SECONDS]` (see `places`). Prints one JSON object with the
figures and exits with 1 when something was lost. After SECONDS no more are killed. The first kills are at each failpoint inside
the store, twice; the others come at random moments.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from jobs.places import open_place
from wanreel.core.errors import Cancelled, IllegalTransition, WanreelError
from wanreel.core.job import ArtifactRef, JobFailure, JobStatus, NewJob, Progress
from wanreel.jobs import JobStore

#: The writes that the child below makes.
WRITES = (
    *("register", "enqueue", "claim", "heartbeat", "record", "note", "complete", "fail", "requeue", "confirm_cancel"),
    *("recover", "cancel", "retry", "pause", "resume", "move"),
)
#: Those that it makes only at its start.
ONCE = ("register", "recover")
#: What a child draws that makes one of the rarer writes; see `work`.
RARE = {"cancel": 0.05, "confirm_cancel": 0.05, "retry": 0.05, "requeue": 0.25, "fail": 0.35}
FAILPOINTS = [f"{write}.{place}" for write in WRITES for place in ("begun", "before_commit", "after_commit")]


def open_store(place: str, fault: str = "") -> JobStore:
    return JobStore(open_place(place, fault), capacity=10**6)


# The child: acts at random and tells each thing it was promised.


def child(place: str, fault: str, seed: int, name: str, pending: list[str], tell: int) -> None:
    def say(*words: str) -> None:
        os.write(tell, (" ".join(words) + "\n").encode())

    chance = random.Random(seed)
    store = open_store(place, fault)
    store.leases.register(name)
    store.leases.recover(lambda worker: worker == name)
    say("up")
    for key in pending:
        say("ack", key, store.enqueue(NewJob("{}", "demo"), idempotency_key=key).id)
    count, wanted = 0, fault.partition(".")[0]
    while True:
        count += 1
        if chance.random() < 0.45:
            key = f"{name}-{count}"
            say("try", key)
            say("ack", key, store.enqueue(NewJob("{}", "demo", owner=""), idempotency_key=key).id)
        else:
            with contextlib.suppress(IllegalTransition):  # a job that ended before it was to be moved or cancelled
                work(store, chance, name, say, wanted)


def work(store: JobStore, chance: random.Random, name: str, say: Callable[..., None], wanted: str) -> None:
    """At random, but mostly what leads to the write at which this child is to die: others take as long and show less."""
    lean = chance.random() < 0.8
    if chance.random() < 0.1 or (lean and wanted in ("pause", "resume")):
        store.pause("a moment")
        store.resume()
    for job in store.queued(2)[1:]:
        store.move(job.id)
    job = store.leases.claim(name)
    if job is None:
        store.resume()
        return
    store.leases.record(job.id, job.attempt, "encoded")
    store.leases.note(job.id, job.attempt, "a note")
    orders = store.leases.heartbeat(job.id, job.attempt, Progress("denoise", job.attempt, 10), saved_step=job.attempt)
    end = RARE.get(wanted, chance.random()) if lean else chance.random()
    if end < 0.1 and not orders.cancel:
        store.cancel(job.id)
        say("cancelled", job.id)
    if end < 0.2 or orders.cancel:
        try:
            store.leases.complete(job.id, job.attempt, "00")
        except Cancelled:
            store.leases.confirm_cancel(job.id, job.attempt)
            store.retry(job.id)
            return
        say("done", job.id, "00")
    elif end < 0.3:
        store.leases.requeue(job.id, job.attempt, "drain")
    elif end < 0.4:
        store.leases.fail(job.id, job.attempt, JobFailure("odd", "Odd."), retryable=True)
    else:
        sha256 = f"{job.id}-{job.attempt}"
        files = (ArtifactRef("video", f"{job.id}.mp4", sha256, 1, "video/mp4"),)
        store.leases.complete(job.id, job.attempt, sha256, files)
        say("done", job.id, sha256)


# The parent: kills, and keeps the history of what was promised.


@dataclass
class History:
    tried: set[str] = field(default_factory=set[str])
    acked: dict[str, str] = field(default_factory=dict[str, str])  # idempotency key -> job id
    done: dict[str, str] = field(default_factory=dict[str, str])  # job id -> sha256
    faults: list[str] = field(default_factory=list[str])
    words: int = 0

    def hear(self, line: str) -> None:
        self.words += 1
        word, *rest = line.split()
        if word == "try":
            self.tried.add(rest[0])
        elif word == "ack":
            known = self.acked.setdefault(rest[0], rest[1])
            if known != rest[1]:
                self.faults.append(f"key {rest[0]} made two jobs: {known} and {rest[1]}")
        elif word == "done":
            if rest[0] in self.done:
                self.faults.append(f"job {rest[0]} was completed twice")
            self.done[rest[0]] = rest[1]

    @property
    def pending(self) -> list[str]:
        return sorted(self.tried - self.acked.keys())


def run_and_kill(place: str, history: History, chance: random.Random, number: int, fault: str) -> bool:
    """One life of a child. True when the failpoint ended it and not our patience."""
    hear, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        try:
            child(place, fault, chance.randrange(2**32) + number, f"w{number}", history.pending, tell)
        except WanreelError as exc:
            os.write(2, f"{exc!r}\n".encode())
        os._exit(3)
    os.close(tell)
    # At random moments of its work; of one in ten, of its start.
    starting = chance.random() < 0.1
    deadline = time.monotonic() + (30.0 if fault or not starting else chance.uniform(0.0, 0.1))
    text, ours, killed = b"", False, False
    while True:
        ready, _, _ = select.select([hear], [], [], max(0.0, deadline - time.monotonic()))
        if not ready and not killed:
            os.kill(pid, signal.SIGKILL)
            ours = killed = True
            deadline = time.monotonic() + 10
            continue
        data = os.read(hear, 65536)
        if not data:
            break
        if not (fault or starting or text):
            deadline = time.monotonic() + chance.uniform(0.0, 0.1)
        text += data
    os.close(hear)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        history.faults.append(f"child {number} ({fault}) ended by itself")
    for line in text.decode().splitlines():
        history.hear(line)
    return not ours


def check(place: str, history: History) -> None:
    """Every promise, against what a fresh look finds."""
    store = open_store(place)
    found = {job.id: job for job in store.list(limit=10**6)}
    for key, job_id in history.acked.items():
        if job_id not in found:
            history.faults.append(f"lost: job {job_id} of key {key}")
    for job_id, sha256 in history.done.items():
        job = found.get(job_id)
        if job is None or job.status is not JobStatus.COMPLETED or job.result_sha256 != sha256:
            history.faults.append(f"lost: the result of job {job_id}: {job}")
    if len(found) > len(history.tried | history.acked.keys()):
        history.faults.append(f"doubled: {len(found)} jobs of {len(history.tried)} requests")
    store.close()


def finish(place: str, history: History) -> Counter[str]:
    """The last life runs to the end: every job must come to one."""
    store = open_store(place)
    store.leases.recover(lambda _: False)
    store.resume()
    for key in history.pending:
        history.acked[key] = store.enqueue(NewJob("{}", "demo"), idempotency_key=key).id
    while (job := store.leases.claim("last")) is not None:
        store.leases.complete(job.id, job.attempt, "last")
    states = Counter(str(job.status) for job in store.list(limit=10**6))
    keys = len(set(history.acked.values()))
    if sum(states.values()) != keys:
        history.faults.append(f"{sum(states.values())} jobs for {keys} keys")
    if states["queued"] or states["in_progress"]:
        history.faults.append(f"stuck: {states}")
    for job in store.list(limit=10**6):
        kinds = Counter(event.kind for event in store.events(job.id))
        if kinds["completed"] > 1 or (job.status is JobStatus.COMPLETED) != (kinds["completed"] == 1):
            history.faults.append(f"doubled: job {job.id} has {kinds['completed']} completions")
    store.close()
    return states


def main(place: str, kills: int, seed: int, seconds: float = float("inf")) -> int:
    chance, history = random.Random(seed), History()
    reached: set[str] = set()
    started = time.monotonic()
    check(place, history)  # children find imported what this takes
    for number in range(kills):
        if time.monotonic() - started > seconds:
            kills = number
            break
        name = FAILPOINTS[number % len(FAILPOINTS)] if number < min(kills - 4, 2 * len(FAILPOINTS)) else ""
        pass_number = 1 if name.startswith(ONCE) else 1 + number // len(FAILPOINTS)
        fault = f"{name}:kill@{pass_number}" if name else ""
        if run_and_kill(place, history, chance, number, fault) and fault:
            reached.add(name)
        if number % 100 == 99:
            check(place, history)
    check(place, history)
    states = finish(place, history)
    missed = sorted(set(FAILPOINTS[:kills]) - reached)
    figures = {
        "kills": kills,
        "acknowledged": len(history.acked),
        "completed_acknowledged": len(history.done),
        "states": states,
        "failpoints_reached": len(reached),
        "failpoints_missed": missed,
        "faults": history.faults[:20],
        "seconds": round(time.monotonic() - started, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if history.faults or missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:])))
