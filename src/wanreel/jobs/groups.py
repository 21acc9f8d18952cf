"""Groups: jobs that belong together, wait for one another, and end in one result. Knows nothing of what they make.

A job that is accepted with `NewJob.after` is queued but not claimed before every job it names has completed
(`jobs.waits` counts those that have not). Where one of them fails, is cancelled or deleted, it fails too with the code
"dependency_failed", and so on down; a retry of the first puts all of those back in line. `after` says besides what a job
takes of another; its worker reads that when it begins, with `Groups.afters`.

A group is a row with the JSON text of what was asked, and jobs that name it (`NewJob.group_id`, in the order of
`NewJob.cell`). Group and jobs are written in one transaction. Each time one of its jobs ends, a worker looks what is to
be made of the results (`Gathering`), makes it by the finisher of its kind, and records it. That is no job: it is done
between two jobs, by one worker at a time, and again by another one if that dies. A group whose finisher failed TRIES times
rests until one of its jobs ends anew or `touch` is called.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, literal, select, update

from wanreel.core.errors import GroupNotFound, IllegalTransition
from wanreel.core.group import After, Group, GroupFile, GroupUpload, NewGroup, due
from wanreel.core.job import ArtifactRef, Job, JobFailure, JobStatus, NewJob
from wanreel.jobs import locks, log, outbox, records
from wanreel.jobs.group_ends import GroupCopies, settle
from wanreel.jobs.rows import failure_columns, job_of
from wanreel.jobs.tables import groups, jobs, waits, workers
from wanreel.jobs.transactions import Transactions

TRIES = 3
_LOOKED_AT = 50  # groups that one look for work goes through


class Door(Protocol):
    """How the store accepts jobs within a transaction that is open."""

    def known(self, c: Connection, owner: str, key: str, digest: str) -> Job | None: ...

    def accept(self, c: Connection, new: NewJob) -> str: ...

    def keep_key(self, c: Connection, owner: str, key: str, digest: str, job_id: str) -> None: ...


def new_id() -> str:
    """Of a job or a group: 128 random bits, hexadecimal."""
    return secrets.token_hex(16)


class Groups:
    """The groups in one database. Safe to use from several threads and processes."""

    def __init__(self, database: Transactions, clock: Callable[[], float], door: Door) -> None:
        self._database = database
        self._clock = clock
        self._door = door
        self.copies = GroupCopies(database, clock)

    # Handing in and looking up

    def create(self, new: NewGroup, members: Sequence[NewJob], *, key: str | None = None, digest: str = "") -> Group:
        """Accept a group with its jobs, which name it and may wait for one another: all of them or none.

        A `key` used before by the same owner with the same `digest` gives the group of that time. Raises QueueFull,
        IdempotencyConflict, JobNotFound for a job that one waits for, and InsufficientStorage.
        """

        def body(c: Connection) -> Group:
            locks.hold_line(c)
            known = self._door.known(c, new.owner, key, digest) if key is not None else None
            if known is not None and known.group_id is not None:
                return _reread(c, known.group_id)
            row = {"id": new.id, "kind": new.kind, "spec": new.spec, "owner": new.owner, "title": new.title}
            values = {"gathering": new.gathering, "created_at": self._clock(), "pending": False, "failures": 0}
            row |= {"webhook": new.webhook, "storage": new.storage}
            c.execute(insert(groups).values(**row, **values))
            ids = [self._door.accept(c, member) for member in members]
            if key is not None and ids:
                self._door.keep_key(c, new.owner, key, digest, ids[0])
            return _reread(c, new.id)

        return self._database.write("create_group", body)

    def get(self, group_id: str) -> Group:
        """The group. Raises GroupNotFound."""
        return self._database.read(lambda c: _reread(c, group_id))

    def list(
        self, *, owner: str | None = None, kind: str | None = None, after: str | None = None, limit: int = 20
    ) -> tuple[Group, ...]:
        """Groups, newest first; `after` is the last id of the page before. Raises GroupNotFound for that id."""
        found = select(groups).order_by(groups.c.seq.desc()).limit(limit)
        found = found if owner is None else found.where(groups.c.owner == owner)
        found = found if kind is None else found.where(groups.c.kind == kind)

        def body(c: Connection) -> tuple[Group, ...]:
            rows = found if after is None else found.where(groups.c.seq < _find(c, after).seq)
            return tuple(_group_of(row) for row in c.execute(rows))

        return self._database.read(body)

    def jobs(self, group_id: str) -> tuple[Job, ...]:
        """The group's jobs by their cells; none for a group that is not there."""
        return self._database.read(lambda c: tuple(job_of(row) for row in _members(c, group_id)))

    def afters(self, job_id: str) -> tuple[After, ...]:
        """What the job waited for, and what it takes of it."""
        mine = select(waits).where(waits.c.job_id == job_id).order_by(waits.c.for_id, waits.c.takes)
        rows = self._database.read(lambda c: c.execute(mine).all())
        return tuple(After(row.for_id, row.takes, row.file, row.detail) for row in rows)

    def taken_of(self, job_id: str) -> frozenset[str]:
        """Kinds of this job's files that others take when they begin."""
        mine = select(waits.c.file).where(waits.c.for_id == job_id, waits.c.file != "").distinct()
        return frozenset(self._database.read(lambda c: list(c.scalars(mine))))

    # Changing

    def change(
        self, group_id: str, *, spec: str | None = None, drop: Collection[str] = (), add: Sequence[NewJob] = (),
        cells: dict[str, int] | None = None, storage: str | None = None,
    ) -> tuple[Job, ...]:  # fmt: skip
        """Change what is asked, and its jobs: `drop` leaves those behind, `add` accepts others, `cells` reorders.

        A job that is left behind belongs to no group any more; it is cancelled unless it has ended. Returns what became
        of those. Raises QueueFull; nothing is changed then.
        """

        def body(c: Connection) -> tuple[Job, ...]:
            locks.hold_line(c)
            _find(c, group_id, hold=True)
            for job_id in drop:
                c.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.group_id == group_id).values(group_id=None))
            # The last first: so none of them ends because one that it waits for did.
            for row in reversed(c.execute(select(jobs.c.id).where(jobs.c.id.in_(drop)).order_by(jobs.c.seq)).all()):
                _stop(c, row.id, self._clock())
            for member in add:
                self._door.accept(c, member)
            for job_id, cell in (cells or {}).items():
                c.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.group_id == group_id).values(cell=cell))
            changes = {"spec": spec or None, "storage": storage}
            changed = {name: value for name, value in changes.items() if value is not None}
            _set(c, group_id, pending=True, failures=0, **failure_columns(None), **changed)
            return tuple(records.reread(c, job_id) for job_id in drop)

        return self._database.write("change_group", body)

    def touch(self, group_id: str) -> None:
        """Have a worker look again what is to be made of it."""
        again = {"pending": True, "failures": 0, **failure_columns(None)}
        self._database.write("touch_group", lambda c: _set(c, group_id, **again))

    def cancel(self, group_id: str) -> tuple[Job, ...]:
        """Stop every job of the group that has not ended: queued ones at once, running ones when their worker looks."""

        def body(c: Connection) -> tuple[Job, ...]:
            _find(c, group_id, hold=True)
            # The last first: so none of them ends because one that it waits for did.
            for row in reversed(_members(c, group_id)):
                _stop(c, row.id, self._clock())
            return tuple(job_of(row) for row in _members(c, group_id))

        return self._database.write("cancel_group", body, urgent=True)

    def delete(self, group_id: str) -> tuple[tuple[str, tuple[ArtifactRef, ...]], ...]:
        """Forget a group with its jobs. Returns their ids and files, to be deleted after.

        Raises IllegalTransition while one of them runs, or its result is being made.
        """

        def body(c: Connection) -> tuple[tuple[str, tuple[ArtifactRef, ...]], ...]:
            group = _find(c, group_id, hold=True)
            members = _members(c, group_id)
            if group.worker is not None or any(row.status == JobStatus.IN_PROGRESS for row in members):
                raise IllegalTransition("It is being worked on, so it can't be deleted.", hint="Cancel it first.")
            removed = tuple((row.id, records.remove(c, row.id, self._clock())) for row in reversed(members))
            c.execute(delete(groups).where(groups.c.id == group_id))
            outbox.forget(c, group_id)
            return removed

        return self._database.write("delete_group", body, urgent=True)

    # Finishing

    def claim(self, worker: str, kinds: Collection[str]) -> tuple[Group, tuple[Job, ...]] | None:
        """A group of which something is to be made, and the jobs it is to be made of; nobody else gets it meanwhile."""
        waiting = (groups.c.pending, groups.c.worker.is_(None), groups.c.kind.in_(kinds))
        if self._database.read(lambda c: c.execute(select(groups.c.seq).where(*waiting).limit(1)).first()) is None:
            return None
        rows = select(groups).where(*waiting).order_by(groups.c.seq).limit(_LOOKED_AT).with_for_update(skip_locked=True)

        def body(c: Connection) -> tuple[Group, tuple[Job, ...]] | None:
            for row in c.execute(rows).all():
                members = _members(c, row.id)
                ids = due(row.gathering, [(member.id, member.status) for member in members])
                if not ids or (ids == _ids(row.made_of) and row.result and not row.failures):
                    _set(c, row.id, pending=False)
                    settle(c, _find(c, row.id), members, self._clock())
                    continue
                _set(c, row.id, pending=False, worker=worker)
                return _reread(c, row.id), tuple(job_of(member) for member in members if member.id in ids)
            return None

        return self._database.write("claim_group", body, urgent=True)

    def finish(self, group_id: str, worker: str, made_of: Sequence[str], result: str) -> bool:
        """Record what was made. False, and nothing recorded, where the worker was taken for dead meanwhile."""

        def body(c: Connection) -> bool:
            values = {"made_of": " ".join(made_of), "result": result, "failures": 0, **failure_columns(None)}
            if not _release(c, group_id, worker, **values):
                return False
            settle(c, _find(c, group_id), _members(c, group_id), self._clock())
            if made_of:
                log.append(c, made_of[-1], "gathered", self._clock(), {"group_id": group_id, "jobs": len(made_of)})
            return True

        return self._database.write("finish_group", body, urgent=True)

    def fail(self, group_id: str, worker: str, failure: JobFailure, *, retryable: bool) -> None:
        """Record that nothing could be made of it. It is tried again if that may help."""

        def body(c: Connection) -> None:
            row = _find(c, group_id, hold=True)
            failures = row.failures + 1
            again = row.pending or (retryable and failures < TRIES)
            if _release(c, group_id, worker, pending=again, failures=failures, **failure_columns(failure)):
                settle(c, _find(c, group_id), _members(c, group_id), self._clock())

        self._database.write("fail_group", body, urgent=True)

    def give_back(self, group_id: str, worker: str) -> None:
        """Leave it to another worker, blameless."""
        self._database.write("return_group", lambda c: _release(c, group_id, worker, pending=True), urgent=True)


# What the other faces of the store do within their own transactions


def wait_for(connection: Connection, job_id: str, afters: Sequence[After]) -> None:
    """Have a job that was just accepted wait. Raises JobNotFound."""
    waiting = 0
    for after in afters:
        other = records.hold(connection, after.job_id)  # so that it does not complete unnoticed
        waiting += other.status != JobStatus.COMPLETED
        values = {"for_id": after.job_id, "takes": after.takes, "file": after.file, "detail": after.detail}
        connection.execute(insert(waits).values(job_id=job_id, **values))
    if waiting:
        records.change(connection, job_id, waits=waiting)


def take_back(connection: Connection, dead: Collection[str]) -> None:
    """What dead workers were making is for others to make."""
    connection.execute(update(groups).where(groups.c.worker.in_(dead)).values(worker=None, pending=True))


def holders() -> Select[Any]:
    """Names of the workers that are making a group's result."""
    return select(groups.c.worker).where(groups.c.worker.is_not(None))


def unlisted_holders() -> Select[Any, Any]:
    """Those of them that are not on the list of workers, with a 0 beside."""
    unlisted = ~exists().where(workers.c.name == groups.c.worker)
    return select(groups.c.worker, literal(0.0)).where(groups.c.worker.is_not(None), unlisted)


def _stop(connection: Connection, job_id: str, at: float) -> None:
    row = records.hold(connection, job_id)
    if row.status == JobStatus.QUEUED:
        records.end(connection, job_id, JobStatus.CANCELLED, at)
    elif row.status == JobStatus.IN_PROGRESS:
        records.ask_to_stop(connection, row, at)


def _release(connection: Connection, group_id: str, worker: str, **values: Any) -> bool:
    ours = update(groups).where(groups.c.id == group_id, groups.c.worker == worker)
    return connection.execute(ours.values(worker=None, **values)).rowcount == 1


def _set(connection: Connection, group_id: str, **values: Any) -> None:
    connection.execute(update(groups).where(groups.c.id == group_id).values(**values))


def _find(connection: Connection, group_id: str, *, hold: bool = False) -> Row[Any]:
    rows = select(groups).where(groups.c.id == group_id)
    row = connection.execute(rows.with_for_update(key_share=True) if hold else rows).first()
    if row is None:
        raise GroupNotFound(f"There is no {group_id!r}.")
    return row


def _reread(connection: Connection, group_id: str) -> Group:
    return _group_of(_find(connection, group_id))


def _members(connection: Connection, group_id: str) -> list[Row[Any]]:
    mine = select(jobs).where(jobs.c.group_id == group_id)
    return list(connection.execute(mine.order_by(func.coalesce(jobs.c.cell, 0), jobs.c.seq)))


def _ids(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _group_of(row: Row[Any]) -> Group:
    error = None if row.error_code is None else (row.error_code, row.error_message, row.error_hint)
    return Group(
        id=row.id,
        kind=row.kind,
        spec=row.spec,
        owner=row.owner,
        title=row.title,
        gathering=row.gathering,
        created_at=row.created_at,
        worker=row.worker,
        pending=row.pending,
        failures=row.failures,
        made_of=_ids(row.made_of),
        result=row.result,
        error=error,
        webhook=row.webhook,
        upload=_upload_of(row) if row.storage else None,
    )


def _upload_of(row: Row[Any]) -> GroupUpload:
    files = tuple(GroupFile(**file) for file in json.loads(row.uploaded or "[]"))
    return GroupUpload(row.storage, row.upload, row.upload_attempts, row.upload_outcome, files)
