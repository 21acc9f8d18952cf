"""What any JobStore must do, as a Hypothesis state machine against a model of dicts (T11).

A new implementation subclasses `StoreContract` and says how it is opened; see test_contract.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wanreel.core.errors import Cancelled, IdempotencyConflict, IllegalTransition, JobNotFound, LeaseLost, QueueFull
from wanreel.core.job import ArtifactRef, Job, JobFailure, JobStatus, NewJob, Outcome, Progress
from wanreel.jobs import JobStore

# Small, so that short runs reach the limits.
CAPACITY = 3
MAX_ATTEMPTS = 2
QUEUED, RUNNING = JobStatus.QUEUED, JobStatus.IN_PROGRESS
COMPLETED, FAILED, CANCELLED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED

owners = st.sampled_from(["", "ann", "bob"])
priorities = st.sampled_from([0, 0, 0, 5])
picks = st.integers(0, 10**6)
bodies = st.sampled_from(['{"prompt": "a"}', '{"prompt": "b"}'])


@dataclass
class Expected:
    """A job as the model has it."""

    id: str
    number: int
    owner: str
    request: str
    priority: int
    turn: int = 0
    place: Fraction = Fraction(0)
    status: JobStatus = QUEUED
    attempt: int = 0
    charged: int = 0
    saved: int = 0
    cancel: bool = False
    worker: str | None = None
    progress: Progress = Progress()
    sha256: str | None = None
    code: str | None = None
    ended: int = 0
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    kinds: list[str] = field(default_factory=list[str])

    @property
    def key(self) -> tuple[int, int, Fraction, int]:
        return (-self.priority, self.turn, self.place, self.number)


class StoreContract(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model; the invariants compare them."""

    def open_store(self) -> JobStore:
        """A store with CAPACITY and MAX_ATTEMPTS on what earlier calls left."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.store = self.open_store()
        self.jobs: dict[str, Expected] = {}
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        self.turns: dict[int, int] = {}
        self.last_turns: dict[tuple[str, int], list[tuple[int, str]]] = {}
        self.paused = ""
        self.workers = ["worker-0", "worker-1"]
        self.born = 0
        self.count = 0
        self.endings = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    # The model's own arithmetic

    def _with(self, *statuses: JobStatus) -> list[Expected]:
        return sorted((j for j in self.jobs.values() if j.status in statuses), key=lambda j: j.key)

    def _pick(self, pick: int, *statuses: JobStatus) -> Expected | None:
        found = sorted((j for j in self.jobs.values() if not statuses or j.status in statuses), key=lambda j: j.number)
        return found[pick % len(found)] if found else None

    def _join(self, job: Expected, priority: int) -> None:
        mine = [j.turn for j in self.jobs.values() if j.owner == job.owner and j.priority == priority]
        turn = max(self.turns.get(priority, 0), max(mine, default=0) + 1)
        others = [j.place for j in self._with(QUEUED) if (j.priority, j.turn) == (priority, turn)]
        job.priority, job.turn, job.place = priority, turn, max(others, default=Fraction(0)) + 1

    def _end(self, job: Expected, status: JobStatus, code: str | None = None) -> None:
        self.endings += 1
        job.status, job.code, job.ended, job.worker = status, code, self.endings, None
        job.cancel = status is CANCELLED
        job.kinds.append(str(status))

    def _give_back(self, job: Expected) -> None:
        if job.cancel:
            self._end(job, CANCELLED)
        elif job.charged >= MAX_ATTEMPTS:
            self._end(job, FAILED, "poison")
        else:
            self._requeue(job)

    def _requeue(self, job: Expected) -> None:
        job.status, job.worker = QUEUED, None
        job.kinds.append("requeued")

    # Clients

    @rule(owner=owners, priority=priorities, body=bodies, key=st.none() | st.sampled_from(["k1", "k2"]))
    def enqueue(self, owner: str, priority: int, body: str, key: str | None) -> None:
        new = NewJob(body, "demo", owner=owner, priority=priority, time_limit=60.0)
        used = self.keys.get((owner, key)) if key else None
        if used:
            if used[0] != body:
                with pytest.raises(IdempotencyConflict):
                    self.store.enqueue(new, idempotency_key=key)
            else:
                assert self.store.enqueue(new, idempotency_key=key).id == used[1]
            return
        if len(self._with(QUEUED)) >= CAPACITY:
            with pytest.raises(QueueFull) as refused:
                self.store.enqueue(new, idempotency_key=key)
            assert refused.value.retry_after >= 1.0
            return
        accepted = self.store.enqueue(new, idempotency_key=key)
        assert accepted.id not in self.jobs
        self.count += 1
        job = Expected(accepted.id, self.count, owner, body, priority, kinds=["queued"])
        self._join(job, priority)
        self.jobs[job.id] = job
        if key:
            self.keys[owner, key] = (body, job.id)

    @rule(pick=picks)
    def cancel_and_complete(self, pick: int) -> None:
        if self._with(RUNNING):
            self._cancel(self._pick(pick, RUNNING))
            self.complete(pick)

    @rule(who=st.integers(0, 1))
    def claim_and_fail(self, who: int) -> None:
        if not self._with(RUNNING):
            self.claim(who)
            self.fail(0, retryable=True)

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        self._cancel(self._pick(pick))

    def _cancel(self, job: Expected | None) -> None:
        if job is None:
            with pytest.raises(JobNotFound):
                self.store.cancel("nobody")
        elif job.status in (COMPLETED, FAILED):
            with pytest.raises(IllegalTransition):
                self.store.cancel(job.id)
        else:
            self.store.cancel(job.id)
            if job.status is QUEUED:
                self._end(job, CANCELLED)
            elif job.status is RUNNING and not job.cancel:
                job.cancel = True
                job.kinds.append("cancel_requested")

    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        job = self._pick(pick)
        if job is None:
            return
        if job.status not in (FAILED, CANCELLED):
            with pytest.raises(IllegalTransition):
                self.store.retry(job.id)
        elif len(self._with(QUEUED)) >= CAPACITY:
            with pytest.raises(QueueFull):
                self.store.retry(job.id)
        else:
            self.store.retry(job.id)
            self._join(job, job.priority)
            job.status, job.charged, job.saved, job.code, job.cancel = QUEUED, 0, 0, None, False
            job.progress = Progress()
            job.kinds.append("queued")

    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        job = self._pick(pick)
        if job is None:
            return
        if job.status is RUNNING:
            with pytest.raises(IllegalTransition):
                self.store.delete(job.id)
            return
        files = self.store.delete(job.id)
        assert [file.sha256 for file in files] == ([job.sha256] if job.sha256 else [])
        self._forget(job)

    def _forget(self, job: Expected) -> None:
        del self.jobs[job.id]
        self.keys = {key: used for key, used in self.keys.items() if used[1] != job.id}

    @rule(pick=picks, body=bodies)
    def edit(self, pick: int, body: str) -> None:
        job = self._pick(pick)
        if job is None:
            return
        if job.status is not QUEUED:
            with pytest.raises(IllegalTransition):
                self.store.edit(job.id, body, "demo")
            return
        assert self.store.edit(job.id, body, "demo").request == body
        job.request, job.saved = body, 0
        self._compact(job, "edited")

    def _compact(self, job: Expected, kind: str) -> None:
        job.kinds = [*(k for k in job.kinds if k != kind), kind]

    @rule(pick=picks, where=picks, last=st.booleans())
    def move(self, pick: int, where: int, last: bool) -> None:
        job, other = self._pick(pick), self._pick(where, QUEUED)
        if job is None:
            return
        if job.status is not QUEUED:
            with pytest.raises(IllegalTransition):
                self.store.move(job.id)
            return
        assert other is not None
        rest = [j for j in self._with(QUEUED) if j is not job]
        self.store.move(job.id, before=None if last else other.id)
        if last and rest:
            end = rest[-1]
            job.priority, job.turn, job.place = end.priority, end.turn, end.place + 1
        elif not last and other is not job:
            # A float is halved where the model has exact fractions: the order must be the same.
            same = [j for j in rest if (j.priority, j.turn) == (other.priority, other.turn) and j.key < other.key]
            place = (same[-1].place + other.place) / 2 if same else other.place - 1
            if same and same[-1].place == other.place:
                self._renumber(job, other)
                return
            job.priority, job.turn, job.place = other.priority, other.turn, place
        else:
            return
        self._compact(job, "moved")

    def _renumber(self, job: Expected, other: Expected) -> None:
        group = [j for j in self._with(QUEUED) if (j.priority, j.turn) == (other.priority, other.turn)]
        for place, member in enumerate(group, start=1):
            member.place = Fraction(place)
        before = [j for j in group if j is not job and j.key < other.key][-1]
        job.priority, job.turn, job.place = other.priority, other.turn, (before.place + other.place) / 2
        self._compact(job, "moved")

    @rule(pick=picks, priority=priorities)
    def set_priority(self, pick: int, priority: int) -> None:
        job = self._pick(pick, QUEUED)
        if job is None:
            return
        self.store.set_priority(job.id, priority)
        if job.priority != priority:
            self._join(job, priority)
            self._compact(job, "moved")

    @rule(reason=st.sampled_from(["", "maintenance"]))
    def pause_or_resume(self, reason: str) -> None:
        state = self.store.pause(reason) if reason else self.store.resume()
        assert (state.paused, state.reason) == (bool(reason), reason)
        self.paused = reason

    @rule(keep=st.integers(0, 3))
    def prune(self, keep: int) -> None:
        ended = sorted(
            (j for j in self.jobs.values() if j.status in (COMPLETED, FAILED, CANCELLED)), key=lambda j: j.ended
        )
        gone = ended[: max(0, len(ended) - keep)]
        assert {job_id for job_id, _ in self.store.prune(keep)} == {job.id for job in gone}
        for job in gone:
            self._forget(job)

    # Workers

    @rule(who=st.integers(0, 1))
    def claim(self, who: int) -> None:
        line = [] if self.paused else self._with(QUEUED)
        claimed = self.store.leases.claim(self.workers[who])
        assert (claimed and claimed.id) == (line[0].id if line else None)
        if claimed is None:
            return
        job = line[0]
        job.status, job.worker = RUNNING, self.workers[who]
        job.attempt += 1
        job.charged += 1
        job.progress = replace(job.progress, stage="load", share=0.0)
        job.outcomes.append(Outcome.RUNNING)
        job.kinds.append("claimed")
        self.turns[job.priority] = max(self.turns.get(job.priority, 0), job.turn)
        assert (claimed.attempt, claimed.attempts_charged) == (job.attempt, job.charged)

    @rule(pick=picks, step=st.integers(0, 8), saved=st.none() | st.integers(1, 8))
    def heartbeat(self, pick: int, step: int, saved: int | None) -> None:
        job = self._pick(pick, RUNNING)
        if job is None:
            return
        progress = Progress("denoise", step, 8) if step else None
        orders = self.store.leases.heartbeat(job.id, job.attempt, progress, saved_step=saved)
        assert orders.cancel == job.cancel
        if progress:
            job.progress = progress
            self._compact(job, "step")
        if saved and saved > job.saved:
            job.saved, job.charged = saved, 1

    @rule(pick=picks)
    def complete(self, pick: int) -> None:
        job = self._pick(pick, RUNNING)
        if job is None:
            return
        sha256 = hashlib.sha256(f"{job.id}{job.attempt}".encode()).hexdigest()
        files = (ArtifactRef("video", f"{job.id}.mp4", sha256, 10, "video/mp4"),)
        if job.cancel:
            with pytest.raises(Cancelled):
                self.store.leases.complete(job.id, job.attempt, sha256, files)
            return
        for _ in range(2):  # saying it twice is no fault
            assert self.store.leases.complete(job.id, job.attempt, sha256, files, seconds=3.0).result_sha256 == sha256
        job.sha256 = sha256
        job.outcomes[-1] = Outcome.COMPLETED
        self._end(job, COMPLETED)

    @rule(pick=picks, retryable=st.booleans())
    def fail(self, pick: int, retryable: bool) -> None:
        job = self._pick(pick, RUNNING)
        if job is None:
            return
        self.store.leases.fail(job.id, job.attempt, JobFailure("boom", "It broke."), retryable=retryable)
        job.outcomes[-1] = Outcome.FAILED
        if retryable:
            self._give_back(job)
        else:
            self._end(job, FAILED, "boom")

    @rule(pick=picks)
    def drain(self, pick: int) -> None:
        job = self._pick(pick, RUNNING)
        if job is None:
            return
        self.store.leases.requeue(job.id, job.attempt, "drain")
        job.outcomes[-1] = Outcome.DRAINED
        if job.cancel:
            self._end(job, CANCELLED)
        else:
            job.charged -= 1
            self._requeue(job)

    @rule(pick=picks)
    def confirm_cancel(self, pick: int) -> None:
        job = self._pick(pick, RUNNING)
        if job is None:
            return
        if not job.cancel:
            with pytest.raises(IllegalTransition):
                self.store.leases.confirm_cancel(job.id, job.attempt)
            return
        self.store.leases.confirm_cancel(job.id, job.attempt)
        job.outcomes[-1] = Outcome.CANCELLED
        self._end(job, CANCELLED)

    @precondition(lambda self: any(job.attempt for job in self.jobs.values()))
    @rule(pick=picks, call=st.sampled_from(["complete", "fail", "requeue", "heartbeat", "record", "note", "confirm"]))
    def zombie(self, pick: int, call: str) -> None:
        """A worker that no longer holds the job tries to change it."""
        tried = sorted((j for j in self.jobs.values() if j.attempt), key=lambda j: j.number)
        job = tried[pick % len(tried)]
        stale = job.attempt - 1 if job.status is RUNNING else job.attempt
        leases = self.store.leases
        calls: dict[str, Any] = {
            "complete": lambda: leases.complete(job.id, stale, "0" * 64),
            "fail": lambda: leases.fail(job.id, stale, JobFailure("late", "Late.")),
            "requeue": lambda: leases.requeue(job.id, stale, "late"),
            "heartbeat": lambda: leases.heartbeat(job.id, stale, Progress("denoise", 1, 2)),
            "record": lambda: leases.record(job.id, stale, "late"),
            "note": lambda: leases.note(job.id, stale, "late"),
            "confirm": lambda: leases.confirm_cancel(job.id, stale),
        }
        with pytest.raises(LeaseLost):
            calls[call]()

    @rule(who=st.integers(0, 1))
    def worker_dies(self, who: int) -> None:
        dead = self.workers[who]
        lost = [job for job in self._with(RUNNING) if job.worker == dead]
        self.born += 1
        self.workers[who] = f"worker-{self.born + 1}"
        taken = self.store.leases.recover(lambda name: name != dead)
        assert {job.id for job in taken} == {job.id for job in lost}
        lost_by_id = {job.id: job for job in lost}
        for result in taken:  # the model ends them in the order the store did
            job = lost_by_id[result.id]
            job.outcomes[-1] = Outcome.LOST
            self._give_back(job)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = self.open_store()

    # What must hold at any time

    @invariant()
    def same_jobs(self) -> None:
        found = {job.id: job for job in self.store.list(limit=1000)}
        assert found.keys() == self.jobs.keys()
        for job in self.jobs.values():
            self._compare(found[job.id], job)

    def _compare(self, job: Job, expected: Expected) -> None:
        assert (job.status, job.attempt, job.attempts_charged) == (expected.status, expected.attempt, expected.charged)
        assert (job.owner, job.priority, job.request) == (expected.owner, expected.priority, expected.request)
        assert (job.cancel_requested, job.worker) == (expected.cancel, expected.worker)
        assert (job.error and job.error.code) == expected.code
        assert job.progress == expected.progress
        assert job.result_sha256 == expected.sha256
        assert job.time_limit == 60.0

    @invariant()
    def same_line(self) -> None:
        line = self._with(QUEUED)
        assert [job.id for job in self.store.queued()] == [job.id for job in line]
        state = self.store.queue()
        assert (state.queued, state.in_progress) == (len(line), len(self._with(RUNNING)))
        assert (state.paused, state.reason, state.capacity) == (bool(self.paused), self.paused, CAPACITY)
        if line:
            last = self.store.standing(line[-1].id)
            assert last is not None and last.position == len(line)
            assert (last.starts_in is None) == bool(self.paused)

    @invariant()
    def same_history(self) -> None:
        job = self._pick(self.count)
        if job is None:
            return
        events = self.store.events(job.id)
        assert [event.kind for event in events] == job.kinds
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        assert self.store.events(job.id, after=events[-1].seq) == ()
        attempts = self.store.attempts(job.id)
        assert [attempt.outcome for attempt in attempts] == job.outcomes
        assert [attempt.number for attempt in attempts] == list(range(1, job.attempt + 1))
