"""Messages about the ends of jobs: one for each end, one sender at a time, until delivered or given up."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from jobs.places import open_place, posix_only
from wanreel.core.delivery import Delivery, DeliveryState
from wanreel.core.job import Job, JobFailure, JobStatus, NewJob
from wanreel.jobs import JobStore
from wanreel.jobs.outbox import DELAYS, LEASE

URL = "https://hooks.example/x?token=t"
BROKE = JobFailure("out_of_memory", "There was not enough memory.", "Ask for less.")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: str, clock: Clock) -> Iterator[JobStore]:
    opened = JobStore(open_place(place), capacity=1000, max_attempts=1, clock=clock)
    yield opened
    opened.close()


def add(store: JobStore, url: str = URL, owner: str = "ann") -> str:
    return store.enqueue(NewJob("{}", "demo", owner=owner, webhook_url=url)).id


def claim(store: JobStore) -> Job:
    job = store.leases.claim("w")
    assert job is not None
    return job


def complete(store: JobStore) -> None:
    job = claim(store)
    store.leases.complete(job.id, job.attempt, "ab")


def fail(store: JobStore) -> None:
    job = claim(store)
    store.leases.fail(job.id, job.attempt, BROKE)


def poison(store: JobStore) -> None:
    claim(store)
    store.leases.recover(lambda worker: False)


def cancel_queued(store: JobStore) -> None:
    store.cancel(store.queued()[0].id)


def cancel_running(store: JobStore) -> None:
    job = claim(store)
    store.cancel(job.id)
    store.leases.confirm_cancel(job.id, job.attempt)


def cancel_draining(store: JobStore) -> None:
    job = claim(store)
    store.cancel(job.id)
    store.leases.requeue(job.id, job.attempt, "drain")


def take(store: JobStore) -> Delivery:
    taken = store.outbox.take()
    assert taken is not None
    return taken


@pytest.mark.parametrize(
    ("end", "kind", "code"),
    [
        (complete, JobStatus.COMPLETED, None),
        (fail, JobStatus.FAILED, "out_of_memory"),
        (poison, JobStatus.FAILED, "poison"),
        (cancel_queued, JobStatus.CANCELLED, None),
        (cancel_running, JobStatus.CANCELLED, None),
        (cancel_draining, JobStatus.CANCELLED, None),
    ],
)
def test_every_end_is_told(store: JobStore, end: Callable[[JobStore], None], kind: JobStatus, code: str | None) -> None:
    job_id = add(store)
    assert store.outbox.take() is None
    assert store.outbox.reports([job_id])[job_id].state is DeliveryState.WAITING
    end(store)
    taken = take(store)
    assert (taken.job_id, taken.owner, taken.kind, taken.url, taken.attempts) == (job_id, "ann", kind, URL, 1)
    assert taken.data.get("code") == code and taken.id.startswith("msg_")
    assert store.outbox.take() is None


def test_nobody_is_told_who_did_not_ask(store: JobStore) -> None:
    job_id = add(store, url="")
    complete(store)
    assert store.outbox.take() is None and store.outbox.reports([job_id]) == {} == store.outbox.reports([])


def test_delivered_once_and_for_all(store: JobStore, clock: Clock) -> None:
    job_id = add(store)
    complete(store)
    store.outbox.delivered(take(store), "status 204")
    clock.now += 10 * max(DELAYS)
    assert store.outbox.take() is None
    report = store.outbox.reports([job_id])[job_id]
    assert (report.state, report.attempts, report.outcome) == (DeliveryState.DELIVERED, 1, "status 204")


def test_tried_for_a_day_and_then_given_up(store: JobStore, clock: Clock) -> None:
    job_id = add(store)
    complete(store)
    began, ids, waits = clock.now, set[str](), list[float]()
    for delay in (*DELAYS, 0.0):
        taken = take(store)
        ids.add(taken.id)
        store.outbox.failed(taken, "status 500", jitter=0.0)
        waits.append(clock.now - began)
        clock.now += delay - 0.5
        assert store.outbox.take() is None
        clock.now += 0.5
    assert len(ids) == 1
    assert waits[:3] == [0.0, 5.0, 35.0] and 24 * 3600 <= waits[-1] < 26 * 3600
    report = store.outbox.reports([job_id])[job_id]
    assert (report.state, report.attempts) == (DeliveryState.GIVEN_UP, len(DELAYS) + 1)
    clock.now += 10 * max(DELAYS)
    assert store.outbox.take() is None


def test_jitter_only_lengthens(store: JobStore, clock: Clock) -> None:
    for jitter, due in ((0.0, 5.0), (1.0, 6.25)):
        add(store)
        complete(store)
        taken = take(store)
        store.outbox.failed(taken, "no answer", jitter=jitter)
        clock.now += due - 0.1
        assert store.outbox.take() is None
        clock.now += 0.2
        store.outbox.delivered(take(store), "status 200")


@pytest.mark.parametrize("jump", [-365 * 86400.0, 365 * 86400.0])
def test_a_clock_that_jumps_loses_nothing(store: JobStore, clock: Clock, jump: float) -> None:
    add(store)
    complete(store)
    for _ in range(8):
        store.outbox.failed(take(store), "no answer", jitter=0.0)
        clock.now += 2 * max(DELAYS)
    clock.now += jump
    assert take(store).attempts == 9


def test_a_sender_that_died_has_cost_one_attempt(store: JobStore, clock: Clock) -> None:
    add(store)
    complete(store)
    first = take(store)
    clock.now += LEASE - 1
    assert store.outbox.take() is None
    clock.now += 2
    second = take(store)
    assert (second.id, second.attempts) == (first.id, 2)
    store.outbox.delivered(second, "status 200")
    # The first one was only slow, and must not undo what the second achieved.
    store.outbox.failed(first, "no answer", jitter=0.0)
    clock.now += 10 * LEASE
    assert store.outbox.take() is None


def test_senders_do_not_take_each_others_messages(place: str) -> None:
    first = JobStore(open_place(place), capacity=1000)
    for _ in range(40):
        add(first)
        complete(first)
    taken: list[str] = []

    def send() -> None:
        store = JobStore(open_place(place))
        while (message := store.outbox.take()) is not None:
            taken.append(message.id)
            store.outbox.delivered(message, "status 200")
        store.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first.close()
    assert len(taken) == len(set(taken)) == 40


def test_a_deleted_job_is_still_told_of_and_then_forgotten(store: JobStore) -> None:
    job_id = add(store)
    cancel_queued(store)
    store.delete(job_id)
    assert store.outbox.reports([job_id]) == {}
    taken = take(store)
    assert taken.job_id == job_id
    store.outbox.delivered(taken, "status 200")
    assert _messages(store) == 0


def test_deleting_a_job_deletes_what_was_delivered(store: JobStore) -> None:
    job_id = add(store)
    complete(store)
    store.outbox.delivered(take(store), "status 200")
    assert _messages(store) == 1
    store.delete(job_id)
    assert _messages(store) == 0


def _messages(store: JobStore) -> int:
    from sqlalchemy import func, select

    from wanreel.jobs.tables import deliveries

    return store._database.read(lambda c: c.scalar(select(func.count()).select_from(deliveries))) or 0


def test_a_job_that_ends_twice_is_told_of_twice(store: JobStore) -> None:
    job_id = add(store)
    fail(store)
    store.outbox.delivered(take(store), "status 200")
    store.retry(job_id)
    assert store.outbox.reports([job_id])[job_id].state is DeliveryState.WAITING
    complete(store)
    assert take(store).kind is JobStatus.COMPLETED
    assert store.outbox.reports([job_id])[job_id].state is DeliveryState.PENDING


@posix_only
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside xdist's threads
@pytest.mark.parametrize(("fault", "told"), [("complete.before_commit", False), ("complete.after_commit", True)])
def test_killed_while_a_job_ends(place: str, fault: str, told: bool) -> None:
    """The end and its message are on disk together, or neither is."""
    store = JobStore(open_place(place))
    job_id = add(store)
    store.close()
    pid = os.fork()
    if pid == 0:
        try:
            complete(JobStore(open_place(place, f"{fault}:kill")))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    again = JobStore(open_place(place))
    assert again.get(job_id).ended is told
    assert (again.outbox.take() is not None) is told
    again.close()
