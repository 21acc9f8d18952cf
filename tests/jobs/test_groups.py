"""Groups and jobs that wait: nobody runs before what he goes on from, and every end reaches those behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.places import open_place
from wanreel.core.errors import GroupNotFound, IdempotencyConflict, IllegalTransition, JobNotFound, QueueFull
from wanreel.core.group import After, Gathering, Group, GroupFile, NewGroup, due
from wanreel.core.job import ArtifactRef, Job, JobFailure, JobStatus, NewJob
from wanreel.jobs import JobStore
from wanreel.jobs.groups import TRIES, new_id

BROKE = JobFailure("generation_failed", "It broke.", "Try again.")
KINDS = ("film",)


@pytest.fixture
def store(place: str) -> Iterator[JobStore]:
    opened = JobStore(open_place(place), capacity=20, max_attempts=1)
    yield opened
    opened.close()


def chain(
    store: JobStore,
    count: int = 3,
    *,
    gathering: Gathering = "leading",
    key: str | None = None,
    digest: str = "a",
    **ends: str,
) -> tuple[Group, list[str]]:
    """A group whose jobs each go on from the one before."""
    group, ids = new_id(), [new_id() for _ in range(count)]
    members = [
        NewJob(
            f'{{"n": {n}}}',
            "demo",
            id=job_id,
            group_id=group,
            cell=n,
            after=(After(ids[n - 1], "image", "last_frame"),) if n else (),
        )
        for n, job_id in enumerate(ids)
    ]
    made = store.groups.create(
        NewGroup(group, "film", '{"a": 1}', gathering=gathering, **ends), members, key=key, digest=digest
    )
    return made, ids


def claim(store: JobStore) -> Job | None:
    return store.leases.claim("w")


def complete(store: JobStore) -> str:
    job = claim(store)
    assert job is not None
    store.leases.complete(job.id, job.attempt, "ab", (ArtifactRef("last_frame", "x.png", "cd", 1, "image/png"),))
    return job.id


def states(store: JobStore, ids: list[str]) -> list[str]:
    return [str(store.get(job_id).status) for job_id in ids]


def test_a_job_is_claimed_only_when_all_it_waits_for_have_completed(store: JobStore) -> None:
    first, second, third = new_id(), new_id(), new_id()
    store.enqueue(NewJob("{}", "demo", id=first))
    store.enqueue(NewJob("{}", "demo", id=second))
    both = (After(first, "image", "last_frame"), After(second, "last_image", "last_frame", '{"a": 1}'))
    assert store.enqueue(NewJob("{}", "demo", id=third, after=both, priority=9)).waits == 2
    assert store.groups.afters(third) == tuple(sorted(both, key=lambda it: it.job_id))
    assert store.groups.taken_of(first) == {"last_frame"}
    one, other = claim(store), claim(store)
    assert one is not None and other is not None
    assert {one.id, other.id} == {first, second}  # though the third has a higher priority
    store.leases.complete(one.id, one.attempt, "ab")
    assert store.get(third).waits == 1 and claim(store) is None
    store.leases.complete(other.id, other.attempt, "ab")
    assert complete(store) == third


def test_one_that_is_taken_twice_counts_twice_and_is_let_go_once(store: JobStore) -> None:
    first = store.enqueue(NewJob("{}", "demo")).id
    second = store.enqueue(NewJob("{}", "demo", after=(After(first, "image"), After(first, "colour")))).id
    assert store.get(second).waits == 2
    complete(store)
    assert complete(store) == second


def test_who_finds_only_jobs_that_wait_opens_no_transaction(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    chain(store, 2)
    assert claim(store) is not None
    with monkeypatch.context() as patched:
        patched.setattr(store._database, "write", None)  # pyright: ignore[reportPrivateUsage]
        assert claim(store) is None


def test_what_has_completed_already_is_not_waited_for(store: JobStore) -> None:
    first = store.enqueue(NewJob("{}", "demo")).id
    complete(store)
    second = store.enqueue(NewJob("{}", "demo", after=(After(first),))).id
    assert complete(store) == second


def test_two_that_complete_at_once_both_count(store: JobStore) -> None:
    ids = [store.enqueue(NewJob("{}", "demo")).id for _ in range(8)]
    last = store.enqueue(NewJob("{}", "demo", after=tuple(After(job_id) for job_id in ids))).id
    held = [job for _ in ids if (job := claim(store)) is not None]

    def finish(job: Job) -> None:
        store.leases.complete(job.id, job.attempt, "ab")

    threads = [threading.Thread(target=finish, args=(job,)) for job in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(last).waits == 0
    assert complete(store) == last


def test_what_waits_for_a_failed_job_fails_and_says_why(store: JobStore) -> None:
    group, ids = chain(store, 4)
    complete(store)
    job = claim(store)
    assert job is not None
    store.leases.fail(job.id, job.attempt, BROKE)
    assert states(store, ids) == ["completed", "failed", "failed", "failed"]
    assert [getattr(store.get(it).error, "code", "") for it in ids[1:]] == ["generation_failed"] + 2 * [
        "dependency_failed"
    ]
    assert ids[1] in getattr(store.get(ids[2]).error, "message", "")
    assert claim(store) is None
    # A retry of the first brings all of them back.
    store.retry(ids[1])
    assert states(store, ids) == ["completed", "queued", "queued", "queued"]
    assert [complete(store) for _ in range(3)] == ids[1:]
    assert store.groups.get(group.id).pending


def test_a_retry_brings_back_none_that_failed_for_a_reason_of_its_own(store: JobStore) -> None:
    first = store.enqueue(NewJob("{}", "demo")).id
    second = store.enqueue(NewJob("{}", "demo", after=(After(first),))).id
    complete(store)
    job = claim(store)
    assert job is not None and job.id == second
    store.leases.fail(job.id, job.attempt, BROKE)
    third = store.enqueue(NewJob("{}", "demo", after=(After(second),))).id
    store.cancel(third)
    store.retry(second)
    assert states(store, [first, second, third]) == ["completed", "queued", "cancelled"]


@pytest.mark.parametrize("how", ["cancel", "delete"])
def test_what_waits_for_a_job_that_is_gone_fails(store: JobStore, how: str) -> None:
    _, ids = chain(store)
    getattr(store, how)(ids[0])
    assert states(store, ids[1:]) == ["failed", "failed"]
    assert {"cancel": "was cancelled", "delete": "was deleted"}[how] in getattr(store.get(ids[1]).error, "message", "")


def test_group_and_jobs_are_accepted_together_or_not_at_all(store: JobStore) -> None:
    with pytest.raises(QueueFull):
        chain(store, 30)
    assert store.groups.list() == () and store.list() == ()
    with pytest.raises(JobNotFound):
        store.groups.create(NewGroup(new_id(), "film", "{}"), [NewJob("{}", "demo", after=(After("f" * 32),))])
    assert store.groups.list() == () and store.list() == ()
    group, ids = chain(store)
    assert [job.id for job in store.groups.jobs(group.id)] == ids
    assert store.groups.get(group.id) == group and store.groups.list(kind="film", owner="") == (group,)
    assert store.groups.list(kind="other") == () == store.groups.list(owner="ann")
    with pytest.raises(GroupNotFound):
        store.groups.get("f" * 32)


def test_an_idempotency_key_gives_the_group_of_that_time(store: JobStore) -> None:
    group, _ = chain(store, key="k")
    again, _ = chain(store, key="k")
    assert again.id == group.id and len(store.list()) == 3
    with pytest.raises(IdempotencyConflict):
        chain(store, key="k", digest="b")


def test_groups_come_in_pages(store: JobStore) -> None:
    made = [chain(store, 1)[0].id for _ in range(3)]
    page = store.groups.list(limit=2)
    assert [it.id for it in page] == made[:0:-1]
    assert [it.id for it in store.groups.list(after=page[-1].id)] == made[:1]


@pytest.mark.parametrize(
    ("gathering", "statuses", "expected"),
    [
        ("leading", ["completed", "completed", "queued", "completed"], "01"),
        ("leading", ["queued", "completed"], ""),
        ("completed", ["completed", "queued"], ""),
        ("completed", ["completed", "failed"], ""),
        ("completed", ["completed", "completed"], "01"),
        ("ended", ["completed", "failed", "cancelled", "completed"], "03"),
        ("ended", ["completed", "in_progress"], ""),
    ],
)
def test_what_is_due(gathering: Gathering, statuses: list[str], expected: str) -> None:
    assert due(gathering, [(str(n), status) for n, status in enumerate(statuses)]) == tuple(expected)


def test_the_result_is_made_by_one_worker_each_time_more_is_there(store: JobStore) -> None:
    group, ids = chain(store)
    assert store.groups.claim("w", KINDS) is None
    complete(store)
    assert store.groups.claim("w", ("other",)) is None
    claimed = store.groups.claim("w", KINDS)
    assert claimed is not None
    assert [job.id for job in claimed[1]] == ids[:1] and claimed[0].worker == "w"
    assert store.groups.claim("v", KINDS) is None
    complete(store)  # while it is being made
    assert store.groups.claim("v", KINDS) is None
    assert not store.groups.finish(group.id, "v", ids[:1], "{}")
    assert store.groups.finish(group.id, "w", ids[:1], '{"a": 1}')
    assert store.events(ids[0])[-1].kind == "gathered"
    found = store.groups.get(group.id)
    assert (found.made_of, found.result, found.resting) == ((ids[0],), '{"a": 1}', False)
    claimed = store.groups.claim("v", KINDS)
    assert claimed is not None and [job.id for job in claimed[1]] == ids[:2]
    store.groups.finish(group.id, "v", ids[:2], "{}")
    assert store.groups.claim("v", KINDS) is None and store.groups.get(group.id).resting


def test_what_a_dead_worker_was_making_is_made_by_another(store: JobStore) -> None:
    group, _ = chain(store, 1)
    store.leases.register("w")
    complete(store)
    assert store.groups.claim("w", KINDS) is not None
    store.leases.take_back({"w"})
    assert store.groups.claim("v", KINDS) is not None
    assert "v" in store.leases.known()  # though it never announced itself: it is found dead all the same
    assert store.leases.overdue(60.0).get("v") == 0.0
    store.groups.give_back(group.id, "v")
    assert store.groups.claim("u", KINDS) is not None


def test_a_finisher_that_fails_is_tried_again_and_then_rests(store: JobStore) -> None:
    group, _ = chain(store, 1)
    complete(store)
    for _ in range(TRIES):
        assert store.groups.claim("w", KINDS) is not None
        store.groups.fail(group.id, "w", BROKE, retryable=True)
    found = store.groups.get(group.id)
    assert found.resting and found.error == (BROKE.code, BROKE.message, BROKE.hint)
    assert store.groups.claim("w", KINDS) is None
    store.groups.touch(group.id)
    assert store.groups.claim("w", KINDS) is not None
    store.groups.fail(group.id, "w", BROKE, retryable=False)
    assert store.groups.claim("w", KINDS) is None


def test_cells_are_left_behind_replaced_and_reordered(store: JobStore) -> None:
    group, ids = chain(store)
    complete(store)
    new = new_id()
    left = store.groups.change(
        group.id,
        spec='{"b": 2}',
        drop=ids[1:],
        add=(NewJob("{}", "demo", id=new, group_id=group.id, cell=0, after=(After(ids[0]),)),),
        cells={ids[0]: 1},
    )
    assert [(job.status, job.group_id) for job in left] == 2 * [(JobStatus.CANCELLED, None)]
    assert [job.id for job in store.groups.jobs(group.id)] == [new, ids[0]]
    assert store.groups.get(group.id).spec == '{"b": 2}'
    assert complete(store) == new


def test_cancelling_and_deleting_a_group(store: JobStore) -> None:
    group, ids = chain(store)
    job = claim(store)
    assert job is not None
    assert [str(it.status) for it in store.groups.cancel(group.id)] == ["in_progress", "cancelled", "cancelled"]
    assert store.leases.heartbeat(job.id, job.attempt).cancel
    with pytest.raises(IllegalTransition):
        store.groups.delete(group.id)
    store.leases.confirm_cancel(job.id, job.attempt)
    assert [job_id for job_id, _ in store.groups.delete(group.id)] == ids[::-1]
    assert store.list() == ()
    with pytest.raises(GroupNotFound):
        store.groups.get(group.id)


# Who is told, and the copy


def told(store: JobStore) -> list[tuple[str, dict[str, Any]]]:
    """Every message that is new: how it ended, and what is said besides."""
    found: list[tuple[str, dict[str, Any]]] = []
    while (taken := store.outbox.take()) is not None:
        store.outbox.delivered(taken, "status 200")
        found.append((str(taken.kind), dict(taken.data)))
    return found


def test_an_end_is_told_once_and_a_new_one_again(store: JobStore) -> None:
    group, ids = chain(store, 2, webhook="https://example.org/hook", storage="results")
    complete(store)
    assert gather(store, "first") and told(store) == []  # the film grows
    assert store.groups.copies.take() is None
    complete(store)
    assert gather(store, "both")
    assert told(store) == [("completed", {"object": "film"})]
    store.groups.touch(group.id)
    assert not gather(store, "both") and told(store) == []
    another = NewJob('{"n": 9}', "demo", id=new_id(), group_id=group.id, cell=1)
    store.groups.change(group.id, drop=ids[1:], add=[another])
    assert gather(store, "shorter") and told(store) == []
    complete(store)
    assert gather(store, "other")
    assert told(store) == [("completed", {"object": "film"})]
    assert store.outbox.report_of(group.id).state == "delivered"


def test_a_failure_and_a_stop_are_told_with_their_cause(store: JobStore) -> None:
    failing, _ = chain(store, 2, webhook="https://example.org/hook")
    job = claim(store)
    assert job is not None
    store.leases.fail(job.id, job.attempt, BROKE, retryable=False)
    assert not gather(store, "")
    assert told(store) == [("failed", {"object": "film", "code": BROKE.code, "message": BROKE.message})]
    stopped, _ = chain(store, 2, webhook="https://example.org/hook")
    store.groups.cancel(stopped.id)
    assert not gather(store, "")
    assert told(store) == [("cancelled", {"object": "film"})]
    for group in (failing, stopped):
        store.groups.delete(group.id)


def test_a_result_that_is_made_anew_is_copied_anew(store: JobStore) -> None:
    group, ids = chain(store, 2, storage="results")
    complete(store)
    complete(store)
    assert gather(store, "old")
    taken = store.groups.copies.take()
    assert taken is not None and (taken.result, taken.storage, taken.attempts) == ("old", "results", 1)
    assert store.groups.copies.take() is None  # it is being sent
    store.groups.copies.failed(taken, "away", jitter=0.0)
    upload = store.groups.get(group.id).upload
    assert upload is not None and (upload.state, upload.outcome) == ("waiting", "away")
    another = NewJob('{"n": 9}', "demo", id=new_id(), group_id=group.id, cell=1)
    store.groups.change(group.id, drop=ids[1:], add=[another])
    complete(store)
    assert gather(store, "new")
    fresh = store.groups.copies.take()
    assert fresh is not None and (fresh.result, fresh.attempts) == ("new", 1)
    store.groups.copies.done(
        taken, [GroupFile("film", "old.mp4", "video/mp4", "b", "k")]
    )  # too late: it is another one
    assert upload_state(store, group) == "uploading"
    store.groups.copies.done(fresh, [GroupFile("film", "new.mp4", "video/mp4", "b", "k")])
    assert upload_state(store, group) == "done"


def upload_state(store: JobStore, group: Group) -> str:
    upload = store.groups.get(group.id).upload
    assert upload is not None
    return upload.state


def gather(store: JobStore, result: str) -> bool:
    """What a worker does between two jobs; whether anything was to be made."""
    claimed = store.groups.claim("hand", KINDS)
    if claimed is None:
        return False
    store.groups.finish(claimed[0].id, "hand", [job.id for job in claimed[1]], result)
    return True
