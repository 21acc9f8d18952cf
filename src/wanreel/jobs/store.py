"""JobStore: the durable queue as everybody but the worker sees it. Knows nothing of what a request says.

What a method returned is on disk: it survives `kill -9` and power loss. Wall-clock times are stored for people to read;
order, expiry and liveness never depend on them, so a clock that jumps changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, insert, select, update

from wanreel.core.errors import IdempotencyConflict, QueueFull
from wanreel.core.failpoints import Failpoints
from wanreel.core.job import (
    TERMINAL,
    ArtifactRef,
    Job,
    JobStatus,
    NewJob,
    QueueState,
    folded,
)
from wanreel.core.upload import UNFINISHED
from wanreel.host import free_bytes
from wanreel.jobs import groups, line, locks, log, outbox, records, signals, uploads, waiting
from wanreel.jobs.database import Database
from wanreel.jobs.groups import Groups
from wanreel.jobs.leases import MAX_ATTEMPTS, Leases
from wanreel.jobs.outbox import Outbox
from wanreel.jobs.plans import PlanRuns
from wanreel.jobs.reader import JobReader
from wanreel.jobs.rows import failure_columns
from wanreel.jobs.tables import idempotency, jobs, queue
from wanreel.jobs.transactions import Transactions
from wanreel.jobs.uploads import Uploads

CAPACITY = 100  # queued jobs


class JobStore(JobReader):
    """Jobs in one database. Safe to use from several threads and, each with its own store, several processes."""

    def __init__(
        self,
        database: Transactions,
        *,
        capacity: int = CAPACITY,
        max_attempts: int = MAX_ATTEMPTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(database, capacity)
        self._clock = clock
        self.leases = Leases(database, clock, max_attempts)
        self.outbox = Outbox(database, clock)
        self.uploads = Uploads(database, clock)
        self.plans = PlanRuns(database, clock)
        self.groups = Groups(database, clock, self)

    @classmethod
    def open(cls, path: Path, *, capacity: int = CAPACITY, fault: str = "") -> Self:
        """Open, check and if need be create or upgrade the database at `path`. Raises StoreError.

        `fault` is a rule for `Failpoints`, for tests.
        """
        return cls(Database(path, failpoints=Failpoints(fault)), capacity=capacity)

    @classmethod
    def open_server(cls, url: str, folder: Path, *, patience: float, capacity: int = CAPACITY, fault: str = "") -> Self:
        """The same on a PostgreSQL server at `url`. `folder` is this machine's data directory.

        A call waits up to `patience` seconds for a server that is away. Raises SettingsError, StoreError, and
        MissingDependency where the driver is not installed.
        """
        from wanreel.jobs.postgres import PostgresDatabase

        database = PostgresDatabase(url, folder, patience=patience, failpoints=Failpoints(fault))
        return cls(database, capacity=capacity)

    # Handing in

    def enqueue(self, new: NewJob, *, idempotency_key: str | None = None, body: str | None = None) -> Job:
        """Accept a job. When this returns, the job will run.

        A key used before by the same owner gives the job of that time if `body` is equal, else IdempotencyConflict.
        `body` is what the client sent (the request itself by default: not enough where resolving draws a seed).
        Raises QueueFull, and InsufficientStorage when the disk can't take it.
        """
        digest = records.digest(new.request if body is None else body)

        def accept(c: Connection) -> Job:
            locks.hold_line(c)
            if idempotency_key is not None:
                known = self.known(c, new.owner, idempotency_key, digest)
                if known is not None:
                    return known
            job_id = self.accept(c, new)
            if idempotency_key is not None:
                self.keep_key(c, new.owner, idempotency_key, digest, job_id)
            return records.reread(c, job_id)

        return self._database.write("enqueue", accept)

    # Within a transaction that is open, for `Groups`

    def known(self, c: Connection, owner: str, key: str, digest: str) -> Job | None:
        """The job that an idempotency key stands for. Raises IdempotencyConflict for a key of another request."""
        mine = select(idempotency).where(idempotency.c.owner == owner, idempotency.c.key == key)
        used = c.execute(mine).first()
        if used is None:
            return None
        if used.body_sha256 != digest:
            raise IdempotencyConflict(f"The idempotency key {key!r} was used before with another request.")
        return records.reread(c, used.job_id)

    def accept(self, c: Connection, new: NewJob) -> str:
        """Queue a job. Returns its id; raises QueueFull, and JobNotFound for one that it is to wait for."""
        self._refuse_if_full(c)
        job_id = self._insert(c, new)
        groups.wait_for(c, job_id, new.after)
        signals.call_out(c, job_id)
        return job_id

    def keep_key(self, c: Connection, owner: str, key: str, digest: str, job_id: str) -> None:
        """Let an idempotency key stand for a job."""
        c.execute(insert(idempotency).values(owner=owner, key=key, body_sha256=digest, job_id=job_id))

    def _refuse_if_full(self, c: Connection) -> None:
        queued = line.count(c, JobStatus.QUEUED)
        if queued >= self.capacity:
            wait = line.seconds_until_room(c)
            raise QueueFull(
                f"The queue holds {queued} jobs, which is its limit.",
                retry_after=wait,
                hint=f"Try again in {wait:.0f} s, or raise WANREEL_MAX_QUEUE_SIZE.",
            )

    def _insert(self, c: Connection, new: NewJob) -> str:
        job_id, now = new.id or groups.new_id(), self._clock()
        row = {
            "id": job_id,
            "status": JobStatus.QUEUED,
            **_request_columns(new),
            "owner": new.owner,
            "parent_id": new.parent_id,
            "group_id": new.group_id,
            "cell": new.cell,
            "time_limit": new.time_limit,
            "created_at": now,
            **line.join_line(c, new.owner, new.priority),
            **_UNTRIED,
            "notes": json.dumps(new.notes, ensure_ascii=False),
            "attempt": 0,
            "last_event": 1,
        }
        c.execute(insert(jobs).values(**row))
        log.write(c, job_id, 1, "queued", now)
        if new.webhook_url:
            outbox.subscribe(c, job_id, new.webhook_url)
        if new.upload_to is not None:
            uploads.direct(c, job_id, new.upload_to, now)
        return job_id

    # The line

    def pause(self, reason: str) -> QueueState:
        """Let no worker claim a job until `resume`. Running jobs go on; new ones are accepted."""
        return self._set_pause(paused=True, reason=reason)

    def resume(self) -> QueueState:
        """Undo any pause."""
        return self._set_pause(paused=False)

    def watch_disk(self, minimum_free: int) -> QueueState:
        """Pause the queue while the disk has less than `minimum_free` bytes, and resume what was paused for that.

        To be called every few seconds. A pause that a person asked for is left alone. One disk of many pauses nobody
        else: where the store is shared, only the answer says paused.
        """
        free = free_bytes(self._database.folder)
        state = self.queue()
        if free < minimum_free and not state.paused:
            reason = f"The disk has {free / 2**30:.2f} GiB left; {minimum_free / 2**30:.2f} GiB are needed."
            if self.shared:
                return replace(state, paused=True, automatic=True, reason=reason)
            return self._set_pause(paused=True, reason=reason, automatic=True)
        if free >= minimum_free:
            self._database.keep_space()
            if state.automatic:
                return self._set_pause(paused=False)
        return state

    def _set_pause(self, *, paused: bool, reason: str = "", automatic: bool = False) -> QueueState:
        def body(c: Connection) -> QueueState:
            locks.shut_gate(c)
            c.execute(update(queue).values(paused=paused, automatic=automatic, reason=reason))
            if not paused:
                signals.announce(c, signals.LINE)
            return self._state(c)

        return self._database.write("pause" if paused else "resume", body, urgent=True)

    # Changing jobs

    def move(self, job_id: str, *, before: str | None = None) -> Job:
        """Put a queued job right before another queued one, or at the end. It takes the other's priority and turn."""

        def body(c: Connection) -> Job:
            locks.hold_line(c)
            row = records.find_queued(c, job_id, "moved")
            if before is None:
                values = line.place_last(c, row)
            elif before == job_id:
                values = {}
            else:
                values = line.place_before(c, row, records.find_queued(c, before, "moved before"))
            return self._edited(c, job_id, "moved", values)

        return self._database.write("move", body)

    def edit(
        self, job_id: str, request: str, model: str, *, mode: str = "", prompt: str = "", adapters: str = ""
    ) -> Job:
        """Replace a queued job's request. It keeps its place in line."""
        values = {
            **_request_columns(NewJob(request, model, mode=mode, prompt=prompt, adapters=adapters)),
            "saved_step": 0,
        }

        def body(c: Connection) -> Job:
            records.find_queued(c, job_id, "edited")
            return self._edited(c, job_id, "edited", values)

        return self._database.write("edit", body)

    def set_priority(self, job_id: str, priority: int) -> Job:
        """Give a queued job another priority; it joins the end of its owner's jobs there."""

        def body(c: Connection) -> Job:
            locks.hold_line(c)
            row = records.find_queued(c, job_id, "given another priority")
            values = {} if row.priority == priority else line.join_line(c, row.owner, priority)
            return self._edited(c, job_id, "moved", values)

        return self._database.write("set_priority", body)

    def _edited(self, c: Connection, job_id: str, kind: str, values: dict[str, Any]) -> Job:
        if values:
            log.append(c, job_id, kind, self._clock(), changes=values)
        return records.reread(c, job_id)

    def cancel(self, job_id: str) -> Job:
        """Stop a job: a queued one at once, a running one when its worker next looks.

        From here on a running job ends as cancelled and never as completed. Cancelling twice is no fault. Raises
        IllegalTransition for a job that completed or failed.
        """

        def body(c: Connection) -> Job:
            row = records.hold(c, job_id)
            if row.status == JobStatus.QUEUED:
                records.end(c, job_id, JobStatus.CANCELLED, self._clock())
            elif row.status == JobStatus.IN_PROGRESS:
                records.ask_to_stop(c, row, self._clock())
            elif row.status in (JobStatus.COMPLETED, JobStatus.FAILED):
                raise records.illegal(row, "cancelled")
            return records.reread(c, job_id)

        return self._database.write("cancel", body, urgent=True)

    def retry(self, job_id: str, changed: NewJob | None = None) -> Job:
        """Queue a failed or cancelled job again, with all its attempts before it; `changed` brings another request."""

        def body(c: Connection) -> Job:
            locks.hold_line(c)
            row = records.hold(c, job_id)
            if row.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
                raise records.illegal(row, "retried")
            self._refuse_if_full(c)
            values = {**line.join_line(c, row.owner, row.priority), **_UNTRIED, "ended_at": None, "ended_number": None}
            changes = {"status": JobStatus.QUEUED, **values, **(_request_columns(changed) if changed else {})}
            log.append(c, job_id, "queued", self._clock(), {"retry": True}, changes)
            waiting.revive(c, job_id, self._clock(), _UNTRIED)
            return records.reread(c, job_id)

        return self._database.write("retry", body)

    def set_favourite(self, job_id: str, favourite: bool) -> Job:
        """Mark a job, or take the mark off."""

        def body(c: Connection) -> Job:
            records.hold(c, job_id)
            records.change(c, job_id, favourite=favourite)
            return records.reread(c, job_id)

        return self._database.write("set_favourite", body)

    def delete(self, job_id: str) -> tuple[ArtifactRef, ...]:
        """Forget a job that does not run, with its events and idempotency key. Returns its files, to be deleted after."""

        def body(c: Connection) -> tuple[ArtifactRef, ...]:
            row = records.hold(c, job_id)
            if row.status == JobStatus.IN_PROGRESS:
                raise records.illegal(row, "deleted")
            return records.remove(c, job_id, self._clock())

        return self._database.write("delete", body, urgent=True)

    def prune(self, keep: int) -> tuple[tuple[str, tuple[ArtifactRef, ...]], ...]:
        """Forget all ended jobs but the `keep` that ended last. Returns their ids and files, to be deleted after.

        Retention goes by number and not by age, because an age is only as good as the clock.
        """
        ended = select(jobs.c.id).where(jobs.c.status.in_(TERMINAL)).order_by(jobs.c.ended_number.desc())
        # What is still to be copied elsewhere is nobody's to forget.
        ended = ended.where(jobs.c.upload.is_(None) | jobs.c.upload.not_in(UNFINISHED))

        def body(c: Connection) -> tuple[tuple[str, tuple[ArtifactRef, ...]], ...]:
            old = list(c.scalars(ended.offset(keep).with_for_update()))
            return tuple((job_id, records.remove(c, job_id, self._clock())) for job_id in old)

        return self._database.write("prune", body, urgent=True)


#: A job's columns before its first attempt, and again when it is retried.
_UNTRIED: dict[str, Any] = {
    "attempts_charged": 0,
    "saved_step": 0,
    "worker": None,
    "stage": "",
    "stage_share": 0.0,
    "step": 0,
    "total_steps": 0,
    "cancel_requested": False,
    "notes": "[]",
    **failure_columns(None),
}


def _request_columns(new: NewJob) -> dict[str, str]:
    """What a job asks for, and by what it is found."""
    return {
        "request": new.request,
        "request_sha256": records.digest(new.request),
        "model": new.model,
        "mode": new.mode,
        "words": folded(new.prompt),
        "adapters": new.adapters,
    }
