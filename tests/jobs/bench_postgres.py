"""Speed of the store on PostgreSQL: `python bench_postgres.py [URL] [--seconds N] [--writers N] [--workers N]`.

Without a URL it starts a server with its syncs on, in the system's temporary folder. Three figures: single calls one after
another; how many events a second many writers get in side by side; and whether the load of so many workers is kept up with.
"""

from __future__ import annotations

import argparse
import multiprocessing
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
from wanreel.core.job import NewJob, Progress
from wanreel.jobs import JobStore

#: Writes a second of one busy worker: a step's progress at most every 2 s where a step takes that long, a renewal every
#: 5 s, a sample every 5 s, and a job's own beginnings and ends, about ten a minute.
PER_WORKER = 1 / 2 + 1 / 5 + 1 / 5 + 10 / 60


def opened(url: str) -> JobStore:
    return JobStore.open_server(url, Path(tempfile.gettempdir()), patience=30.0, capacity=10**6)


def write(url: str, name: str, seconds: float, pause: float, told: Any) -> None:
    """Heartbeats of one process's jobs, as fast as they go, or one every `pause` seconds."""
    store = opened(url)
    job = store.leases.claim(name)
    assert job is not None
    slowest, count, until = 0.0, 0, time.monotonic() + seconds
    due = time.monotonic()
    while (began := time.monotonic()) < until:
        if pause:
            due += pause
            time.sleep(max(0.0, due - began))
            began = time.monotonic()
        store.leases.heartbeat(job.id, job.attempt, Progress("denoise", count % 50, 50))
        slowest, count = max(slowest, time.monotonic() - began), count + 1
    told.put((count, slowest))
    store.close()


def side_by_side(url: str, writers: int, seconds: float, pause: float = 0.0) -> tuple[float, float, float]:
    """Events a second of all writers, the slowest write, and the longest a tail was behind, in seconds."""
    store = opened(url)
    for _ in range(writers):
        store.enqueue(NewJob("{}", "demo"))
    told: Any = multiprocessing.Queue()
    processes = [
        multiprocessing.Process(target=write, args=(url, f"w{number}", seconds, pause, told))
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


def processor_time(url: str, times: int) -> None:
    """What calls cost in processor time, which hardly depends on what else the machine does: ours, and the server's."""
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
        sys.stdout.write(f"{name:34} {1000 * ours / times:6.2f} ms client {1000 * theirs / times:6.2f} ms server\n")
    store.close()


def _server_pid(connection: Connection) -> int:
    return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()


def _seconds(server: psutil.Process) -> float:
    """Processor time of the server's processes."""
    times = [it.cpu_times() for it in (server, *server.children())]
    return sum(it.user + it.system for it in times)


def main(url: str, options: argparse.Namespace) -> None:
    if options.cpu:
        processor_time(url, options.times)
        return
    store = opened(url)
    sys.stdout.write("one call after another\n")
    measure(store, NewJob('{"prompt": "' + "x" * 500 + '"}', "demo", owner="first"), options.times)
    for job in store.queued(10**6):
        store.delete(job.id)
    store.close()
    rate, slowest, late = side_by_side(url, options.writers, options.seconds)
    sys.stdout.write(
        f"\n{options.writers} writers: {rate:.0f} events a second; slowest write {1000 * slowest:.0f} ms; "
        f"a tail that looks every 200 ms was behind by {1000 * late:.0f} ms at most\n"
    )
    wanted = options.workers * PER_WORKER
    rate, slowest, late = side_by_side(url, options.writers, options.seconds, options.writers / wanted)
    sys.stdout.write(
        f"the writes of {options.workers} workers, {wanted:.0f} a second: {rate:.0f} were made; slowest "
        f"{1000 * slowest:.0f} ms; tail behind by {1000 * late:.0f} ms at most\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--cpu", action="store_true", help="Processor time of single calls; the server must be here.")
    given = parser.parse_args()
    if given.url:
        main(given.url, given)
    else:
        with Server(needed(), folder=Path(tempfile.gettempdir()), fsync="on", full_page_writes="on") as server:
            server.sql("postgres", "CREATE DATABASE bench")
            main(server.url("bench"), given)
