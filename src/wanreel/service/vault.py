"""Vault: storage whose keys came with requests, in this process's memory and nowhere else. Knows nothing of jobs."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection

from wanreel.storage.depots import Depot

#: Seconds for which keys are kept that no job is known to need: theirs may just be being accepted.
_GRACE = 60.0


class Vault:
    """Depots by tokens, which may be stored as they open nothing elsewhere. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[Depot, float]] = {}
        self._lock = threading.Lock()

    def keep(self, depot: Depot) -> str:
        """Keep it; returns its token."""
        token = secrets.token_hex(16)
        with self._lock:
            self._kept[token] = (depot, self._clock())
        return token

    def get(self, token: str) -> Depot | None:
        with self._lock:
            found = self._kept.get(token)
        return found[0] if found else None

    def keep_only(self, needed: Collection[str]) -> None:
        """Forget all others, but for those that came in a moment ago."""
        young = self._clock() - _GRACE
        with self._lock:
            self._kept = {token: kept for token, kept in self._kept.items() if token in needed or kept[1] > young}

    def __len__(self) -> int:
        return len(self._kept)
