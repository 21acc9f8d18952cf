"""Outbox: messages about the ends of jobs and groups, until they are delivered. Knows nothing of HTTP.

A message is written in the transaction that ends its job, so there is one exactly where the job has ended. Whoever takes
one puts off its next attempt in the same transaction, before it is sent: a sender that dies has cost one attempt, and of
several senders each message has one at a time.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from wanreel.core.delivery import Delivery, DeliveryReport, DeliveryState
from wanreel.core.job import JobStatus
from wanreel.jobs.tables import deliveries, groups, jobs, webhooks
from wanreel.jobs.transactions import Transactions

#: Seconds between an attempt and the next: a few at once, then every three hours until a day is over. Counted, not timed:
#: a clock that jumps can bring an attempt forward and never loses a message.
DELAYS = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, *(10_800.0,) * 7)
#: Seconds after which an attempt whose sender died may be made again; longer than sending takes.
LEASE = 60.0


class Outbox:
    """The messages in one database. Safe to use from several threads and processes."""

    def __init__(self, database: Transactions, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def take(self) -> Delivery | None:
        """A message to send now, if there is one. Nobody else gets it for LEASE seconds."""
        now = self._clock()
        if self._database.read(lambda c: _due(c, now)) is None:
            return None

        def body(c: Connection) -> Delivery | None:
            row = _due(c, now, held=True)
            if row is None:
                return None
            values = {"attempts": row.attempts + 1, "due_at": now + LEASE}
            c.execute(update(deliveries).where(deliveries.c.seq == row.seq).values(**values))
            return _delivery_of(c.execute(select(deliveries).where(deliveries.c.seq == row.seq)).one())

        return self._database.write("take_delivery", body)

    def delivered(self, taken: Delivery, outcome: str) -> None:
        """Record that the receiver has it."""
        self._record(taken, {"state": DeliveryState.DELIVERED, "outcome": outcome})

    def failed(self, taken: Delivery, outcome: str, *, jitter: float) -> None:
        """Put it off, or give it up after the last attempt. `jitter`, 0 to 1, lengthens the delay by up to a quarter."""
        values: dict[str, Any] = {"outcome": outcome}
        if taken.attempts > len(DELAYS):
            values["state"] = DeliveryState.GIVEN_UP
        else:
            values["due_at"] = self._clock() + DELAYS[taken.attempts - 1] * (1.0 + jitter / 4.0)
        self._record(taken, values)

    def counts(self) -> Mapping[DeliveryState, int]:
        """How many messages are in each state."""
        each = select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
        found = self._database.read(lambda c: {row[0]: row[1] for row in c.execute(each)})
        return {state: found.get(state, 0) for state in DeliveryState}

    def _record(self, taken: Delivery, values: dict[str, Any]) -> None:
        def body(c: Connection) -> None:
            # Held, so that who deletes the job meanwhile does not overlook this message.
            job = select(jobs.c.seq).where(jobs.c.id == taken.job_id).with_for_update(key_share=True)
            c.execute(job)
            # A late answer must not undo what a later attempt has achieved.
            mine = (deliveries.c.id == taken.id) & (deliveries.c.state == DeliveryState.PENDING)
            c.execute(update(deliveries).where(mine).values(**values))
            _forget_if_alone(c, taken.job_id)

        self._database.write("record_delivery", body, urgent=True)

    def reports(self, job_ids: Collection[str]) -> Mapping[str, DeliveryReport]:
        """How the messages about these jobs fare; without those jobs that nobody is to be told of."""
        if not job_ids:
            return {}

        def body(c: Connection) -> dict[str, DeliveryReport]:
            asked = select(webhooks.c.job_id).where(webhooks.c.job_id.in_(job_ids))
            found = dict.fromkeys(c.scalars(asked), _WAITING)
            if found:
                sent = select(deliveries, jobs.c.ended_number).join(jobs, jobs.c.id == deliveries.c.job_id)
                for row in c.execute(sent.where(deliveries.c.job_id.in_(found)).order_by(deliveries.c.seq)):
                    found[row.job_id] = _WAITING if row.ended_number is None else _report_of(row)
            return found

        return self._database.read(body)

    def report_of(self, group_id: str) -> DeliveryReport:
        """How the newest message about a group fares that has somebody to be told."""
        newest = select(deliveries).where(deliveries.c.job_id == group_id).order_by(deliveries.c.seq.desc()).limit(1)
        row = self._database.read(lambda c: c.execute(newest).first())
        return _WAITING if row is None else _report_of(row)

    def address_of(self, job_id: str) -> str:
        """Who is told of the job's end; "" for nobody."""
        return self._database.read(lambda c: c.scalar(select(webhooks.c.url).where(webhooks.c.job_id == job_id)) or "")


_WAITING = DeliveryReport(DeliveryState.WAITING, None, 0, "")


# Within the store's own transactions


def subscribe(connection: Connection, job_id: str, url: str) -> None:
    """Have `url` told when the job ends."""
    connection.execute(insert(webhooks).values(job_id=job_id, url=url))


def announce(connection: Connection, row: Row[Any], status: JobStatus, at: float, data: Mapping[str, Any]) -> None:
    """Write the message about the end of the job in `row`, if anybody asked for one."""
    url = connection.scalar(select(webhooks.c.url).where(webhooks.c.job_id == row.id))
    if url is not None:
        post(connection, row.id, row.owner, url, status, at, data)


def post(  # noqa: PLR0913 - what a message is
    connection: Connection, job_id: str, owner: str, url: str, status: JobStatus, at: float, data: Mapping[str, Any]
) -> None:
    """Write a message about the end of a job, or of a group under its id."""
    message = {
        "id": f"msg_{secrets.token_hex(16)}",
        "job_id": job_id,
        "owner": owner,
        "kind": status,
        "data": json.dumps(dict(data), ensure_ascii=False),
        "url": url,
        "created_at": at,
        "state": DeliveryState.PENDING,
        "attempts": 0,
        "due_at": at,
        "outcome": "",
    }
    connection.execute(insert(deliveries).values(**message))


def forget(connection: Connection, job_id: str) -> None:
    """Delete the messages about a job that is being deleted, but for those that are still to be delivered."""
    over = (deliveries.c.job_id == job_id) & (deliveries.c.state != DeliveryState.PENDING)
    connection.execute(delete(deliveries).where(over))


def _due(connection: Connection, now: float, *, held: bool = False) -> Row[Any] | None:
    """The message that has waited longest. One that is put off for longer than ever happens is due: the clock was set back."""
    ready = or_(deliveries.c.due_at <= now, deliveries.c.due_at > now + 2 * (LEASE + max(DELAYS)))
    pending = select(deliveries).where(deliveries.c.state == DeliveryState.PENDING, ready)
    longest = pending.order_by(deliveries.c.due_at, deliveries.c.seq).limit(1)
    # Of several senders each takes another one.
    return connection.execute(longest.with_for_update(skip_locked=True) if held else longest).first()


def _forget_if_alone(connection: Connection, job_id: str) -> None:
    of_job, of_group = select(jobs.c.seq).where(jobs.c.id == job_id), select(groups.c.seq).where(groups.c.id == job_id)
    if connection.scalar(of_job) is None and connection.scalar(of_group) is None:
        forget(connection, job_id)


def _delivery_of(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        owner=row.owner,
        kind=JobStatus(row.kind),
        data=json.loads(row.data),
        url=row.url,
        created_at=row.created_at,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        outcome=row.outcome,
    )


def _report_of(row: Row[Any]) -> DeliveryReport:
    return DeliveryReport(DeliveryState(row.state), row.id, row.attempts, row.outcome)
