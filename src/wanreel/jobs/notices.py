"""Listener: hears what is announced in a PostgreSQL database, on a connection and a thread of its own.

Knows nothing of what announcements mean. After a lost connection everything is called once, as anything may have been missed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

from wanreel.core.companion import Companion
from wanreel.jobs.transactions import Calls

if TYPE_CHECKING:
    import psycopg

_log = logging.getLogger(__name__)

_LOOK = 0.5  # seconds between looks whether it is to end
_AGAIN = 1.0  # seconds before another try to connect
_CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "wanreel listener",
}


class Listener(Companion):
    """A context: while it is open, each topic's call is made when the topic is announced, and sometimes without."""

    def __init__(self, url: URL, calls: Calls) -> None:
        super().__init__("listener")
        self._address = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._calls = calls

    def _run(self) -> None:
        import psycopg

        while not self._over.is_set():
            try:
                with psycopg.connect(self._address, autocommit=True, **_CONNECT) as connection:
                    self._hear(connection)
            except psycopg.Error as error:
                _log.warning("no announcements from the job database now: %s", " ".join(str(error).split()))
                self._over.wait(_AGAIN)

    def _hear(self, connection: psycopg.Connection) -> None:
        from psycopg import sql

        for topic in self._calls:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(topic)))
        for call in self._calls.values():
            call("")
        while not self._over.is_set():
            for notice in connection.notifies(timeout=_LOOK, stop_after=1):
                self._calls[notice.channel](notice.payload)
