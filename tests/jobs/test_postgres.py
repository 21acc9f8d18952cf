"""What PostgreSQL adds to the contract: writers side by side, a server that goes away, leases by its clock, announcements."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from jobs.places import posix_only
from jobs.postgres_server import Server, needed
from wanreel.core.errors import LeaseLost, SettingsError, StoreUnavailable
from wanreel.core.group import After
from wanreel.core.job import JobStatus, NewJob, Progress
from wanreel.jobs import JobStore, SharedLiveness, locks, log, signals
from wanreel.jobs.leased import Pulse
from wanreel.jobs.postgres import PostgresDatabase, postgres_url, shown
from wanreel.worker import worker
from worker.bench import Bench

NEW = NewJob("{}", "demo")


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.new_database("wanreel_template")


@pytest.fixture
def database(url: str, tmp_path: Path) -> Iterator[PostgresDatabase]:
    opened = PostgresDatabase(url, tmp_path, patience=20.0)
    yield opened
    opened.close()


@pytest.fixture
def store(database: PostgresDatabase) -> JobStore:
    return JobStore(database, capacity=1000)


class Held:
    """A transaction in a thread of its own, that stays open until it is let go."""

    def __init__(self, database: PostgresDatabase, body: Callable[[Connection], object]) -> None:
        self._begun, self._go = threading.Event(), threading.Event()

        def run(c: Connection) -> None:
            body(c)
            self._begun.set()
            assert self._go.wait(20)

        self._thread = threading.Thread(target=lambda: database.write("held", run))
        self._thread.start()
        assert self._begun.wait(20)

    def let_go(self) -> None:
        self._go.set()
        self._thread.join()


# Side by side


def test_a_tail_misses_no_event_that_becomes_visible_late(store: JobStore, database: PostgresDatabase) -> None:
    slow, fast = store.enqueue(NEW), store.enqueue(NEW)
    before = store.last_event_number()
    held = Held(database, lambda c: log.append(c, slow.id, "slow", 0.0))
    store.set_priority(fast.id, 3)
    assert store.events(fast.id)[-1].number == before + 2
    assert store.tail(after=before) == ()
    assert store.last_event_number() == before
    held.let_go()
    assert [(it.number, it.kind) for it in store.tail(after=before)] == [(before + 1, "slow"), (before + 2, "moved")]


def test_many_writers_and_a_tail_that_misses_nothing(store: JobStore) -> None:
    jobs = [store.enqueue(NEW) for _ in range(6)]
    seen: list[int] = []
    over = threading.Event()

    def tail() -> None:
        while not over.is_set() or len(store.tail(after=seen[-1] if seen else 0)):
            seen.extend(it.number for it in store.tail(after=seen[-1] if seen else 0, limit=20))

    def write(job_id: str) -> None:
        for _ in range(25):
            store._database.write("x", lambda c: log.append(c, job_id, "x", 0.0))  # pyright: ignore[reportPrivateUsage]

    reader = threading.Thread(target=tail)
    reader.start()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, [job.id for job in jobs]))
    over.set()
    reader.join()
    assert len(seen) == len(set(seen)) == 6 + 6 * 25
    assert seen == sorted(seen)


def test_a_steps_progress_is_one_statement(store: JobStore, database: PostgresDatabase) -> None:
    store.enqueue(NEW)
    job = store.leases.claim("w")
    assert job is not None
    said: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: said.append(statement))
    for step in (1, 2):
        store.leases.heartbeat(job.id, 1, Progress("denoise", step, 9), saved_step=step, detail={"seconds": 0.5})
    assert len(said) == 2
    now = store.get(job.id)
    assert (now.progress, now.attempts_charged) == (Progress("denoise", 2, 9), 1)
    (*_, last) = store.events(job.id)
    assert [it.kind for it in store.events(job.id)] == ["queued", "claimed", "step"]
    assert last.data == {"seconds": 0.5, "stage": "denoise", "step": 2, "total_steps": 9}
    with pytest.raises(LeaseLost):
        store.leases.heartbeat(job.id, 2, Progress("denoise", 3, 9))
    assert store.events(job.id)[-1] == last


def test_a_tail_waits_for_progress_that_has_begun(store: JobStore, database: PostgresDatabase) -> None:
    """Its lock is held before it waits for the job's row, though all that is one statement."""
    store.enqueue(NEW)
    job = store.leases.claim("w")
    assert job is not None
    before = store.last_event_number()
    with ThreadPoolExecutor(1) as pool:
        with database.engine.begin() as holder:
            holder.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": job.id})
            progress = pool.submit(store.leases.heartbeat, job.id, 1, Progress("denoise", 1, 2))
            while not database.read(lambda c: c.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted")).first()):
                time.sleep(0.01)
            other = store.enqueue(NEW)
            assert (store.events(other.id)[-1].number, store.last_event_number()) == (before + 1, before)
        assert not progress.result(20).cancel
    assert [it.kind for it in store.tail(after=before)] == ["queued", "step"]


def test_a_claim_passes_by_the_job_that_another_one_is_claiming(store: JobStore, database: PostgresDatabase) -> None:
    first, second = store.enqueue(NEW), store.enqueue(NEW)
    held = Held(database, lambda c: c.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": first.id}))
    claimed = store.leases.claim("w")
    held.let_go()
    assert claimed is not None
    assert claimed.id == second.id


def test_after_a_pause_no_claim_comes_late(store: JobStore, database: PostgresDatabase) -> None:
    store.enqueue(NEW)
    claiming = Held(database, locks.hold_gate_open)
    with ThreadPoolExecutor(1) as pool:
        paused = pool.submit(store.pause, "now")
        time.sleep(0.1)
        assert not paused.done()
        claiming.let_go()
        assert paused.result(20).paused
    assert store.leases.claim("w") is None


def test_text_that_postgresql_can_not_hold_is_kept_but_for_its_nul(store: JobStore) -> None:
    assert store.enqueue(NewJob("{}", "demo", owner="a\0b")).owner == "a\N{REPLACEMENT CHARACTER}b"


# A server that goes away


def terminate_others(server: Server, url: str) -> None:
    name = url.rpartition("/")[2]
    server.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")


def test_a_connection_that_is_ended_in_mid_transaction_costs_nothing(
    store: JobStore, postgres: Server, url: str, database: PostgresDatabase
) -> None:
    job, runs = store.enqueue(NEW), 0

    def body(c: Connection) -> None:
        nonlocal runs
        runs += 1
        log.append(c, job.id, "once", 0.0)
        if runs == 1:
            terminate_others(postgres, url)

    database.write("body", body)
    assert runs == 2
    assert [it.kind for it in store.events(job.id)] == ["queued", "once"]


@pytest.mark.parametrize("committed", [True, False])
def test_when_the_answer_to_a_commit_is_lost_the_server_is_asked(
    store: JobStore, postgres: Server, url: str, database: PostgresDatabase, committed: bool
) -> None:
    """So nothing is handed in twice, and nothing is forgotten."""
    dialect, broken = database.engine.dialect, []
    commit = dialect.do_commit

    def do_commit(connection: object) -> None:
        if not broken:
            broken.append(1)
            if committed:
                commit(connection)  # type: ignore[arg-type]
            terminate_others(postgres, url)
            connection.execute("SELECT 1")  # type: ignore[attr-defined]
        commit(connection)  # type: ignore[arg-type]

    dialect.do_commit = do_commit  # type: ignore[method-assign]
    job = store.enqueue(NEW)
    del dialect.do_commit  # type: ignore[misc]
    assert broken
    assert [it.id for it in store.list()] == [job.id]
    assert [it.kind for it in store.events(job.id)] == ["queued"]


@pytest.fixture
def own_server() -> Iterator[Server]:
    """One that may be stopped, and that survives it."""
    with Server(needed(), fsync="on") as server:
        server.sql("postgres", "CREATE DATABASE w")
        yield server


def work_until(over: threading.Event, store: JobStore) -> int:
    """Jobs from hand-in to completion, one after the other. Returns how many."""
    done = 0
    while not over.is_set():
        accepted = store.enqueue(NEW)
        job = store.leases.claim("w")
        assert job is not None
        assert job.id == accepted.id
        store.leases.heartbeat(job.id, 1, Progress("denoise", 1, 2))
        store.leases.complete(job.id, job.attempt, "ab")
        done += 1
    return done


@posix_only
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_work_goes_on_after_the_server_was_restarted(own_server: Server, tmp_path: Path, how: signal.Signals) -> None:
    """SIGINT ends each connection with 57P01, as a failover does; SIGQUIT is a crash."""
    database = PostgresDatabase(own_server.url("w"), tmp_path, patience=30.0)
    store, told = JobStore(database, capacity=10**6), queue.SimpleQueue[str]()
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool, store.listening({signals.LINE: told.put}):
        worked = pool.submit(work_until, over, store)
        told.get(timeout=20)
        own_server.stop(how)
        own_server.start()
        while not told.empty():
            told.get()
        told.get(timeout=20)  # the listener is back too
        over.set()
        done = worked.result(60)
    jobs = store.list(limit=10**6)
    assert len(jobs) == done
    assert {(job.status, job.attempt) for job in jobs} == {(JobStatus.COMPLETED, 1)}
    own_server.stop()
    database.patience = 0.2
    with pytest.raises(StoreUnavailable) as away:
        store.queue()
    assert away.value.retryable
    store.close()


def test_an_address_without_a_server_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        PostgresDatabase("postgresql://ann:secret@127.0.0.1:1/w", tmp_path, patience=0.0)
    assert "secret" not in str(refused.value)
    assert "ann@127.0.0.1:1/w" in str(refused.value)
    for wrong in ("mysql://ann:secret@host/w", "nonsense secret"):
        with pytest.raises(SettingsError) as bad:
            postgres_url(wrong)
        assert "secret" not in str(bad.value)
    assert shown(postgres_url("postgresql://a:secret@h/w?password=secret")) == "postgresql://a@h/w"


def test_commits_are_durable_whatever_the_servers_default(store: JobStore, postgres: Server, url: str) -> None:
    name = url.rpartition("/")[2]
    postgres.sql("postgres", f"ALTER DATABASE {name} SET synchronous_commit = 'off'")
    store._database.close()  # pyright: ignore[reportPrivateUsage]

    def shown_by(c: Connection) -> object:
        return c.execute(text("SHOW synchronous_commit")).scalar_one()

    assert store._database.read(shown_by) == "on"  # pyright: ignore[reportPrivateUsage]


# Leases


class Hand:
    """A clock set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def age(database: PostgresDatabase, worker: str, seconds: float) -> None:
    statement = text("UPDATE workers SET renewed_at = renewed_at - :s WHERE name = :n")
    database.write("age", lambda c: c.execute(statement, {"s": seconds, "n": worker}))


def test_a_lease_that_ran_out_is_believed_after_a_while(
    store: JobStore, database: PostgresDatabase, tmp_path: Path
) -> None:
    """A database that was away lets every lease run out: those who live renew before anybody is declared dead."""
    clock = Hand()
    liveness = SharedLiveness(tmp_path / "workers", store.leases, 30.0, clock)
    store.enqueue(NEW)
    for name in ("far-1", "far-2"):
        store.leases.register(name)
    job = store.leases.claim("far-1")
    assert job is not None
    for name in ("far-1", "far-2"):
        age(database, name, 31.0)
    assert liveness.dead(store.leases) == frozenset()
    store.leases.renew("far-2")
    clock.now += 11.0
    assert liveness.dead(store.leases) == {"far-1"}
    assert not liveness.is_alive("far-1")
    assert liveness.is_alive("far-2")
    assert [it.id for it in store.leases.take_back({"far-1"})] == [job.id]
    clock.now += 11.0
    assert liveness.dead(store.leases) == frozenset()
    with pytest.raises(LeaseLost):
        store.leases.complete(job.id, job.attempt, "late")


def test_a_holder_that_is_not_on_the_list_is_found(store: JobStore, tmp_path: Path) -> None:
    clock = Hand()
    liveness = SharedLiveness(tmp_path / "workers", store.leases, 30.0, clock)
    store.enqueue(NEW)
    store.leases.claim("nobody")
    assert liveness.dead(store.leases) == frozenset()
    clock.now += 11.0
    assert liveness.dead(store.leases) == {"nobody"}


def test_a_worker_of_this_machine_is_found_dead_by_its_lock(store: JobStore, tmp_path: Path) -> None:
    liveness = SharedLiveness(tmp_path / "workers", store.leases, 30.0)
    name, lock = liveness.new_worker("cpu")
    store.leases.register(name)
    assert liveness.dead(store.leases) == frozenset()
    lock.release()
    assert liveness.dead(store.leases) == {name}


def test_a_pulse_keeps_a_lease_and_comes_back_on_the_list(store: JobStore, database: PostgresDatabase) -> None:
    store.leases.register("w")
    age(database, "w", 100.0)
    renewed = threading.Event()

    def renew() -> None:
        store.leases.renew("w", "cuda:0")
        renewed.set()

    with Pulse(renew, 0.02):
        assert renewed.wait(20)
        assert store.leases.overdue(30.0) == {}
        store.leases.unregister("w")
        renewed.clear()
        assert renewed.wait(20)
        assert renewed.wait(20)
    assert dict(store.workers()) == {"w": "cuda:0"}


ZOMBIE = """
import pathlib, sys
from wanreel.core.errors import LeaseLost
from wanreel.jobs import JobStore
from wanreel.jobs.leased import Pulse
store = JobStore.open_server(sys.argv[1], pathlib.Path(sys.argv[2]), patience=30.0)
store.leases.register("zombie")
job = store.leases.claim("zombie")
with Pulse(lambda: store.leases.renew("zombie"), 0.1):
    print("claimed", flush=True)
    sys.stdin.readline()
    try:
        store.leases.complete(job.id, job.attempt, "from the dead")
    except LeaseLost:
        print("fenced", flush=True)
"""


@posix_only
def test_a_worker_that_was_stopped_past_its_lease_is_fenced(store: JobStore, url: str, tmp_path: Path) -> None:
    """T8 with leases: nobody is told who is dead, the database's clock says it."""
    job = store.enqueue(NEW)
    command = [sys.executable, "-c", ZOMBIE, url, str(tmp_path)]
    zombie = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert zombie.stdout is not None
    assert zombie.stdout.readline() == "claimed\n"
    liveness = SharedLiveness(tmp_path / "elsewhere" / "workers", store.leases, 1.0)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert liveness.dead(store.leases) == frozenset()
        time.sleep(0.1)
    os.kill(zombie.pid, signal.SIGSTOP)
    until = time.monotonic() + 30.0
    while not (dead := liveness.dead(store.leases)) and time.monotonic() < until:
        time.sleep(0.05)
    assert [it.id for it in store.leases.take_back(dead)] == [job.id]
    again = store.leases.claim("living")
    assert again is not None
    store.leases.complete(job.id, again.attempt, "from the living")
    os.kill(zombie.pid, signal.SIGCONT)
    out, _ = zombie.communicate("go on\n", timeout=60)
    assert out == "fenced\n"
    assert store.get(job.id).result_sha256 == "from the living"


# Announcements


def test_workers_and_watchers_are_told(store: JobStore) -> None:
    heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    calls = {topic: lambda word, topic=topic: heard.put((topic, word)) for topic in (signals.LINE, signals.ORDERS)}
    with store.listening(calls):
        assert {heard.get(timeout=20) for _ in range(2)} == {(signals.LINE, ""), (signals.ORDERS, "")}
        for name in ("w-1", "w-2", "w-3"):
            store.leases.register(name)
        job = store.enqueue(NewJob("{}", "demo", adapters="gold@1"))
        assert called(heard) == [job.id, 3, "demo", "gold@1"]
        assert store.leases.claim("w-1") is not None
        assert called(heard) == [job.id]
        waiting = store.enqueue(NewJob("{}", "demo", after=(After(job.id),)))
        other = store.enqueue(NEW)
        assert called(heard) == [other.id, 2, "demo", ""]  # nobody is told of the one that waits
        store.leases.heartbeat(job.id, 1, Progress("denoise", 1, 2))
        store.cancel(job.id)
        assert heard.get(timeout=20) == (signals.ORDERS, "w-1")
        store.leases.drain("w-2")
        assert heard.get(timeout=20) == (signals.ORDERS, "w-2")
        store.retry(store.leases.confirm_cancel(job.id, 1).id)
        assert called(heard) == [job.id, 3, "demo", "gold@1"]
        for expected in (other.id, job.id):
            claimed = store.leases.claim("w-1")
            assert claimed is not None and claimed.id == expected
            assert called(heard) == [expected]
        store.leases.complete(job.id, 2, "ab")
        assert called(heard) == [waiting.id, 2, "demo", ""]
        store.pause("now")
        store.resume()
        assert heard.get(timeout=20) == (signals.LINE, "")
        assert heard.empty()


def called(heard: queue.SimpleQueue[tuple[str, str]]) -> list[object]:
    """What was said of the line."""
    topic, word = heard.get(timeout=20)
    assert topic == signals.LINE
    return json.loads(word)


@pytest.mark.parametrize("others", [0, 1])
def test_a_worker_takes_what_is_called_out(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """It looks for nothing by itself, and has a colleague who would be first if he held the model."""
    monkeypatch.setattr(worker, "_IDLE_SHARED", 3600.0)
    bench = Bench(tmp_path, store)
    for number in range(others):
        store.leases.register(f"other-{number}")
    idle, rest = threading.Event(), bench.worker()
    looks = store.leases.may_claim
    monkeypatch.setattr(store.leases, "may_claim", lambda *args: (looks(*args), idle.set())[0])
    thread = threading.Thread(target=rest.run)
    thread.start()
    try:
        assert idle.wait(20)
        job = bench.submit()
        assert [it.kind for it in bench.service.watch(job.id)][-1] == "completed"
    finally:
        rest.stop("SIGTERM")
        thread.join(30)
        bench.service.close()
    assert not thread.is_alive()


def test_a_watcher_hears_before_it_would_have_looked(store: JobStore) -> None:
    from wanreel.service.tailer import Tailer

    tailer = Tailer(
        lambda number: store.tail(after=number),
        store.last_event_number,
        seconds=60.0,
        alarm=lambda call: store.listening({signals.NEWS: lambda _word: call()}),
    )
    job = store.enqueue(NEW)
    with tailer.follow(job.id) as news:
        store.cancel(job.id)
        event_ = news.next(20.0)
        assert event_ is not None
        assert event_.kind == "cancelled"
    tailer.close()


def test_event_streams_and_figures_hear_before_they_would_have_looked(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With looks once a minute, what begins and ends is seen at once; and steps by the looks."""
    from wanreel.frontends.http import wakes
    from wanreel.frontends.http.news import News
    from wanreel.frontends.http.pulse import Pulse
    from wanreel.worker.sampling import Probe

    monkeypatch.setattr(wakes, "_LOOK_STEPS", 60.0)
    service: Any = SimpleNamespace(store=store, get=store.get, queue=store.queue)
    job = store.enqueue(NEW)

    async def follow() -> None:
        heard = wakes.Wakes(store)
        news, pulse = News(service, heard), Pulse(service, Probe(tmp_path, "cpu"), 60.0, heard)
        counted = asyncio.Event()
        pulse.observe(lambda event_: loop.call_soon_threadsafe(counted.set) and None)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20), heard.listening(), asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(news.tell()), tasks.create_task(pulse.run())]
            stream = news.of_job(job.id, 0)
            first = await anext(stream)
            assert first is not None and first.kind == "queued"
            while not pulse.moments:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(store.cancel, job.id)
            last = await anext(stream)
            assert last is not None and last.kind == "cancelled"
            await counted.wait()
            for task in background:
                task.cancel()

    asyncio.run(follow())
