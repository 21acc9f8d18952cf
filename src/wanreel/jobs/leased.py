"""Leases of workers on several machines: shown to live by renewing, found dead by not renewing. Knows nothing of jobs.

All times are the database's own: no machine's clock is compared with another's. A worker of this machine is also found
dead by its lock, at once, as where all are on one machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from wanreel.core.companion import Companion
from wanreel.core.errors import WanreelError
from wanreel.host import is_network_filesystem
from wanreel.jobs.leases import Leases
from wanreel.jobs.liveness import Liveness

_log = logging.getLogger(__name__)

_RENEWALS = 6  # in the time of a lease


class Pulse(Companion):
    """A context that renews every `seconds`, from a thread of its own that ends with it."""

    def __init__(self, renew: Callable[[], object], seconds: float) -> None:
        super().__init__("pulse")
        self._renew = renew
        self._seconds = seconds

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self._renew()
            except WanreelError as error:
                # If others take this worker for dead meanwhile, it hears so when it records something.
                _log.warning("the lease could not be renewed: %s", error)


class SharedLiveness(Liveness):
    """As `Liveness`, where workers of other machines are on the list too."""

    def __init__(
        self, folder: Path, leases: Leases, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(folder)
        self._leases = leases
        self._seconds = seconds
        self._clock = clock
        # Where other machines see the folder too, its locks may not hold between them.
        self._alone = not is_network_filesystem(folder.parent)
        self._looked = -seconds
        self._condemned: frozenset[str] = frozenset()
        self._overdue: dict[str, tuple[float, float]] = {}  # renewal, and when it was first seen to be too old

    def is_alive(self, name: str) -> bool:
        """Whether the worker holds its lease, as far as is known. One of this machine must hold its lock as well."""
        if self._alone and self.has_lock(name) and not super().is_alive(name):
            return False
        self._look()
        return name not in self._condemned

    def lives_here(self, name: str) -> bool:
        """Whether a worker that left something in this machine's folders lives."""
        return super().is_alive(name) if self._alone else self.is_alive(name)

    def dead(self, leases: Leases) -> frozenset[str]:
        """The workers to be taken off the list."""
        here = frozenset(name for name in self.names() if not super(SharedLiveness, self).is_alive(name))
        self._look()
        return self._condemned | (here if self._alone else frozenset())

    def keeping(self, name: str, description: str) -> AbstractContextManager[object]:
        """While it is open, the worker's lease is renewed."""
        return Pulse(lambda: self._leases.renew(name, description), self._seconds / _RENEWALS)

    def _look(self) -> None:
        """Ask the database, but no more often than leases are renewed.

        A lease that ran out while nobody could reach the database is no sign of death: so one that is found too old must
        stay as it is for another third of its time, in which every worker that lives renews.
        """
        now = self._clock()
        if now - self._looked < self._seconds / _RENEWALS:
            return
        overdue = self._leases.overdue(self._seconds)
        self._looked = now
        seen = {name: self._overdue.get(name, (renewed, now)) for name, renewed in overdue.items()}
        self._overdue = {
            name: before if before[0] == overdue[name] else (overdue[name], now) for name, before in seen.items()
        }
        patience = 2 * self._seconds / _RENEWALS
        self._condemned = frozenset(name for name, (_, since) in self._overdue.items() if now - since >= patience)
