"""Depots: object storage with the place it stands for, by the name of the operator's profile. Knows nothing of jobs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from wanreel.core.destination import Destination
from wanreel.storage.objects import ObjectStorage
from wanreel.storage.s3 import S3Storage


@dataclass(frozen=True)
class Depot:
    """A place in object storage and the way to it."""

    destination: Destination
    objects: ObjectStorage


class Depots:
    """The operator's storage. A client is kept once it was made. Safe to use from several threads."""

    def __init__(
        self, find: Callable[[str], Destination], connect: Callable[[Destination], ObjectStorage] = S3Storage
    ) -> None:
        self._find = find  # raises SettingsError
        self._connect = connect
        self._known: dict[str, Depot] = {}
        self._lock = threading.Lock()

    def get(self, profile: str) -> Depot:
        """The storage of this name. Raises SettingsError for one that is not there."""
        with self._lock:
            if profile not in self._known:
                destination = self._find(profile)
                self._known[profile] = Depot(destination, self._connect(destination))
            return self._known[profile]
