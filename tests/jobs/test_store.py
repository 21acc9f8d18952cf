"""The store's behaviour in particular cases; the whole of it is held by test_contract.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.places import open_place
from wanreel.core.errors import (
    Cancelled,
    IdempotencyConflict,
    IllegalTransition,
    InvalidRequest,
    JobNotFound,
    LeaseLost,
    QueueFull,
    SettingsError,
)
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import ArtifactRef, Job, JobFailure, JobStatus, NewJob, Outcome, Progress
from wanreel.jobs import JobStore, Liveness


@pytest.fixture
def store(place: str) -> Iterator[JobStore]:
    opened = JobStore(open_place(place), capacity=1000)
    yield opened
    opened.close()


def add(store: JobStore, owner: str = "", priority: int = 0, request: str = "{}") -> Job:
    return store.enqueue(NewJob(request, "demo", owner=owner, priority=priority))


def finish(store: JobStore, seconds: float = 1.0) -> Job:
    job = store.leases.claim("w")
    assert job is not None
    return store.leases.complete(job.id, job.attempt, "ab", seconds=seconds)


def test_a_job_keeps_what_it_was_given(store: JobStore) -> None:
    request = json.dumps({"prompt": "naïve 漢字 \u2028", "seed": 2**62})
    new = NewJob(request, "ti2v-5b", owner="ann", priority=3, parent_id="p", time_limit=90.0)
    job = store.get(store.enqueue(new).id)
    assert (job.request, job.model, job.owner, job.priority) == (request, "ti2v-5b", "ann", 3)
    assert (job.parent_id, job.time_limit, job.status, job.attempt) == ("p", 90.0, JobStatus.QUEUED, 0)
    assert len(job.id) == 32
    assert not job.ended
    assert job.evolve(owner="bob").owner == "bob"


def test_owners_take_turns(store: JobStore) -> None:
    many = [add(store, "ann") for _ in range(5)]
    few = [add(store, "bob") for _ in range(2)]
    order = [job.id for job in store.queued()]
    assert order == [many[0].id, few[0].id, many[1].id, few[1].id, many[2].id, many[3].id, many[4].id]


def test_a_newcomer_waits_for_one_running_job_only(store: JobStore) -> None:
    for _ in range(20):
        add(store, "ann")
    for _ in range(5):
        finish(store)
    assert store.leases.claim("w") is not None
    newcomer = add(store, "bob")
    standing = store.standing(newcomer.id)
    assert standing is not None
    assert standing.position == 1


def test_a_newcomer_does_not_catch_up_on_turns_before_his_time(store: JobStore) -> None:
    for _ in range(8):
        add(store, "ann")
    for _ in range(4):
        finish(store)
    for _ in range(3):
        add(store, "bob")
    assert [job.owner for job in store.queued(6)] == ["bob", "ann", "bob", "ann", "bob", "ann"]


def test_somebody_who_comes_back_again_and_again_does_not_starve_a_longer_line(store: JobStore) -> None:
    waiting = add(store, "ann"), add(store, "ann")
    for _ in range(4):
        add(store, "bob")
        finish(store)
    assert {store.get(job.id).status for job in waiting} == {JobStatus.COMPLETED}


def test_priority_goes_first(store: JobStore) -> None:
    low, high = add(store, priority=0), add(store, priority=9)
    assert [job.id for job in store.queued()] == [high.id, low.id]
    assert store.set_priority(low.id, 10).priority == 10
    assert store.queued()[0].id == low.id


def test_moving_to_one_place_again_and_again(store: JobStore) -> None:
    # Each move halves the gap between two places; floats have room for some fifty halvings.
    jobs = [add(store, f"owner-{number}").id for number in range(4)]
    expected = list(jobs)
    for turn in range(200):
        moved = expected[3] if turn % 2 else expected[0]
        expected.remove(moved)
        expected.insert(2, moved)
        before = expected[3]
        store.move(moved, before=before)
        assert [job.id for job in store.queued()] == expected


def test_prediction_comes_from_measured_seconds(store: JobStore) -> None:
    for _ in range(3):
        add(store)
    for _ in range(2):
        finish(store, seconds=10.0)
    add(store)
    last = add(store)
    standing = store.standing(last.id)
    assert standing is not None
    assert (standing.position, standing.starts_in) == (3, 20.0)
    assert store.leases.claim("w") is not None
    running = store.standing(last.id)
    assert running is not None
    assert (running.position, running.starts_in) == (2, 20.0)
    store.pause("maintenance")
    paused = store.standing(last.id)
    assert paused is not None
    assert paused.starts_in is None
    assert store.standing(store.list(status=JobStatus.COMPLETED)[0].id) is None


def test_a_full_queue_says_when_to_come_back(place: str) -> None:
    small = JobStore(open_place(place), capacity=2)
    add(small)
    finish(small, seconds=42.0)
    add(small)
    add(small)
    with pytest.raises(QueueFull) as refused:
        add(small)
    assert refused.value.retry_after == 1.0, "nothing runs, so there is room as soon as a worker claims"
    assert small.leases.claim("w") is not None
    add(small)
    with pytest.raises(QueueFull) as refused:
        add(small)
    assert refused.value.retry_after == 42.0
    small.close()


def test_fifty_equal_submissions_make_one_job(store: JobStore) -> None:
    with ThreadPoolExecutor(50) as pool:
        new = NewJob("{}", "demo", owner="ann")
        ids = {job.id for job in pool.map(lambda _: store.enqueue(new, idempotency_key="k"), range(50))}
    assert len(ids) == 1
    assert store.queue().queued == 1


def test_an_idempotency_key_is_for_one_owner_and_one_body(store: JobStore) -> None:
    first = store.enqueue(NewJob('{"seed": 1}', "demo", owner="ann"), idempotency_key="k", body="the body")
    again = store.enqueue(NewJob('{"seed": 2}', "demo", owner="ann"), idempotency_key="k", body="the body")
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict):
        store.enqueue(NewJob('{"seed": 1}', "demo", owner="ann"), idempotency_key="k", body="another")
    assert store.enqueue(NewJob("{}", "demo", owner="bob"), idempotency_key="k").id != first.id


def test_a_key_still_works_when_the_queue_is_full(place: str) -> None:
    small = JobStore(open_place(place), capacity=1)
    job = small.enqueue(NewJob("{}", "demo"), idempotency_key="k")
    assert small.enqueue(NewJob("{}", "demo"), idempotency_key="k").id == job.id
    small.close()


def test_pages_follow_one_another(store: JobStore) -> None:
    ids = [add(store, "ann" if number % 2 else "bob").id for number in range(7)]
    first = store.list(limit=3)
    second = store.list(limit=3, after=first[-1].id)
    assert [job.id for job in (*first, *second)] == ids[:0:-1]
    assert [job.id for job in store.list(newest_first=False, after=ids[4])] == ids[5:]
    assert [job.id for job in store.list(owner="bob", limit=2)] == [ids[6], ids[4]]
    assert store.list(status=JobStatus.FAILED) == ()
    with pytest.raises(JobNotFound):
        store.list(after="nothing")


def test_an_attempt_is_counted_before_it_starts_and_three_are_all(store: JobStore) -> None:
    job = add(store)
    other = add(store)
    for number in (1, 2, 3):
        claimed = store.leases.claim(f"w{number}")
        assert claimed is not None
        assert (claimed.id, claimed.attempts_charged) == (job.id, number)
        (result,) = store.leases.recover(lambda _: False)
    assert result.status is JobStatus.FAILED
    assert result.error is not None
    assert result.error.code == "poison"
    assert "3 attempts" in result.error.message
    assert [attempt.outcome for attempt in store.attempts(job.id)] == [Outcome.LOST] * 3
    following = store.leases.claim("w4")
    assert following is not None
    assert following.id == other.id


def test_a_job_that_gets_further_each_time_is_no_poison(store: JobStore) -> None:
    job = add(store)
    for step in range(1, 8):
        claimed = store.leases.claim(f"w{step}")
        assert claimed is not None
        store.leases.heartbeat(job.id, claimed.attempt, Progress("denoise", step, 8), saved_step=step)
        (result,) = store.leases.recover(lambda _: False)
        assert result.status is JobStatus.QUEUED
    result = job
    for _ in range(2):  # saving the same step again is no progress
        claimed = store.leases.claim("again")
        assert claimed is not None
        store.leases.heartbeat(job.id, claimed.attempt, saved_step=7)
        (result,) = store.leases.recover(lambda _: False)
    assert result.status is JobStatus.FAILED


def test_a_requeued_job_has_its_old_place(store: JobStore) -> None:
    first, _ = add(store), add(store)
    claimed = store.leases.claim("w")
    assert claimed is not None
    store.leases.requeue(claimed.id, claimed.attempt, "drain")
    assert store.queued()[0].id == first.id
    assert store.get(first.id).attempts_charged == 0


def test_cancel_and_finish_have_one_winner(store: JobStore) -> None:
    for turn in range(30):
        job = add(store)
        claimed = store.leases.claim("w")
        assert claimed is not None

        def complete(attempt: int = claimed.attempt, job_id: str = job.id) -> str:
            try:
                return str(store.leases.complete(job_id, attempt, "ab").status)
            except Cancelled:
                return str(store.leases.confirm_cancel(job_id, attempt).status)

        def cancel(job_id: str = job.id) -> str:
            try:
                store.cancel(job_id)
            except IllegalTransition:
                return "completed"
            return "cancelled"

        with ThreadPoolExecutor(2) as pool:
            first, second = (complete, cancel) if turn % 2 else (cancel, complete)
            racing = [pool.submit(lambda call=call: call()) for call in (first, second)]
        assert {future.result() for future in racing} == {str(store.get(job.id).status)}


def test_a_cancelled_job_of_a_dead_worker_is_cancelled(store: JobStore) -> None:
    job = add(store)
    claimed = store.leases.claim("w")
    assert claimed is not None
    assert store.cancel(job.id).cancel_requested
    assert store.leases.heartbeat(job.id, claimed.attempt).cancel
    (result,) = store.leases.recover(lambda _: False)
    assert result.status is JobStatus.CANCELLED


def test_a_zombie_can_do_nothing(store: JobStore) -> None:
    job = add(store)
    old = store.leases.claim("old")
    assert old is not None
    store.leases.recover(lambda _: False)
    new = store.leases.claim("new")
    assert new is not None
    with pytest.raises(LeaseLost):
        store.leases.complete(job.id, old.attempt, "from the dead")
    done = store.leases.complete(job.id, new.attempt, "from the living")
    assert done.result_sha256 == "from the living"
    with pytest.raises(LeaseLost):
        store.leases.complete(job.id, new.attempt, "another")


def test_step_events_do_not_pile_up(store: JobStore) -> None:
    job = add(store)
    claimed = store.leases.claim("w")
    assert claimed is not None
    store.leases.record(job.id, 1, "encoded", {"seconds": 0.5})
    for step in range(1, 51):
        store.leases.heartbeat(job.id, 1, Progress("denoise", step, 50), detail={"eta_seconds": 1.0})
    events = store.events(job.id)
    assert [event.kind for event in events] == ["queued", "claimed", "encoded", "step"]
    assert events[-1].data == {"eta_seconds": 1.0, "stage": "denoise", "step": 50, "total_steps": 50}
    assert events[-1].seq == 53
    assert [event.kind for event in store.events(job.id, after=3)] == ["step"]


def test_a_tailer_sees_every_event_once(store: JobStore) -> None:
    start = store.last_event_number()
    first, second = add(store), add(store)
    seen = store.tail(after=start)
    assert [(event.job_id, event.kind) for event in seen] == [(first.id, "queued"), (second.id, "queued")]
    store.delete(second.id)
    third = add(store)
    newer = store.tail(after=seen[-1].number)
    assert [event.job_id for event in newer] == [third.id], "numbers of deleted events are not used again"


def test_notes(store: JobStore) -> None:
    job = add(store)
    claimed = store.leases.claim("w")
    assert claimed is not None
    for _ in range(2):
        store.leases.note(job.id, 1, "resumed_inexact: another device")
    assert store.get(job.id).notes == ("resumed_inexact: another device",)


def test_an_equal_completed_job_is_found(store: JobStore) -> None:
    assert store.find_completed("{}") is None
    add(store)
    assert store.find_completed("{}") is None
    done = finish(store)
    found = store.find_completed("{}")
    assert found is not None
    assert found.id == done.id


def test_delete_and_prune_name_the_files(store: JobStore) -> None:
    file = ArtifactRef("video", "a.mp4", "ab", 3, "video/mp4")
    ids: list[str] = []
    for _ in range(4):
        ids.append(add(store).id)
        claimed = store.leases.claim("w")
        assert claimed is not None
        store.leases.complete(claimed.id, claimed.attempt, "ab", (file,))
    assert store.artifacts(ids[0]) == (file,)
    assert store.prune(2) == ((ids[1], (file,)), (ids[0], (file,)))
    assert store.delete(ids[2]) == (file,)
    with pytest.raises(JobNotFound):
        store.get(ids[2])
    assert [job.id for job in store.list()] == [ids[3]]


def test_workers_and_drain(store: JobStore) -> None:
    store.leases.register("w", "cuda:0 H200")
    assert store.workers() == (("w", "cuda:0 H200"),)
    job = add(store)
    claimed = store.leases.claim("w")
    assert claimed is not None
    assert not store.leases.heartbeat(job.id, 1).drain
    store.leases.drain("w")
    assert store.leases.heartbeat(job.id, 1, Progress("denoise", 1, 2)).drain
    store.leases.requeue(job.id, 1, "drain")
    assert store.leases.claim("w") is None, "a draining worker gets nothing more"
    store.leases.unregister("w")
    assert store.workers() == ()


def test_liveness_follows_the_lock(tmp_path: Path, store: JobStore) -> None:
    liveness = Liveness(tmp_path / "workers")
    name, lock = liveness.new_worker("cuda-0")
    other, other_lock = liveness.new_worker("cuda-0")
    assert name != other
    store.leases.register(name)
    add(store)
    assert store.leases.claim(name) is not None
    assert store.leases.recover(liveness.is_alive) == ()
    lock.release()
    assert [job.status for job in store.leases.recover(liveness.is_alive)] == [JobStatus.QUEUED]
    assert store.workers() == ()
    assert not liveness.is_alive("never-seen")
    with pytest.raises(ValueError, match="worker's name"):
        liveness.is_alive("../../etc/passwd")
    other_lock.release()


def test_failures_keep_code_message_and_hint(store: JobStore) -> None:
    job = add(store)
    claimed = store.leases.claim("w")
    assert claimed is not None
    error = InvalidRequest.of("model", "unknown_value", "it is gone", "Pull it.")
    failed = store.leases.fail(job.id, 1, JobFailure.of(error), seconds=1.5)
    assert failed.error == JobFailure("invalid_request", "model: it is gone")
    assert store.events(job.id)[-1].data["code"] == "invalid_request"
    (attempt,) = store.attempts(job.id)
    assert (attempt.outcome, attempt.seconds, attempt.error) == (Outcome.FAILED, 1.5, failed.error)
    again = store.retry(job.id)
    assert (again.status, again.error, again.attempt) == (JobStatus.QUEUED, None, 1)


def test_a_failpoint_rule_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(SettingsError, match="explode"):
        Failpoints("claim.begun:explode")
    Failpoints("").hit("anything")
