"""Leases: the worker's face of the store. Knows nothing of rendering, and of time only what it is told.

`claim` hands out a job with an attempt number, the fencing token. Every later call names job and attempt, and raises
LeaseLost when they are no longer the ones in force: a worker that was taken for dead, or stopped and continued, can't
change anything any more.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, insert, select, update

from wanreel.core.errors import Cancelled, IllegalTransition, InsufficientStorage, LeaseLost, OutOfMemory, PoisonJob
from wanreel.core.job import ArtifactRef, Job, JobFailure, JobStatus, Orders, Outcome, Progress, Warm
from wanreel.core.measures import Measures
from wanreel.jobs import beat, groups, line, locks, log, records
from wanreel.jobs.roster import Roster
from wanreel.jobs.rows import failure_columns, job_of
from wanreel.jobs.tables import artifacts, attempts, jobs, queue, workers
from wanreel.jobs.transactions import Transactions

MAX_ATTEMPTS = 3


class Leases(Roster):
    """Claiming jobs and recording what became of them. One per process; safe to use from several threads."""

    def __init__(self, database: Transactions, clock: Callable[[], float], max_attempts: int = MAX_ATTEMPTS) -> None:
        super().__init__(database, clock)
        self._max_attempts = max_attempts

    def claim(
        self,
        worker: str,
        warm: Warm = line.COLD,
        only: Collection[str] = (),
        alike: Callable[[Job], bool] | None = None,
    ) -> Job | None:
        """Take the next job in line; None when there is none, or the queue is paused, or the worker must drain.

        What the worker holds in memory decides among jobs of one priority, within limits; see `line.next_in_line`. Where
        it makes only some models, their names are `only`. With `alike` it takes none but one that fits what it holds exactly
        and of which this says yes.

        The attempt is charged to the job before it starts, so that a job that kills its worker counts too.
        """

        def suits(row: Row[Any]) -> bool:
            return alike is None or alike(job_of(row))

        def body(c: Connection) -> Job | None:
            locks.hold_gate_open(c)
            if not _allows(c, worker, ~queue.c.paused):
                return None
            row = line.next_in_line(c, warm, only, suits if alike else None)
            return None if row is None else self._hand_over(c, row, worker)

        # Most looks find nothing, and should keep nobody from writing.
        if not self.may_claim(worker, only):
            return None
        return self._database.write("claim", body, urgent=True)

    def may_claim(self, worker: str, only: Collection[str] = ()) -> bool:
        """Whether there is a job that this worker could claim now, of these models, or once the disk has room again."""
        is_open = ~queue.c.paused | queue.c.automatic
        return self._database.read(lambda c: _allows(c, worker, is_open, line.has_ready(only)))

    def _hand_over(self, c: Connection, row: Row[Any], worker: str) -> Job:
        number, now = row.attempt + 1, self._clock()
        taken = {
            "status": JobStatus.IN_PROGRESS,
            "attempt": number,
            "attempts_charged": row.attempts_charged + 1,
            "worker": worker,
            "stage": "load",
            "passed_over": 0,
            "stage_share": 0.0,
            "started_at": now,
        }
        log.append(c, row.id, "claimed", now, {"attempt": number, "worker": worker}, changes=taken)
        running = {"number": number, "worker": worker, "outcome": Outcome.RUNNING, "started_at": now}
        c.execute(insert(attempts).values(job_id=row.id, **running))
        line.pass_turn(c, row.priority, row.turn)
        return records.reread(c, row.id)

    def heartbeat(
        self,
        job_id: str,
        attempt: int,
        progress: Progress | None = None,
        *,
        saved_step: int | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Orders:
        """Show that the attempt lives, and learn what is wanted of it.

        Without progress nothing is written. With it, one "step" event takes the place of the one before, with `detail`
        (seconds, eta_seconds, expert, …) beside the progress itself. `saved_step` is the step of a checkpoint that is on
        disk, counted over all clips: a job that came further than ever before is no poison, so earlier attempts are no
        longer held against it. On a full disk both are dropped, since the run itself can go on.
        """

        def look(c: Connection) -> Orders:
            return self._orders(c, self._held(c, job_id, attempt, only_look=True))

        def body(c: Connection) -> Orders:
            row = self._held(c, job_id, attempt)
            saved = {"saved_step": saved_step, "attempts_charged": 1} if (saved_step or 0) > row.saved_step else {}
            if progress is not None:
                told = {**(detail or {}), **_shown(progress)}
                changes = {**_shown(progress), "stage_share": progress.share, **saved}
                log.append(c, job_id, "step", self._clock(), told, changes)
            elif saved:
                records.change(c, job_id, **saved)
            return self._orders(c, row)

        with contextlib.suppress(InsufficientStorage):
            if progress is not None and self.shared:
                return self._step(job_id, attempt, progress, saved_step or 0, detail)
            if progress is not None or saved_step is not None:
                return self._database.write("heartbeat", body)
        return self._database.read(look)

    def _step(
        self, job_id: str, attempt: int, progress: Progress, saved_step: int, detail: Mapping[str, Any] | None
    ) -> Orders:
        """The same where statements have a way to go: in one of them."""
        values = {**_shown(progress), "stage_share": progress.share, "saved_step": saved_step, "at": self._clock()}
        data = log.text_of({**(detail or {}), **_shown(progress)})

        def body(c: Connection) -> Orders:
            orders = beat.step(c, job_id, attempt, data=data, **values)
            if orders is None:
                self._held(c, job_id, attempt, only_look=True)  # says what became of it
                raise LeaseLost(f"Attempt {attempt} no longer held job {job_id} when it made progress.")
            return Orders(cancel=orders.cancel_requested, drain=bool(orders.drain))

        return self._database.write("heartbeat", body, repeatable=True)

    def record(
        self, job_id: str, attempt: int, kind: str, data: Mapping[str, Any] | None = None, *, stage: str = ""
    ) -> None:
        """Append an event of the worker's: "loaded", "encoded", "exported", … `data` is what JSON can hold.

        `stage` is the one that begins with it.
        """

        def body(c: Connection) -> None:
            self._held(c, job_id, attempt)
            changes = {"stage": stage, "stage_share": 0.0} if stage else {}
            log.append(c, job_id, kind, self._clock(), data, changes)

        self._database.write("record", body)

    def wait(self, job_id: str, attempt: int, part: str) -> None:
        """The attempt waits for its turn at a `part` of its model, while its worker does other work.

        Should the worker die of that, this job is not to blame.
        """
        self._take_turn(job_id, attempt, "waiting", part, "waiting", charge=-1)

    def go_on(self, job_id: str, attempt: int, part: str, stage: str) -> None:
        """It has its turn, and goes on in `stage`."""
        self._take_turn(job_id, attempt, "turn", part, stage, charge=1)

    def _take_turn(self, job_id: str, attempt: int, kind: str, part: str, stage: str, charge: int) -> None:
        def body(c: Connection) -> None:
            row = self._held(c, job_id, attempt)
            changes = {"stage": stage, "stage_share": 0.0, "attempts_charged": row.attempts_charged + charge}
            log.append(c, job_id, kind, self._clock(), {"part": part}, changes)

        self._database.write(kind, body, urgent=True)

    def bind(self, job_id: str, attempt: int, request: str) -> None:
        """Put in the job's request what other jobs have made for it."""
        digest = records.digest(request)

        def body(c: Connection) -> None:
            self._held(c, job_id, attempt)
            bound = {"request": request, "request_sha256": digest}
            log.append(c, job_id, "bound", self._clock(), changes=bound)

        self._database.write("bind", body)

    def measure(self, job_id: str, attempt: int, measures: Measures) -> None:
        """Record how long the stages of an attempt took, for estimates and figures."""
        mine = update(attempts).where(attempts.c.job_id == job_id, attempts.c.number == attempt)

        def body(c: Connection) -> None:
            self._held(c, job_id, attempt)
            c.execute(mine.values(measures=json.dumps(measures.to_dict(), ensure_ascii=False)))
            log.append(c, job_id, "measured", self._clock(), measures.to_dict())

        self._database.write("measure", body)

    def note(self, job_id: str, attempt: int, text: str) -> None:
        """Add a sentence to the job's record ("resumed_inexact: …"). The same text is kept once."""

        def body(c: Connection) -> None:
            notes = json.loads(self._held(c, job_id, attempt).notes)
            if text not in notes:
                changes = {"notes": json.dumps([*notes, text], ensure_ascii=False)}
                log.append(c, job_id, "note", self._clock(), {"text": text}, changes)

        self._database.write("note", body, urgent=True)

    def complete(
        self,
        job_id: str,
        attempt: int,
        result_sha256: str,
        files: tuple[ArtifactRef, ...] = (),
        *,
        seconds: float | None = None,
    ) -> Job:
        """Make the result the job's one visible result. The files must be on disk under their final names.

        `seconds` is the run time on the worker's monotonic clock. Saying the same twice is no fault, so that a worker
        that did not hear the answer may ask again. Raises Cancelled when a cancel was accepted first: the worker
        removes the files and calls `confirm_cancel`.
        """

        def body(c: Connection) -> Job:
            row = records.hold(c, job_id)
            ours = row.status == JobStatus.COMPLETED and row.attempt == attempt
            if ours and row.result_sha256 == result_sha256:
                return records.reread(c, job_id)
            if _in_force(row, job_id, attempt).cancel_requested:
                raise Cancelled(f"Job {job_id} was cancelled before its result was recorded.")
            for file in files:
                c.execute(insert(artifacts).values(job_id=job_id, **_columns(file)))
            records.end(c, job_id, JobStatus.COMPLETED, self._clock(), result_sha256=result_sha256)
            self._close(c, job_id, attempt, Outcome.COMPLETED, seconds)
            return records.reread(c, job_id)

        return self._database.write("complete", body, urgent=True)

    def fail(
        self, job_id: str, attempt: int, failure: JobFailure, *, retryable: bool = False, seconds: float | None = None
    ) -> Job:
        """Record that the attempt failed. A retryable one is queued again until its attempts are used up."""

        def body(c: Connection) -> Job:
            row = self._held(c, job_id, attempt)
            self._close(c, job_id, attempt, Outcome.FAILED, seconds, failure)
            if retryable:
                self._give_back(c, row, failure)
            else:
                records.end(c, job_id, JobStatus.FAILED, self._clock(), failure)
            return records.reread(c, job_id)

        return self._database.write("fail", body, urgent=True)

    def requeue(self, job_id: str, attempt: int, reason: str, *, seconds: float | None = None) -> Job:
        """Give the job back unfinished and blameless: the worker drains, or the machine can't run it now."""

        def body(c: Connection) -> Job:
            row = self._held(c, job_id, attempt)
            self._close(c, job_id, attempt, Outcome.DRAINED, seconds)
            if row.cancel_requested:
                records.end(c, job_id, JobStatus.CANCELLED, self._clock())
            else:
                records.change(c, job_id, attempts_charged=row.attempts_charged - 1)
                self._queue_again(c, job_id, reason)
            return records.reread(c, job_id)

        return self._database.write("requeue", body, urgent=True)

    def confirm_cancel(self, job_id: str, attempt: int, *, seconds: float | None = None) -> Job:
        """Record that the job has stopped as asked. Raises IllegalTransition when nobody asked."""

        def body(c: Connection) -> Job:
            if not self._held(c, job_id, attempt).cancel_requested:
                raise IllegalTransition(f"Job {job_id} has no cancel to confirm.")
            self._close(c, job_id, attempt, Outcome.CANCELLED, seconds)
            records.end(c, job_id, JobStatus.CANCELLED, self._clock())
            return records.reread(c, job_id)

        return self._database.write("confirm_cancel", body, urgent=True)

    # Dead workers

    def held_by(self, names: Collection[str]) -> tuple[Job, ...]:
        """The jobs in progress that these workers hold."""
        theirs = select(jobs).where(jobs.c.status == JobStatus.IN_PROGRESS, jobs.c.worker.in_(names))
        return tuple(job_of(row) for row in self._database.read(lambda c: c.execute(theirs).all())) if names else ()

    def recover(self, is_alive: Callable[[str], bool]) -> tuple[Job, ...]:
        """Queue the jobs of dead workers again, or fail those that were tried too often; returns them.

        `is_alive` tells of a worker's name whether it lives. Anybody may call this at any time.
        """
        return self.take_back(frozenset(name for name in self.known() if not is_alive(name)))

    def take_back(self, dead: Collection[str]) -> tuple[Job, ...]:
        """The same for workers that are known to be dead."""
        if not dead:
            return ()
        held = [(job.id, job.attempt) for job in self.held_by(dead)]

        def body(c: Connection) -> tuple[Job, ...]:
            c.execute(delete(workers).where(workers.c.name.in_(dead)))
            groups.take_back(c, dead)
            taken = [self._take_back(c, job_id, attempt) for job_id, attempt in held]
            return tuple(job for job in taken if job is not None)

        return self._database.write("recover", body, urgent=True)

    def _take_back(self, c: Connection, job_id: str, attempt: int) -> Job | None:
        """The dead worker's job, in its new state; None when somebody else noticed first."""
        try:
            row = self._held(c, job_id, attempt)
        except LeaseLost:
            return None
        failure = JobFailure("worker_died", "The worker process died.", "See the worker's log.")
        self._close(c, job_id, attempt, Outcome.LOST, None, failure)
        self._give_back(c, row, failure)
        return records.reread(c, job_id)

    # Shared

    def _held(self, c: Connection, job_id: str, attempt: int, *, only_look: bool = False) -> Row[Any]:
        """The job's row if the attempt is the one in force, held unless it is only looked at. Raises LeaseLost."""
        rows = select(jobs).where(jobs.c.id == job_id)
        row = c.execute(rows if only_look else rows.with_for_update(key_share=True)).first()
        return _in_force(row, job_id, attempt)

    def _orders(self, c: Connection, row: Row[Any]) -> Orders:
        drain = c.scalar(select(workers.c.drain).where(workers.c.name == row.worker))
        return Orders(cancel=row.cancel_requested, drain=bool(drain))

    def _close(
        self,
        c: Connection,
        job_id: str,
        attempt: int,
        outcome: Outcome,
        seconds: float | None,
        failure: JobFailure | None = None,
    ) -> None:
        """Write the end of an attempt into its own record."""
        mine = update(attempts).where(attempts.c.job_id == job_id, attempts.c.number == attempt)
        ended = {"outcome": outcome, "ended_at": self._clock(), "seconds": seconds}
        c.execute(mine.values(**ended, **failure_columns(failure)))

    def _give_back(self, c: Connection, row: Row[Any], failure: JobFailure) -> None:
        """After an attempt that did not work out: cancelled if that was asked, failed if it was the last, else queued."""
        if row.cancel_requested:
            records.end(c, row.id, JobStatus.CANCELLED, self._clock())
        elif row.attempts_charged >= self._max_attempts:
            message = f"The job failed on {row.attempts_charged} attempts; the last one: {failure.message}"
            # What a job that ran out of memory needs is known: to be smaller.
            code = failure.code if failure.code == OutOfMemory.code else PoisonJob.code
            records.end(c, row.id, JobStatus.FAILED, self._clock(), JobFailure(code, message, failure.hint))
        else:
            self._queue_again(c, row.id, failure.code)

    def _queue_again(self, c: Connection, job_id: str, reason: str) -> None:
        """Back to its old place in line."""
        changes = {"status": JobStatus.QUEUED, "worker": None}
        log.append(c, job_id, "requeued", self._clock(), {"reason": reason}, changes)


def _in_force(row: Row[Any] | None, job_id: str, attempt: int) -> Row[Any]:
    """The job's row if this attempt holds it. Raises LeaseLost."""
    if row is None or row.status != JobStatus.IN_PROGRESS or row.attempt != attempt:
        now = "gone" if row is None else f"{row.status} with attempt {row.attempt}"
        raise LeaseLost(f"Attempt {attempt} no longer holds job {job_id}, which is {now}.")
    return row


def _shown(progress: Progress) -> dict[str, Any]:
    return {"stage": progress.stage, "step": progress.step, "total_steps": progress.total_steps}


def _allows(connection: Connection, worker: str, *what: ColumnElement[bool]) -> bool:
    """Whether all this is so of the queue, and this worker is not to leave."""
    draining = exists().where(workers.c.name == worker, workers.c.drain)
    return connection.scalar(select(and_(*what, ~draining)).select_from(queue)) or False


def _columns(file: ArtifactRef) -> dict[str, Any]:
    return {
        "kind": file.kind,
        "name": file.name,
        "sha256": file.sha256,
        "size": file.size,
        "media_type": file.media_type,
    }
