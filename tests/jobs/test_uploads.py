"""Copies to object storage: written as the job completes, one sender at a time, until done, given up, or keys are lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.places import new_database, posix_only
from wanreel.core.errors import IllegalTransition
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import ArtifactRef, Job, JobFailure, NewJob
from wanreel.core.upload import Upload, UploadReport, UploadState, UploadTo
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.jobs.outbox import DELAYS, LEASE
from wanreel.jobs.uploads import HOLD

PROFILE = UploadTo("results")
OWN = UploadTo(holder="api-1", token="t1")
VIDEO = ArtifactRef("video", "a.mp4", "ab", 10, "video/mp4")
FRAME = ArtifactRef("last_frame", "a.last.png", "cd", 5, "image/png")
POSTER = ArtifactRef("poster", "a.poster.jpg", "ef", 5, "image/jpeg")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    opened = JobStore(Database(new_database(tmp_path)), capacity=1000, max_attempts=1, clock=clock)
    yield opened
    opened.close()


def add(store: JobStore, to: UploadTo | None = PROFILE) -> str:
    return store.enqueue(NewJob("{}", "demo", owner="ann", upload_to=to)).id


def claim(store: JobStore) -> Job:
    job = store.leases.claim("w")
    assert job is not None
    return job


def complete(store: JobStore, files: tuple[ArtifactRef, ...] = (POSTER, FRAME, VIDEO)) -> Job:
    job = claim(store)
    return store.leases.complete(job.id, job.attempt, "ab", files)


def take(store: JobStore, sender: str = "s") -> Upload:
    taken = store.uploads.take(sender)
    assert taken is not None
    return taken


def report(store: JobStore, job_id: str) -> UploadReport:
    return store.uploads.reports([job_id])[job_id]


def test_written_as_the_job_completes(store: JobStore) -> None:
    job_id = add(store)
    assert store.uploads.take("s") is None and report(store, job_id).state is UploadState.WAITING
    assert store.get(job_id).upload is None
    assert complete(store).upload is UploadState.WAITING
    first, second = take(store), take(store)
    assert (first.job_id, first.to, first.file, first.attempts) == (job_id, PROFILE, VIDEO, 1)
    assert second.file == FRAME and store.uploads.take("s") is None
    assert store.get(job_id).upload is UploadState.UPLOADING
    store.uploads.done(first, "b", "k1")
    assert store.get(job_id).upload is UploadState.UPLOADING
    store.uploads.done(second, "b", "k2")
    assert store.get(job_id).upload is UploadState.DONE
    found = report(store, job_id)
    assert [(file.kind, file.bucket, file.key) for file in found.files] == [
        ("video", "b", "k1"),
        ("last_frame", "b", "k2"),
    ]
    states = [event.data["state"] for event in store.events(job_id) if event.kind == "upload"]
    assert states == ["done"], "the newest stands for those before it"


def test_nothing_goes_anywhere_unasked(store: JobStore) -> None:
    job_id = add(store, None)
    assert complete(store).upload is None
    assert store.uploads.take("s") is None and store.uploads.reports([job_id]) == {} == store.uploads.reports([])


def test_a_job_that_fails_has_nothing_to_copy(store: JobStore) -> None:
    job_id = add(store)
    job = claim(store)
    store.leases.fail(job.id, job.attempt, JobFailure("out_of_memory", "no"))
    assert store.uploads.take("s") is None and store.uploads.reports([job_id]) == {}
    store.retry(job_id)
    complete(store)
    assert take(store).job_id == job_id, "retried, it still goes where it was to go"


def test_tried_for_a_day_and_then_given_up(store: JobStore, clock: Clock) -> None:
    job_id = add(store)
    complete(store, (VIDEO,))
    began = clock.now
    for delay in DELAYS:
        store.uploads.failed(take(store), "status 503", jitter=0.0)
        assert store.get(job_id).upload is UploadState.WAITING
        clock.now += delay - 0.5
        assert store.uploads.take("s") is None
        clock.now += 0.5
    assert clock.now - began >= 24 * 3600
    store.uploads.failed(take(store), "status 500", jitter=0.0)
    found = report(store, job_id)
    assert (found.state, found.attempts, found.outcome) == (UploadState.FAILED, len(DELAYS) + 1, "status 500")
    clock.now += 10 * max(DELAYS)
    assert store.uploads.take("s") is None
    store.uploads.send(job_id, UploadTo("other"))
    assert take(store).to == UploadTo("other")


def test_a_sender_keeps_what_it_renews_and_loses_it_when_it_dies(store: JobStore, clock: Clock) -> None:
    job_id = add(store)
    complete(store, (VIDEO,))
    first = take(store, "dies")
    for _ in range(5):
        clock.now += LEASE - 1
        store.uploads.renew("dies")
        assert store.uploads.take("s") is None
    clock.now += LEASE + 1
    second = take(store, "s")
    assert (second.seq, second.attempts) == (first.seq, 2)
    store.uploads.done(second, "b", "k")
    store.uploads.failed(first, "late", jitter=0.0)
    assert report(store, job_id).state is UploadState.DONE, "a late answer undoes nothing"


def test_put_back_costs_no_attempt(store: JobStore) -> None:
    add(store)
    complete(store, (VIDEO,))
    store.uploads.put_back(take(store))
    assert take(store, "other").attempts == 1


def test_what_lies_on_another_machine_is_that_ones_at_once(store: JobStore) -> None:
    job = complete(store, (VIDEO,)) if add(store) else None
    far = take(store, "far")
    store.uploads.pass_on(far)
    assert store.uploads.take("far", (far.seq,)) is None, "it was not there"
    here = take(store, "here")
    assert (here.seq, here.attempts) == (far.seq, far.attempts), "passing it on was no attempt"
    store.uploads.done(here, "bucket", "key")
    assert job is not None and report(store, job.id).state is UploadState.DONE


def test_keys_are_used_by_their_holder_alone(store: JobStore, clock: Clock) -> None:
    job_id = add(store, OWN)
    complete(store, (VIDEO,))
    assert store.uploads.take("worker") is None
    assert store.uploads.tokens("api-1") == {"t1"} and store.uploads.tokens("worker") == frozenset()
    taken = take(store, "api-1")
    assert taken.to == OWN
    store.uploads.done(taken, "b", "k")
    assert store.uploads.tokens("api-1") == frozenset(), "they may be forgotten"
    assert report(store, job_id).storage == ""


def test_keys_are_lost_with_their_holder_and_found_when_it_comes_back(store: JobStore, clock: Clock) -> None:
    queued, done = add(store, OWN), add(store, UploadTo(holder="api-1", token="t2"))
    other = add(store)
    store.move(done, before=queued)
    complete(store, (VIDEO,))
    clock.now += HOLD - 1
    store.uploads.lose()
    assert store.get(done).upload is UploadState.WAITING
    clock.now += 2
    store.uploads.lose()
    assert store.get(done).upload is UploadState.CREDENTIALS_LOST
    assert report(store, queued).state is UploadState.WAITING, "it has not completed"
    complete(store, (VIDEO,))
    store.uploads.lose()
    assert store.get(queued).upload is UploadState.CREDENTIALS_LOST
    complete(store, (VIDEO,))
    assert store.get(other).upload is UploadState.WAITING, "the operator's keys are never lost"
    store.uploads.renew("api-1")
    assert store.get(done).upload is UploadState.WAITING
    assert take(store, "api-1").to.holder == "api-1"


def test_a_holder_that_leaves_says_so(store: JobStore) -> None:
    job_id, queued = add(store, OWN), add(store, OWN)
    complete(store, (VIDEO,))
    store.uploads.release("api-1")
    assert store.get(job_id).upload is UploadState.CREDENTIALS_LOST
    complete(store, (VIDEO,))
    store.uploads.lose()
    assert store.get(queued).upload is UploadState.CREDENTIALS_LOST, "at once, as nobody has them any more"


def test_keys_that_come_again_are_used(store: JobStore, clock: Clock) -> None:
    job_id = add(store, OWN)
    complete(store, (VIDEO,))
    store.uploads.release("api-1")
    store.uploads.hand_keys(job_id, UploadTo(holder="api-2", token="t9"))
    assert take(store, "api-2").to.token == "t9"
    profile = add(store)
    store.uploads.hand_keys(profile, UploadTo(holder="api-2", token="t10"))
    complete(store, (VIDEO,))
    assert take(store, "worker").to == PROFILE, "a profile's uploads are nobody's to take over"


def test_only_completed_jobs_are_sent(store: JobStore) -> None:
    job_id = add(store, None)
    with pytest.raises(IllegalTransition, match="queued"):
        store.uploads.send(job_id, PROFILE)
    complete(store, (VIDEO,))
    store.uploads.send(job_id, PROFILE)
    taken = take(store)
    with pytest.raises(IllegalTransition, match="being uploaded"):
        store.uploads.send(job_id, PROFILE)
    store.uploads.done(taken, "b", "k")
    assert store.get(job_id).upload is UploadState.DONE


def test_what_is_not_yet_safe_is_not_forgotten(store: JobStore, clock: Clock) -> None:
    job_id = add(store)
    complete(store, (VIDEO,))
    assert store.prune(0) == ()
    store.uploads.done(take(store), "b", "k")
    assert store.uploads.safe_copies(clock.now) == ()
    clock.now += 10
    assert store.uploads.safe_copies(clock.now) == ((job_id, "video", "a.mp4"),)
    store.uploads.gone_here(job_id, "video")
    assert store.uploads.safe_copies(clock.now) == ()
    assert [found for found, _ in store.prune(0)] == [job_id]
    assert store.uploads.reports([job_id]) == {}


def test_a_deleted_job_takes_its_uploads_with_it(store: JobStore) -> None:
    job_id = add(store)
    complete(store)
    taken = take(store)
    store.delete(job_id)
    store.uploads.done(taken, "b", "k")
    assert store.uploads.take("s") is None and sum(store.uploads.counts().values()) == 0


def test_a_clock_that_was_set_back_loses_nothing(store: JobStore, clock: Clock) -> None:
    add(store)
    complete(store, (VIDEO,))
    clock.now -= 400 * 86_400
    assert take(store).attempts == 1


@posix_only
@pytest.mark.parametrize("point", ["complete.before_commit", "complete.after_commit"])
def test_killed_as_the_job_completes(tmp_path: Path, point: str) -> None:
    """Either the job has completed and its uploads are there, or neither."""
    path = new_database(tmp_path)
    child = os.fork()
    if child == 0:
        store = JobStore(Database(path, failpoints=Failpoints(f"{point}:kill")))
        add(store)
        complete(store)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    store = JobStore(Database(path))
    completed = store.list()[0].upload is UploadState.WAITING
    assert completed == (point == "complete.after_commit")
    assert (store.uploads.take("s") is not None) == completed
    store.close()
