"""The library: searching jobs that may be many. Knows nothing of lines or workers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from wanreel.core.job import Job, Overview, Search, folded
from wanreel.core.picture_request import IMAGE
from wanreel.jobs import records
from wanreel.jobs.rows import job_of
from wanreel.jobs.tables import jobs


def page(
    connection: Connection, wanted: Search, after: str | None, limit: int, *, newest_first: bool
) -> tuple[Job, ...]:
    """Jobs by order of acceptance; `after` is the last id of the page before. Raises JobNotFound for that id."""
    found = select(jobs).where(*_conditions(wanted))
    if after is not None:
        seq = records.find(connection, after).seq
        found = found.where(jobs.c.seq < seq if newest_first else jobs.c.seq > seq)
    return tuple(job_of(row) for row in connection.execute(found.order_by(_order(newest_first)).limit(limit)))


def overview(connection: Connection, wanted: Search, size: int, *, newest_first: bool) -> Overview:
    """The shape of what is found, in pages of `size`."""
    found = select(jobs.c.id, jobs.c.favourite).where(*_conditions(wanted)).order_by(_order(newest_first))
    rows = connection.execute(found).all()
    by_model = select(jobs.c.model, func.count()).where(*_conditions(wanted, "model")).group_by(jobs.c.model)
    return Overview(
        total=len(rows),
        cursors=tuple(row.id for row in rows[size - 1 : -1 : size]),
        models={row[0]: row[1] for row in connection.execute(by_model.order_by(jobs.c.model))},
        favourites=sum(row.favourite for row in rows),
    )


def has_request_with(connection: Connection, owner: str, text: str) -> bool:
    """Whether a request of this owner holds `text`."""
    mine = select(jobs.c.seq).where(jobs.c.owner == owner, jobs.c.request.contains(text, autoescape=True))
    return connection.execute(mine.limit(1)).first() is not None


def _order(newest_first: bool) -> ColumnElement[Any]:
    return jobs.c.seq.desc() if newest_first else jobs.c.seq.asc()


def _conditions(wanted: Search, without: str = "") -> list[ColumnElement[bool]]:
    """What narrows the search; `without` one of the equalities."""
    found = [jobs.c.words.contains(word, autoescape=True) for word in folded(wanted.text).split()]
    for name in ("owner", "status", "model", "mode", "favourite"):
        value = getattr(wanted, name)
        if value is not None and name != without:
            found.append(jobs.c[name] == value)
    if wanted.pictures is not None:
        found.append((jobs.c.mode == IMAGE) if wanted.pictures else (jobs.c.mode != IMAGE))
    if wanted.since is not None:
        found.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(jobs.c.created_at < wanted.until)
    return found
