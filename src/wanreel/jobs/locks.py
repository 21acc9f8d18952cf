"""What must not happen at once. Knows nothing of what is done meanwhile.

SQLite lets one writer in at a time, so there everything here does nothing. On PostgreSQL writers run side by side: whoever
changes one job holds its row, whoever joins or reorders the line holds the line, and whoever claims holds the gate open.
In that order: line, gate, rows; a transaction that takes them in another is undone by the server and run again.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, Connection, Float, cast, extract, func, literal, select, text, true

#: Above each key of an advisory lock, so that other programs' locks in the same database are left alone.
_OURS = 0x5741_0000_0000_0000
_LINE, _GATE, _SCHEMA = (_OURS | 0x00FF_0000_0000_0000 | number for number in (1, 2, 3))

_POSTGRES = "postgresql"

#: A transaction that will record events holds a shared lock whose key is a number below all that it will draw.
ENTER = text(
    "SELECT pg_advisory_xact_lock_shared(:ours + last_value - CASE WHEN is_called THEN 0 ELSE 1 END) IS NOT NULL AS entered,"
    " pg_current_xact_id()::text AS xid FROM events_number_seq"
).bindparams(ours=_OURS)
_DRAWN = text("SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM events_number_seq")
_UNSETTLED = text(
    "SELECT min(((classid::bigint << 32) | objid::bigint) - :ours) FROM pg_locks "
    "WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint BETWEEN :ours >> 32 AND (:ours >> 32) + 65535 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
).bindparams(ours=_OURS)


def is_shared(connection: Connection) -> bool:
    """Whether writers run side by side."""
    return connection.dialect.name == _POSTGRES


def enter(connection: Connection) -> str:
    """Say, at the start of a transaction on PostgreSQL, that it may record events. Returns the transaction's number."""
    return connection.execute(ENTER).one().xid


def hastily(connection: Connection) -> ColumnElement[bool]:
    """True. Where it is part of a statement that is a transaction by itself, the server's crash may undo that one."""
    if is_shared(connection):
        return func.set_config("synchronous_commit", "off", True) == "off"
    return true()


def settled(connection: Connection) -> int | None:
    """The number up to which no event can appear any more; None where events appear in order.

    Numbers are drawn before their transactions end, so a lower one may become visible after a higher one, and a reader
    that went by the highest would miss it. Whoever reads events up to this number must do so in a later snapshot.
    """
    if not is_shared(connection):
        return None
    drawn: int = connection.execute(_DRAWN).scalar_one()
    # In this order: a transaction that is not seen here has either ended, or will draw a higher number.
    unsettled: int | None = connection.execute(_UNSETTLED).scalar_one()
    return drawn if unsettled is None else min(drawn, unsettled)


def now(connection: Connection) -> ColumnElement[float]:
    """The database's clock, seconds since 1970; 0 where no clock is needed to tell who lives."""
    if is_shared(connection):
        return cast(extract("epoch", func.clock_timestamp()), Float)
    return literal(0.0)


def hold_line(connection: Connection) -> None:
    """Until this transaction ends nobody else joins or reorders the line."""
    _lock(connection, "pg_advisory_xact_lock", _LINE)


def hold_gate_open(connection: Connection) -> None:
    """Until this transaction ends nobody pauses the queue."""
    _lock(connection, "pg_advisory_xact_lock_shared", _GATE)


def shut_gate(connection: Connection) -> None:
    """Wait for all claims that have begun."""
    _lock(connection, "pg_advisory_xact_lock", _GATE)


def hold_schema(connection: Connection) -> None:
    """Until this transaction ends nobody else changes the tables."""
    _lock(connection, "pg_advisory_xact_lock", _SCHEMA)


def _lock(connection: Connection, function: str, key: int) -> None:
    if is_shared(connection):
        connection.execute(select(getattr(func, function)(cast(literal(key), BigInteger))))
