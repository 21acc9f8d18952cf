"""Speed of the store on PostgreSQL: `python tests/jobs/bench_postgres.py [URL] [--json]`, and see `--help`.

Without a URL it starts a server with its syncs on, in the system's temporary folder. Four figures: single calls one after
another; what they cost in processor time; how many events a second many writers get in side by side; and whether the calls of
so many workers are kept up with: progress, renewals, samples, and jobs that end and are claimed. `--json` writes them to
docs/measured/postgres.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection, text

sys.path.insert(0, str(Path(__file__).parents[1]))

from jobs.bench_store import measure
from jobs.postgres_server import Server, needed
from wanreel.core.job import Job, NewJob, Progress
from wanreel.jobs import JobStore
from wanreel.worker.sampling import Probe

#: Writes a second of one busy worker: a step's progress at most every 2 s where a step takes that long, a renewal every
#: 5 s, a sample every 5 s, and a job's own beginnings and ends, about ten a minute.
RATES = {"progress": 1 / 2, "renew": 1 / 5, "sample": 1 / 5, "ends": 10 / 60}
PER_WORKER = sum(RATES.values())
REPORT = Path(__file__).parents[2] / "docs" / "measured" / "postgres.json"


class Busy:
    """What workers do, by one process in the place of many."""

    def __init__(self, store: JobStore, name: str) -> None:
        self._store, self._name, self._count = store, name, 0
        self._chance = random.Random(name)
        self._sample = Probe(Path(tempfile.gettempdir()), "cpu").sample()
        store.leases.register(name)
        self._job = self._claimed()

    def progress(self) -> int:
        self._count += 1
        self._store.leases.heartbeat(self._job.id, self._job.attempt, Progress("denoise", self._count % 50, 50))
        return 1

    def renew(self) -> int:
        self._store.leases.renew(self._name)
        return 1

    def sample(self) -> int:
        self._store.leases.report(self._name, self._sample)
        return 1

    def ends(self) -> int:
        """A job ends, another one is handed in and claimed."""
        self._store.leases.complete(self._job.id, self._job.attempt, "ab", seconds=1.0)
        self._store.enqueue(NewJob("{}", "demo"))
        self._job = self._claimed()
        return 3

    def any(self) -> int:
        """One of these, as often as workers do it. Returns how many writes it was."""
        weights = [RATES["progress"], RATES["renew"], RATES["sample"], RATES["ends"] / 3]
        (deed,) = self._chance.choices((self.progress, self.renew, self.sample, self.ends), weights)
        return deed()

    def _claimed(self) -> Job:
        job = self._store.leases.claim(self._name)
        assert job is not None
        return job


def opened(url: str) -> JobStore:
    return JobStore.open_server(url, Path(tempfile.gettempdir()), patience=30.0, capacity=10**6)


def write(url: str, name: str, seconds: float, rate: float, told: Any) -> None:
    """Progress of one process's job, as fast as it goes, or all that workers do at `rate` writes a second."""
    store = opened(url)
    busy = Busy(store, name)
    slowest, count, until = 0.0, 0, time.monotonic() + seconds
    due = time.monotonic()
    while (began := time.monotonic()) < until:
        if rate:
            time.sleep(max(0.0, due - began))
            began = time.monotonic()
        done = busy.any() if rate else busy.progress()
        due += done / rate if rate else 0.0
        slowest, count = max(slowest, time.monotonic() - began), count + done
    told.put((count, slowest))
    store.close()


def side_by_side(url: str, writers: int, seconds: float, rate: float = 0.0) -> tuple[float, float, float]:
    """Writes a second of all writers, the slowest write, and the longest a tail was behind, in seconds."""
    store = opened(url)
    for _ in range(writers):
        store.enqueue(NewJob("{}", "demo"))
    told: Any = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=write, args=(url, f"w{number}-{rate:g}", seconds, rate / writers, told))
        for number in range(writers)
    ]
    over, late = threading.Event(), [0.0]

    def tail() -> None:
        position = store.last_event_number()
        while not over.wait(0.2):
            while page := store.tail(after=position):
                position = page[-1].number
                late[0] = max(late[0], time.time() - page[0].at)

    reader = threading.Thread(target=tail)
    for process in processes:
        process.start()
    reader.start()
    results = [told.get() for _ in processes]
    over.set()
    reader.join()
    for process in processes:
        process.join()
    store.close()
    return sum(count for count, _ in results) / seconds, max(slowest for _, slowest in results), late[0]


def processor_time(url: str, times: int) -> dict[str, tuple[float, float]]:
    """What calls cost in ms of processor time, which hardly depends on what else the machine does: ours, and the server's."""
    found: dict[str, tuple[float, float]] = {}
    store = opened(url)
    pid = store._database.read(_server_pid)  # pyright: ignore[reportPrivateUsage]
    server = psutil.Process(pid).parent()
    assert server is not None
    store.enqueue(NewJob("{}", "demo"))
    job = store.leases.claim("w")
    assert job is not None
    calls: dict[str, Callable[[], object]] = {
        "enqueue": lambda: store.enqueue(NewJob("{}", "demo")),
        "heartbeat with progress": lambda: store.leases.heartbeat(job.id, 1, Progress("denoise", 1, 2)),
        "heartbeat without": lambda: store.leases.heartbeat(job.id, 1),
        "lease renewed": lambda: store.leases.renew("w"),
        "claim": lambda: store.leases.claim("w"),
        "claim that finds nothing": lambda: (store.pause("bench"), store.leases.claim("w"))[1],
    }
    for name, call in calls.items():
        call()
        ours, theirs = time.process_time(), _seconds(server)
        for _ in range(times):
            call()
        ours, theirs = time.process_time() - ours, _seconds(server) - theirs
        found[name] = (1000 * ours / times, 1000 * theirs / times)
        sys.stdout.write(f"{name:34} {found[name][0]:6.2f} ms client {found[name][1]:6.2f} ms server\n")
    store.resume()
    _empty(store)
    store.close()
    return found


def _empty(store: JobStore) -> None:
    for job in store.leases.held_by({"w"}):
        store.leases.complete(job.id, job.attempt, "ab")
    for job in store.queued(10**6):
        store.delete(job.id)


def _server_pid(connection: Connection) -> int:
    return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()


def _seconds(server: psutil.Process) -> float:
    """Processor time of the server's processes."""
    times = [it.cpu_times() for it in (server, *server.children())]
    return sum(it.user + it.system for it in times)


def main(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Says the figures, and returns them."""
    figures: dict[str, Any] = {"load_before": os.getloadavg()[0], "cores": os.cpu_count()}
    store = opened(url)
    figures["server"] = store._database.read(_version)  # pyright: ignore[reportPrivateUsage]
    sys.stdout.write("one call after another\n")
    measured = measure(store, NewJob('{"prompt": "' + "x" * 500 + '"}', "demo", owner="first"), options.times)
    figures["ms median, ms p99, a second"] = {name: _rounded(it) for name, it in measured.items()}
    _empty(store)
    store.close()
    if options.here:
        figures["ms client, ms server"] = {
            it: _rounded(cost) for it, cost in processor_time(url, options.times).items()
        }
    rate, slowest, late = side_by_side(url, options.writers, options.seconds)
    figures["side by side"] = _told(options.writers, rate, slowest, late)
    sys.stdout.write(
        f"\n{options.writers} writers: {rate:.0f} events a second; slowest write {1000 * slowest:.0f} ms; "
        f"a tail that looks every 200 ms was behind by {1000 * late:.0f} ms at most\n"
    )
    wanted = options.workers * PER_WORKER
    rate, slowest, late = side_by_side(url, options.writers, options.seconds, wanted)
    figures["of workers"] = {"workers": options.workers, "wanted": wanted} | _told(options.writers, rate, slowest, late)
    sys.stdout.write(
        f"the writes of {options.workers} workers, {wanted:.0f} a second: {rate:.0f} were made; slowest "
        f"{1000 * slowest:.0f} ms; tail behind by {1000 * late:.0f} ms at most\n"
    )
    return figures | {"load_after": os.getloadavg()[0]}


def _told(writers: int, rate: float, slowest: float, late: float) -> dict[str, float]:
    return {
        "writers": writers,
        "writes_a_second": round(rate, 1),
        "slowest_ms": round(1000 * slowest),
        "tail_behind_ms": round(1000 * late),
    }


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 2) for value in values]


def _version(connection: Connection) -> str:
    return str(connection.execute(text("SHOW server_version")).scalar_one())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--here", action="store_true", help="The server runs here: measure its processor time too.")
    parser.add_argument("--json", nargs="?", type=Path, const=REPORT, help="Write the figures to a file.")
    given = parser.parse_args()
    if given.url:
        told = main(given.url, given)
    else:
        with Server(needed(), folder=Path(tempfile.gettempdir()), fsync="on", full_page_writes="on") as server:
            server.sql("postgres", "CREATE DATABASE bench")
            given.here = True
            told = main(server.url("bench"), given)
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n")
