"""The line: who goes next, and where everybody stands. Knows nothing of what a job does.

Queued jobs are ordered by priority, then turn, then place. The owner's n-th waiting job takes a turn one later than his
(n-1)-th, and nobody joins before the turn that was claimed last, so owners alternate however many jobs each hands in
(start-time fair queuing with unit costs, Goyal et al. 1996). The order is a column and not a computation: an index
finds the next job in microseconds among 100,000.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql

from wanreel.core.job import JobStatus, LineMark, Outcome, Standing, Warm
from wanreel.jobs.locks import is_shared
from wanreel.jobs.policy import choose, turn_of
from wanreel.jobs.tables import attempts, events, jobs, queue, turns, workers

#: Completed attempts over which the run time is averaged.
_MEASURED = 20
#: Seconds a job is taken to need before any was measured.
_UNMEASURED_SECONDS = 60.0

COLD = Warm()  #: nothing in memory

_QUEUED = jobs.c.status == JobStatus.QUEUED
_READY = and_(_QUEUED, jobs.c.waits == 0)  # nothing that it needs is still to be made
_MARK = select(
    select(func.coalesce(func.max(events.c.number), 0)).scalar_subquery(),
    select(func.count()).select_from(jobs).where(_QUEUED).scalar_subquery(),
    select(func.count()).select_from(workers).scalar_subquery(),
    queue.c.paused,
)
_ORDER = (jobs.c.priority.desc(), jobs.c.turn, jobs.c.place, jobs.c.seq)
_NEXT = select(jobs).where(_READY).order_by(*_ORDER).limit(1).with_for_update(skip_locked=True, key_share=True)
_REVERSED = (jobs.c.priority, jobs.c.turn.desc(), jobs.c.place.desc(), jobs.c.seq.desc())


def join_line(connection: Connection, owner: str, priority: int) -> dict[str, int | float]:
    """The columns that put a job of this owner where it belongs, behind its equals."""
    claimed = select(turns.c.turn).where(turns.c.priority == priority).scalar_subquery()
    # Ended jobs count too: else an owner who hands in one job at a time would always go before a longer line.
    latest = select(func.max(jobs.c.turn)).where(jobs.c.owner == owner, jobs.c.priority == priority).scalar_subquery()
    turn = turn_of(*(turn or 0 for turn in connection.execute(select(claimed, latest)).one()))
    last_place = select(func.max(jobs.c.place)).where(_QUEUED, jobs.c.priority == priority, jobs.c.turn == turn)
    return {"priority": priority, "turn": turn, "place": (connection.scalar(last_place) or 0.0) + 1.0}


def next_in_line(
    connection: Connection,
    warm: Warm = COLD,
    only: Collection[str] = (),
    alike: Callable[[Row[Any]], bool] | None = None,
) -> Row[Any] | None:
    """The job to claim now, held until this transaction ends; without those that others are just claiming.

    `only`: the models whose jobs are meant, where not all are; then the others are as if they were not in line. `alike`:
    no other job than one that fits what is warm exactly, and of which this says yes.

    A job of the same priority whose model is in `warm` goes before the first in line, and best one with its LoRAs too. The
    first in line is passed over PASSES times at most, so a job with n before it sees at most (n + 1) * PASSES others go
    first that came later.
    """
    queued = _only(_NEXT, only)
    first: Any = connection.execute(queued).first()
    if first is None:
        return None

    def find(models: Collection[str], adapters: str | None) -> Any:
        fitting = queued.where(jobs.c.priority == first.priority, jobs.c.model.in_(models))
        return connection.execute(fitting if adapters is None else fitting.where(jobs.c.adapters == adapters)).first()

    row = choose(first, warm, find, alike=alike is not None)
    if row is None or (alike is not None and not alike(row)):
        return None
    if row.seq != first.seq:
        passed = update(jobs).where(jobs.c.seq == first.seq).values(passed_over=jobs.c.passed_over + 1)
        connection.execute(passed)
    return row


def has_ready(only: Collection[str] = ()) -> ColumnElement[bool]:
    """Whether a job could be claimed, of these models; one that waits for other jobs can't be."""
    return _only(select(jobs.c.seq).where(_READY).limit(1), only).exists()


def _only(query: Select[Any], models: Collection[str]) -> Select[Any]:
    return query.where(jobs.c.model.in_(models)) if models else query


def pass_turn(connection: Connection, priority: int, turn: int) -> None:
    """Remember that this turn was claimed, so that nobody joins before it."""
    known = connection.scalar(select(turns.c.turn).where(turns.c.priority == priority))
    if known is not None and known >= turn:
        return
    if is_shared(connection):
        row = postgresql.insert(turns).values(priority=priority, turn=turn)
        higher = func.greatest(turns.c.turn, row.excluded.turn)
        connection.execute(row.on_conflict_do_update(index_elements=[turns.c.priority], set_={"turn": higher}))
    elif known is None:
        connection.execute(insert(turns).values(priority=priority, turn=turn))
    else:
        connection.execute(update(turns).where(turns.c.priority == priority).values(turn=turn))


def in_line(connection: Connection, limit: int) -> list[Row[Any]]:
    """The queued jobs, next one first."""
    return list(connection.execute(select(jobs).where(_QUEUED).order_by(*_ORDER).limit(limit)))


def count(connection: Connection, status: JobStatus) -> int:
    """How many jobs have this status."""
    return connection.scalar(select(func.count()).select_from(jobs).where(jobs.c.status == status)) or 0


def standing(connection: Connection, row: Row[Any], *, paused: bool) -> Standing:
    """Where the queued job stands."""
    place = position(connection, row)
    return Standing(place, None if paused else _wait(connection, place - 1))


def position(connection: Connection, row: Row[Any]) -> int:
    """The queued job's place, 1 is next."""
    return 1 + (connection.scalar(select(func.count()).select_from(jobs).where(_QUEUED, _before(row))) or 0)


def requests(connection: Connection, limit: int) -> tuple[tuple[str, str], ...]:
    """Id and request of the queued jobs, next one first."""
    rows = connection.execute(select(jobs.c.id, jobs.c.request).where(_QUEUED).order_by(*_ORDER).limit(limit))
    return tuple((row.id, row.request) for row in rows)


def mark(connection: Connection) -> LineMark:
    """How the line stands, in one statement."""
    return LineMark(*connection.execute(_MARK).one())


def seconds_until_room(connection: Connection) -> float:
    """When the next job should leave the line, in seconds."""
    return max(1.0, _wait(connection, 0))


def _wait(connection: Connection, ahead: int) -> float:
    """Seconds until a job with so many ahead of it starts, if running jobs have just begun."""
    running = count(connection, JobStatus.IN_PROGRESS)
    turns_to_wait = ahead + (1 if running else 0)
    return turns_to_wait * _mean_seconds(connection) / max(1, running)


def _mean_seconds(connection: Connection) -> float:
    measured = select(attempts.c.seconds).where(
        attempts.c.outcome == Outcome.COMPLETED, attempts.c.seconds.is_not(None)
    )
    seconds = list(connection.scalars(measured.order_by(attempts.c.id.desc()).limit(_MEASURED)))
    return sum(seconds) / len(seconds) if seconds else _UNMEASURED_SECONDS


def _before(row: Row[Any]) -> ColumnElement[bool]:
    """Whether a job goes before `row`."""
    same_turn = and_(jobs.c.priority == row.priority, jobs.c.turn == row.turn)
    return or_(
        jobs.c.priority > row.priority,
        and_(jobs.c.priority == row.priority, jobs.c.turn < row.turn),
        and_(same_turn, jobs.c.place < row.place),
        and_(same_turn, jobs.c.place == row.place, jobs.c.seq < row.seq),
    )


def place_last(connection: Connection, row: Row[Any]) -> dict[str, int | float]:
    """The columns that put the queued job at the end of the whole line."""
    others = select(jobs).where(_QUEUED, jobs.c.id != row.id)
    last = connection.execute(others.order_by(*_REVERSED).limit(1)).first()
    if last is None:
        return {}
    return {"priority": last.priority, "turn": last.turn, "place": last.place + 1.0}


def place_before(connection: Connection, row: Row[Any], target: Row[Any]) -> dict[str, int | float]:
    """The columns that put the queued job right before `target`."""
    place = _gap_before(connection, row, target)
    if place is None:
        _renumber(connection, target.priority, target.turn)
        target = connection.execute(select(jobs).where(jobs.c.id == target.id)).one()
        place = _gap_before(connection, row, target)
        assert place is not None, "places one apart leave a gap"
    return {"priority": target.priority, "turn": target.turn, "place": place}


def _gap_before(connection: Connection, row: Row[Any], target: Row[Any]) -> float | None:
    """A place between the target and the job before it; None when floats have none left."""
    earlier = select(jobs.c.place).where(
        _QUEUED, jobs.c.id != row.id, jobs.c.priority == target.priority, jobs.c.turn == target.turn, _before(target)
    )
    previous = connection.scalar(earlier.order_by(*_REVERSED).limit(1))
    if previous is None:
        return target.place - 1.0
    middle = (previous + target.place) / 2.0
    return middle if previous < middle < target.place else None


def _renumber(connection: Connection, priority: int, turn: int) -> None:
    """Give the jobs of one turn whole numbers as places, in their present order."""
    group = select(jobs.c.seq).where(_QUEUED, jobs.c.priority == priority, jobs.c.turn == turn).order_by(*_ORDER)
    for place, seq in enumerate(list(connection.scalars(group)), start=1):
        connection.execute(update(jobs).where(jobs.c.seq == seq).values(place=float(place)))
