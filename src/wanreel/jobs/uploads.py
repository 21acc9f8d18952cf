"""Uploads: results that are to be copied to object storage, until they are there. Knows nothing of S3, and no key to it.

An upload is written in the transaction that completes its job. Whoever takes one has it for LEASE seconds, and for longer
as long as he renews it: one that dies has cost an attempt and this time, and of several senders each file has one.
Keys that came with a request are in the memory of one process alone, its holder. It renews its claims too; when it has not
for HOLD seconds the keys are taken for lost, and found again should it come back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Row, and_, func, insert, or_, select, update

from wanreel.core.errors import IllegalTransition
from wanreel.core.job import JobStatus
from wanreel.core.upload import KINDS, UNFINISHED, Upload, UploadedFile, UploadReport, UploadState, UploadTo
from wanreel.jobs import log
from wanreel.jobs.outbox import DELAYS, LEASE
from wanreel.jobs.rows import artifact_of
from wanreel.jobs.tables import artifacts, destinations, jobs, uploads
from wanreel.jobs.transactions import Transactions

#: Seconds without a sign of their holder after which keys are taken for lost.
HOLD = 90.0
#: Seconds after which one machine looks again for a file that another one has.
PASS = 10.0
#: What all of a job's files together are, by the first of these that one of them is.
_WORST = (
    UploadState.CREDENTIALS_LOST,
    UploadState.FAILED,
    UploadState.UPLOADING,
    UploadState.WAITING,
    UploadState.DONE,
)


class Uploads:
    """The uploads in one database. Safe to use from several threads and processes."""

    def __init__(self, database: Transactions, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    # Sending

    def take(self, sender: str, without: Collection[int] = ()) -> Upload | None:
        """A file to put now, if there is one. Nobody else gets it while the sender renews it.

        `without`: uploads, by `seq`, that are left to others.
        """
        now = self._clock()
        if self._database.read(lambda c: _due(c, now, sender, without)) is None:
            return None

        def body(c: Connection) -> Upload | None:
            row = _due(c, now, sender, without, held=True)
            if row is None:
                return None
            taken = {"state": UploadState.UPLOADING, "sender": sender, "due_at": now + LEASE}
            _change(c, row.upload_seq, attempts=row.attempts + 1, **taken)
            _settle(c, row.job_id, now)
            return _upload_of(row)

        return self._database.write("take_upload", body)

    def done(self, taken: Upload, bucket: str, key: str) -> None:
        """Record that the file is there."""
        self._record(taken, {"state": UploadState.DONE, "bucket": bucket, "key": key, "outcome": "", "sender": ""})

    def failed(self, taken: Upload, outcome: str, *, jitter: float, final: bool = False) -> None:
        """Put it off, or give it up: after the last attempt, or at once where another one can't help.

        `jitter`, 0 to 1, lengthens the delay by up to a quarter.
        """
        values: dict[str, Any] = {"outcome": outcome, "sender": ""}
        if final or taken.attempts > len(DELAYS):
            values["state"] = UploadState.FAILED
        else:
            values["state"] = UploadState.WAITING
            values["due_at"] = self._clock() + DELAYS[taken.attempts - 1] * (1.0 + jitter / 4.0)
        self._record(taken, values)

    def put_back(self, taken: Upload) -> None:
        """Give it up unfinished and blameless: the sender leaves."""
        waiting = {"state": UploadState.WAITING, "due_at": self._clock(), "attempts": taken.attempts - 1, "sender": ""}
        self._record(taken, waiting)

    def pass_on(self, taken: Upload) -> None:
        """Leave it to another machine, which has the file and may take it at once."""
        self.put_back(taken)

    def _record(self, taken: Upload, values: dict[str, Any]) -> None:
        def body(c: Connection) -> None:
            _hold(c, taken.job_id)
            # A late answer must not undo what a later attempt has achieved.
            mine = and_(uploads.c.seq == taken.seq, uploads.c.state.in_(UNFINISHED))
            c.execute(update(uploads).where(mine).values(**values))
            _settle(c, taken.job_id, self._clock())

        self._database.write("record_upload", body, urgent=True)

    # Holding on

    def renew(self, sender: str) -> None:
        """Show that the sender lives, which keeps what it has taken and the keys that it holds."""
        now = self._clock()
        at_work = and_(uploads.c.sender == sender, uploads.c.state == UploadState.UPLOADING)
        held = and_(destinations.c.holder == sender, destinations.c.job_id.in_(_unsettled()))

        def look(c: Connection) -> bool:
            busy = c.execute(select(uploads.c.seq).where(at_work).limit(1)).first()
            return busy is not None or c.execute(select(destinations.c.job_id).where(held).limit(1)).first() is not None

        def body(c: Connection) -> None:
            c.execute(update(uploads).where(at_work).values(due_at=now + LEASE))
            c.execute(update(destinations).where(held).values(renewed_at=now))
            mine = select(destinations.c.job_id).where(destinations.c.holder == sender)
            lost = and_(uploads.c.state == UploadState.CREDENTIALS_LOST, uploads.c.job_id.in_(mine))
            _turn(c, lost, UploadState.WAITING, now)

        if self._database.read(look):
            self._database.write("renew_uploads", body)

    def lose(self) -> None:
        """Say of keys whose holder has shown no sign for HOLD seconds that they are lost. Anybody may call this."""
        now = self._clock()
        silent = or_(destinations.c.renewed_at < now - HOLD, destinations.c.renewed_at > now + HOLD)
        gone = select(destinations.c.job_id).where(destinations.c.profile == "", silent)
        lost = and_(uploads.c.state.in_(UNFINISHED), uploads.c.job_id.in_(gone))
        if self._database.read(lambda c: c.execute(select(uploads.c.seq).where(lost).limit(1)).first()) is not None:
            self._database.write("lose_uploads", lambda c: _turn(c, lost, UploadState.CREDENTIALS_LOST, now))

    def release(self, holder: str) -> None:
        """The holder leaves, and with it its keys."""
        now = self._clock()
        mine = select(destinations.c.job_id).where(destinations.c.holder == holder)
        left = and_(uploads.c.state.in_(UNFINISHED), uploads.c.job_id.in_(mine))

        def body(c: Connection) -> None:
            _turn(c, left, UploadState.CREDENTIALS_LOST, now)
            c.execute(update(destinations).where(destinations.c.holder == holder).values(renewed_at=0.0))

        if self._database.read(lambda c: c.execute(mine.limit(1)).first()) is not None:
            self._database.write("release_uploads", body, urgent=True)

    def tokens(self, holder: str) -> frozenset[str]:
        """Of the keys that the holder must keep: for jobs that may still complete, and files that are still to be put."""
        mine = select(destinations.c.token).where(destinations.c.job_id.in_(_unsettled()))
        return self._database.read(lambda c: frozenset(c.scalars(mine.where(destinations.c.holder == holder))))

    # Asking for it

    def send(self, job_id: str, to: UploadTo) -> None:
        """Put a completed job's files to this place, whatever became of earlier uploads.

        Raises IllegalTransition, also where the files lie in storage alone: its record is the only way to them.
        """

        def body(c: Connection) -> None:
            status = c.scalar(select(jobs.c.status).where(jobs.c.id == job_id).with_for_update(key_share=True))
            if status != JobStatus.COMPLETED:
                raise IllegalTransition(f"Job {job_id} is {str(status).replace('_', ' ')}, so it can't be uploaded.")
            if c.scalar(
                select(uploads.c.seq).where(uploads.c.job_id == job_id, uploads.c.state == UploadState.UPLOADING)
            ):
                raise IllegalTransition(f"Job {job_id} is being uploaded.", hint="Wait until that is over.")
            if c.scalar(select(uploads.c.seq).where(uploads.c.job_id == job_id, uploads.c.is_here.is_(False))):
                raise IllegalTransition(
                    f"The files of job {job_id} are no longer here: they lie in storage.", hint="Fetch them from there."
                )
            c.execute(uploads.delete().where(uploads.c.job_id == job_id))
            c.execute(destinations.delete().where(destinations.c.job_id == job_id))
            now = self._clock()
            direct(c, job_id, to, now)
            announce(c, job_id, now)
            _settle(c, job_id, now)

        self._database.write("send_uploads", body)

    def redirect(self, job_id: str, profile: str) -> None:
        """Have the files of a job that has not completed put to this profile; "" for nowhere."""

        def body(c: Connection) -> None:
            _hold(c, job_id)
            c.execute(destinations.delete().where(destinations.c.job_id == job_id))
            if profile:
                direct(c, job_id, UploadTo(profile), self._clock())

        self._database.write("redirect_uploads", body)

    def profile_of(self, job_id: str) -> str:
        """The profile that the job's files go to; "" where they stay here or go to storage of the request's own."""
        mine = select(destinations.c.profile).where(destinations.c.job_id == job_id)
        return self._database.read(lambda c: c.scalar(mine)) or ""

    def hand_keys(self, job_id: str, to: UploadTo) -> None:
        """The keys to a job's own storage came again: whoever has them now puts its files. For repeated requests."""
        now = self._clock()
        own = and_(destinations.c.job_id == job_id, destinations.c.profile == "")
        lost = and_(uploads.c.job_id == job_id, uploads.c.state == UploadState.CREDENTIALS_LOST)

        def body(c: Connection) -> None:
            values = {"holder": to.holder, "token": to.token, "renewed_at": now}
            if c.execute(update(destinations).where(own).values(**values)).rowcount:
                _turn(c, lost, UploadState.WAITING, now)

        self._database.write("hand_keys", body)

    # Looking

    def reports(self, job_ids: Collection[str]) -> Mapping[str, UploadReport]:
        """How the copies of these jobs' results fare; without those that stay here."""
        if not job_ids:
            return {}

        def body(c: Connection) -> dict[str, UploadReport]:
            asked = select(destinations.c.job_id, destinations.c.profile, jobs.c.status)
            found = c.execute(
                asked.join(jobs, jobs.c.id == destinations.c.job_id).where(destinations.c.job_id.in_(job_ids))
            ).all()
            files: dict[str, list[Row[Any]]] = {}
            if found:
                for row in c.execute(_FILES.where(uploads.c.job_id.in_(job_ids)).order_by(uploads.c.seq)):
                    files.setdefault(row.job_id, []).append(row)
            return {
                row.job_id: _report_of(row.profile, files.get(row.job_id, ()))
                for row in found
                if row.job_id in files or row.status in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)
            }

        return self._database.read(body)

    def counts(self) -> Mapping[UploadState, int]:
        """How many files are in each state."""
        each = select(uploads.c.state, func.count()).group_by(uploads.c.state)
        found = self._database.read(lambda c: {row[0]: row[1] for row in c.execute(each)})
        return {state: found.get(state, 0) for state in UploadState}

    def safe_copies(self, before: float, limit: int = 100, skip: int = 0) -> tuple[tuple[str, str, str], ...]:
        """Job, kind and name of local files that are not known to be gone, where all of a job that ended before lies
        in storage. The oldest first, without the first `skip`."""
        old = and_(jobs.c.upload == UploadState.DONE, jobs.c.ended_at < before)
        here = and_(uploads.c.state == UploadState.DONE, uploads.c.is_here.is_(True))
        rows = _FILES.join(jobs, jobs.c.id == uploads.c.job_id).where(old, here).order_by(uploads.c.seq)
        rows = rows.limit(limit).offset(skip)
        found = self._database.read(lambda c: c.execute(rows).all())
        return tuple((row.job_id, row.kind, row.name) for row in found)

    def gone_here(self, job_id: str, kind: str) -> None:
        """Record that the local file was deleted."""
        mine = and_(uploads.c.job_id == job_id, uploads.c.kind == kind)
        self._database.write("gone_here", lambda c: c.execute(update(uploads).where(mine).values(is_here=False)))


_FILES = select(
    uploads.c.seq.label("upload_seq"),
    uploads.c.state,
    uploads.c.attempts,
    uploads.c.outcome,
    uploads.c.bucket,
    uploads.c.key,
    artifacts,
).join(artifacts, and_(artifacts.c.job_id == uploads.c.job_id, artifacts.c.kind == uploads.c.kind))


# Within the store's own transactions


def direct(connection: Connection, job_id: str, to: UploadTo, at: float) -> None:
    """Have the job's files put to this place when it completes."""
    row = {"job_id": job_id, "profile": to.profile, "holder": to.holder, "token": to.token, "renewed_at": at}
    connection.execute(insert(destinations).values(**row))


def announce(connection: Connection, job_id: str, at: float) -> None:
    """Write the uploads of a job that completes, if its files are to go somewhere."""
    if connection.scalar(select(destinations.c.job_id).where(destinations.c.job_id == job_id)) is None:
        return
    kinds = select(artifacts.c.kind).where(artifacts.c.job_id == job_id, artifacts.c.kind.in_(KINDS))
    # The video first: it is what somebody waits for.
    for kind in sorted(connection.scalars(kinds), key=KINDS.index):
        waiting = {"state": UploadState.WAITING, "attempts": 0, "due_at": at, "outcome": "", "sender": ""}
        connection.execute(insert(uploads).values(job_id=job_id, kind=kind, bucket="", key="", is_here=True, **waiting))
    state = _state_of(connection, job_id)
    if state is not None:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(upload=state))


def _due(
    connection: Connection, now: float, sender: str, without: Collection[int] = (), *, held: bool = False
) -> Row[Any] | None:
    """The upload that has waited longest. One that is put off for longer than ever happens is due: the clock was set back."""
    ready = or_(uploads.c.due_at <= now, uploads.c.due_at > now + 2 * (LEASE + max(DELAYS)))
    may = or_(destinations.c.profile != "", destinations.c.holder == sender)
    rows = _FILES.add_columns(destinations.c.profile, destinations.c.holder, destinations.c.token)
    rows = rows.join(destinations, destinations.c.job_id == uploads.c.job_id)
    ready = and_(ready, uploads.c.seq.not_in(without)) if without else ready
    longest = rows.where(uploads.c.state.in_(UNFINISHED), ready, may).order_by(uploads.c.due_at, uploads.c.seq).limit(1)
    # Of several senders each takes another one.
    return connection.execute(longest.with_for_update(skip_locked=True, of=uploads) if held else longest).first()


def _unsettled() -> CompoundSelect[tuple[str]]:
    """Jobs whose files may still have to be put."""
    left = (*UNFINISHED, UploadState.CREDENTIALS_LOST)
    coming = select(jobs.c.id).where(jobs.c.status.in_((JobStatus.QUEUED, JobStatus.IN_PROGRESS)))
    return coming.union(select(uploads.c.job_id).where(uploads.c.state.in_(left)))


def _hold(connection: Connection, job_id: str) -> None:
    """Nobody else changes the job until this transaction ends."""
    connection.execute(select(jobs.c.seq).where(jobs.c.id == job_id).with_for_update(key_share=True))


def _change(connection: Connection, seq: int, **values: Any) -> None:
    connection.execute(update(uploads).where(uploads.c.seq == seq).values(**values))


def _turn(connection: Connection, which: ColumnElement[bool], state: UploadState, now: float) -> None:
    """Put these uploads into another state, due at once."""
    changed = sorted(set(connection.scalars(select(uploads.c.job_id).where(which))))
    for job_id in changed:
        _hold(connection, job_id)
    connection.execute(update(uploads).where(which).values(state=state, due_at=now, sender=""))
    for job_id in changed:
        _settle(connection, job_id, now)


def _settle(connection: Connection, job_id: str, at: float) -> None:
    """Write into the job what its files are together, and an event where that has changed."""
    state, known = _state_of(connection, job_id), select(jobs.c.upload).where(jobs.c.id == job_id)
    if state is None or connection.scalar(known) == state:
        return
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(upload=state))
    log.append(connection, job_id, "upload", at, {"state": state})


def _state_of(connection: Connection, job_id: str) -> UploadState | None:
    return _worst(connection.scalars(select(uploads.c.state).where(uploads.c.job_id == job_id)))


def _worst(states: Iterable[str]) -> UploadState | None:
    found = set(states)
    return next((state for state in _WORST if state in found), None)


def _upload_of(row: Row[Any]) -> Upload:
    to = UploadTo(row.profile, row.holder, row.token)
    return Upload(row.upload_seq, row.job_id, to, artifact_of(row), row.attempts + 1)


def _report_of(profile: str, rows: Collection[Row[Any]]) -> UploadReport:
    files = tuple(
        UploadedFile(row.kind, row.name, row.media_type, UploadState(row.state), row.bucket, row.key) for row in rows
    )
    return UploadReport(
        state=_worst(file.state for file in files) or UploadState.WAITING,
        storage=profile,
        attempts=max((row.attempts for row in rows), default=0),
        outcome=next((row.outcome for row in rows if row.outcome), ""),
        files=files,
    )
