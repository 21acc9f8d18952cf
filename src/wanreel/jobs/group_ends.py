"""Ends of groups: who is told that a group's result is there, or will not be, and its copy in object storage.

A group has ended when all its jobs have and nothing more is to be made of them; it can begin again, and end again. Each end
is told of once, in the transaction that finds it. The copy is one record for all files of a result: whoever takes it has it
for LEASE seconds, and a result that another one has taken the place of meanwhile is copied anew. Knows nothing of S3.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, or_, select, update

from wanreel.core.group import GroupCopy, GroupFile, due
from wanreel.core.job import JobStatus
from wanreel.core.upload import UploadState
from wanreel.jobs import outbox
from wanreel.jobs.outbox import DELAYS
from wanreel.jobs.tables import groups
from wanreel.jobs.transactions import Transactions

#: Seconds after which a copy whose sender died is made again; longer than sending a film takes.
LEASE = 900.0
#: Seconds after which one machine looks again for files that another one has.
PASS = 10.0
_UNFINISHED = (UploadState.WAITING, UploadState.UPLOADING)


class GroupCopies:
    """The copies in one database. Safe to use from several threads and processes."""

    def __init__(self, database: Transactions, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def take(self) -> GroupCopy | None:
        """A result to copy now, if there is one. Nobody else gets it for LEASE seconds."""
        now = self._clock()
        if self._database.read(lambda c: _waiting(c, now)) is None:
            return None

        def body(c: Connection) -> GroupCopy | None:
            row = _waiting(c, now, held=True)
            if row is None:
                return None
            attempts = row.upload_attempts + 1
            _set(c, row.id, upload=UploadState.UPLOADING, upload_due=now + LEASE, upload_attempts=attempts)
            return GroupCopy(row.id, row.kind, row.storage, row.result, attempts)

        return self._database.write("take_group_copy", body)

    def done(self, taken: GroupCopy, files: Sequence[GroupFile]) -> None:
        """Record that all files are there."""
        kept = json.dumps([file.to_dict() for file in files], ensure_ascii=False)
        self._record(taken, upload=UploadState.DONE, uploaded=kept, upload_outcome="")

    def failed(self, taken: GroupCopy, outcome: str, *, jitter: float) -> None:
        """Put it off, or give it up after the last attempt. `jitter`, 0 to 1, lengthens the delay by up to a quarter."""
        if taken.attempts > len(DELAYS):
            self._record(taken, upload=UploadState.FAILED, upload_outcome=outcome)
            return
        later = self._clock() + DELAYS[taken.attempts - 1] * (1.0 + jitter / 4.0)
        self._record(taken, upload=UploadState.WAITING, upload_outcome=outcome, upload_due=later)

    def put_back(self, taken: GroupCopy, after: float = 0.0) -> None:
        """Give it up unfinished and blameless; nobody takes it for so many seconds."""
        attempts = taken.attempts - 1
        waiting = {"upload": UploadState.WAITING, "upload_attempts": attempts}
        self._record(taken, **waiting, upload_due=self._clock() + after)

    def _record(self, taken: GroupCopy, **values: Any) -> None:
        # What was made anew meanwhile waits already, and a late answer must not undo that.
        mine = (groups.c.id == taken.group_id) & (groups.c.result == taken.result)
        mine &= groups.c.upload == UploadState.UPLOADING
        self._database.write("record_group_copy", lambda c: c.execute(update(groups).where(mine).values(**values)))


# Within the groups' own transactions


def settle(connection: Connection, row: Row[Any], members: Sequence[Row[Any]], at: float) -> None:
    """Tell of the group's end, if it has come to one that nobody was told of yet. `row` is as it is now."""
    end = _end_of(row, members)
    if end is None:
        return
    result = hashlib.sha256(row.result.encode()).hexdigest()[:16] if end is JobStatus.COMPLETED else ""
    told = f"{end} {result or max(member.ended_number or 0 for member in members)}"
    if told == row.told:
        return
    _set(connection, row.id, told=told)
    if end is JobStatus.COMPLETED and row.storage:
        fresh = {"upload": UploadState.WAITING, "upload_due": at, "upload_attempts": 0}
        _set(connection, row.id, **fresh, upload_outcome="", uploaded="")
    if row.webhook:
        outbox.post(connection, row.id, row.owner, row.webhook, end, at, _facts(row, members, end))


def _end_of(row: Row[Any], members: Sequence[Row[Any]]) -> JobStatus | None:
    """How it ended; None while something is still to be made."""
    states = {member.status for member in members}
    if not members or states & {JobStatus.QUEUED, JobStatus.IN_PROGRESS} or row.worker is not None:
        return None
    wanted = due(row.gathering, [(member.id, member.status) for member in members])
    made = row.result != "" and tuple(row.made_of.split()) == wanted and row.error_code is None
    if made and (row.gathering == "ended" or states == {JobStatus.COMPLETED}):
        return JobStatus.COMPLETED
    if row.pending or (wanted and not made and row.error_code is None):
        return None
    failed = JobStatus.FAILED in states or row.error_code is not None
    return JobStatus.FAILED if failed else JobStatus.CANCELLED


def _facts(row: Row[Any], members: Sequence[Row[Any]], end: JobStatus) -> dict[str, str]:
    """What the message says besides."""
    facts = {"object": row.kind}
    if end is not JobStatus.FAILED:
        return facts
    broken = next((member for member in members if member.error_code is not None), row)
    wrong = row if row.error_code is not None else broken
    return facts | {"code": wrong.error_code or "failed", "message": wrong.error_message or ""}


def _waiting(connection: Connection, now: float, *, held: bool = False) -> Row[Any] | None:
    """The copy that has waited longest. One that is put off for longer than ever happens is due: the clock was set back."""
    ready = or_(groups.c.upload_due <= now, groups.c.upload_due > now + 2 * (LEASE + max(DELAYS)))
    rows = select(groups).where(groups.c.upload.in_(_UNFINISHED), ready)
    longest = rows.order_by(groups.c.upload_due, groups.c.seq).limit(1)
    return connection.execute(longest.with_for_update(skip_locked=True) if held else longest).first()


def _set(connection: Connection, group_id: str, **values: Any) -> None:
    connection.execute(update(groups).where(groups.c.id == group_id).values(**values))
