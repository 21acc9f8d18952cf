"""Transactions: what the store asks of a database, whichever it is. Knows nothing of jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from enum import Enum, auto
from pathlib import Path
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")

#: What to call with the word that was announced in the database, by the topic; see `signals.py`. An empty word stands for
#: any: something may have been missed.
Calls = Mapping[str, Callable[[str], object]]


class Fault(Enum):
    """What a database error means to the store."""

    FULL = auto()  #: the disk is full; nothing was changed
    BUSY = auto()  #: others held the lock all the time allowed
    AGAIN = auto()  #: two transactions stood in each other's way and this one was undone
    GONE = auto()  #: the server can't be reached, or does not take part now
    BROKEN = auto()  #: reading, writing or syncing failed; what is on disk is unknown
    CORRUPT = auto()  #: the data is not sound
    OTHER = auto()


class Transactions(Protocol):
    """A database of jobs, open and of the present schema. Safe to use from several threads."""

    @property
    def folder(self) -> Path:
        """The folder whose disk must not become full."""
        ...

    @property
    def shared(self) -> bool:
        """Whether workers of several machines may use it, so that no kernel can tell which of them live."""
        ...

    def read(self, body: Callable[[Connection], T]) -> T:
        """Run `body` on one snapshot. It must fetch all it needs."""
        ...

    def write(self, name: str, body: Callable[[Connection], T], *, urgent: bool = False, repeatable: bool = False) -> T:
        """Run `body` in a transaction that is durable when this returns, or has not happened.

        `body` may run more than once, and changes nothing but the database. `urgent` writes may use the last space.
        `repeatable` ones change something in one statement only, which may take place twice.
        """
        ...

    def keep_space(self) -> None:
        """Take back what a full disk cost."""
        ...

    def listening(self, calls: Calls) -> AbstractContextManager[object]:
        """While it is open, what others announce is called here, from another thread; calls may be too many."""
        ...

    def close(self) -> None: ...
