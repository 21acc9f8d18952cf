"""Roster: the workers that have announced themselves. Knows nothing of what they do, and of time only what it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sqlalchemy import Connection, delete, exists, func, insert, literal, select, union, update

from wanreel.core.errors import InsufficientStorage
from wanreel.core.job import JobStatus
from wanreel.core.sample import Sample
from wanreel.jobs import groups, locks, signals
from wanreel.jobs.tables import jobs, workers
from wanreel.jobs.transactions import Transactions


class Roster:
    """Who is there, and who no longer shows it."""

    def __init__(self, database: Transactions, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    @property
    def shared(self) -> bool:
        """Whether workers of several machines may hold leases."""
        return self._database.shared

    def register(self, worker: str, description: str = "") -> None:
        """Announce a worker before its first claim. The name must never have been used before; see `Liveness`."""
        row = {"name": worker, "description": description, "started_at": self._clock(), "drain": False}

        def body(c: Connection) -> None:
            c.execute(insert(workers).values(**row, renewed_at=locks.now(c)))

        self._database.write("register", body, urgent=True)

    def renew(self, worker: str, description: str = "") -> None:
        """Show that the worker lives, where no kernel can tell; see `leased`. One that was taken off the list is back on."""

        def body(c: Connection) -> bool:
            mine = update(workers).where(workers.c.name == worker, locks.hastily(c)).values(renewed_at=locks.now(c))
            return c.execute(mine).rowcount == 1

        if not self._database.write("renew", body, repeatable=True):
            self.register(worker, description)

    def unregister(self, worker: str) -> None:
        """Take a worker off the list. It must hold no job."""
        self._database.write(
            "unregister", lambda c: c.execute(delete(workers).where(workers.c.name == worker)), urgent=True
        )

    def drain(self, worker: str) -> None:
        """Ask a worker to give its job back and leave: it hears so in its next heartbeat and gets no other job."""

        def body(c: Connection) -> None:
            c.execute(update(workers).where(workers.c.name == worker).values(drain=True))
            signals.announce(c, signals.ORDERS, worker)

        self._database.write("drain", body, urgent=True)

    def report(self, worker: str, sample: Sample) -> None:
        """Leave word how the worker's machine fares. Only the newest is kept; on a full disk it is dropped."""
        statement = update(workers).where(workers.c.name == worker).values(sample=sample.to_json())
        with contextlib.suppress(InsufficientStorage):
            self._database.write("report", lambda c: c.execute(statement.where(locks.hastily(c))), repeatable=True)

    def count(self) -> int:
        """How many workers are on the list."""
        return self._database.read(lambda c: c.scalar(select(func.count()).select_from(workers))) or 0

    def known(self) -> frozenset[str]:
        """The workers that hold jobs, make a group's result or are on the list."""
        holders = select(jobs.c.worker).where(jobs.c.status == JobStatus.IN_PROGRESS)
        all_of_them = union(holders, groups.holders(), select(workers.c.name))
        return self._database.read(lambda c: frozenset(c.scalars(all_of_them)))

    def overdue(self, seconds: float) -> dict[str, float]:
        """The workers that have not renewed for so long, by the database's clock, and when they last did."""
        late = select(workers.c.name, workers.c.renewed_at)
        unlisted = ~exists().where(workers.c.name == jobs.c.worker)
        holders = select(jobs.c.worker, literal(0.0)).where(jobs.c.status == JobStatus.IN_PROGRESS, unlisted)

        def body(c: Connection) -> dict[str, float]:
            found = union(late.where(workers.c.renewed_at < locks.now(c) - seconds), holders, groups.unlisted_holders())
            return {row[0]: row[1] for row in c.execute(found)}

        return self._database.read(body)
