"""Storing: puts a result into object storage, the request's own or the operator's. Knows nothing of jobs but their ids."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import LOCAL, Destination, object_name
from wanreel.core.errors import InvalidRequest, RemoteError, StorageUnavailable
from wanreel.core.media_types import media_type_of
from wanreel.core.settings import Settings
from wanreel.frontends.own_storage import OwnStorage
from wanreel.frontends.runpod.answers import Outcome, Stored
from wanreel.storage.objects import ObjectStorage, Parcel
from wanreel.storage.s3 import S3Storage

_log = logging.getLogger(__name__)

_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds between tries while the storage can't be reached


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result goes."""

    destination: Destination
    storage: ObjectStorage


@dataclass(frozen=True)
class Storing:
    """The ways to storage that there are."""

    settings: Settings
    own: OwnStorage
    open_profile: Callable[[Destination], ObjectStorage] = S3Storage

    def place(self, r2: object, profile: object) -> Place | None:
        """Where the result of a request goes that says `r2`, or names a profile. None: nowhere. Raises InvalidRequest."""
        destination = self.own.accept(r2, "r2")
        if destination is not None:
            return Place(destination, self.own.open(destination))
        name = profile or self.settings.default_storage
        if not name or name == LOCAL:
            return None
        if not isinstance(name, str) or name not in self.settings.storage:
            raise InvalidRequest.of("storage", "unknown_value", "is no storage profile of this endpoint.")
        destination = self.settings.destination(name)
        return Place(destination, self.open_profile(destination))

    def store(self, place: Place | None, work: str, files: Mapping[str, Path], token: CancelToken) -> Outcome:
        """Puts the files there, by kind. The same twice is no fault. Raises Cancelled."""
        if place is None:
            return Outcome()
        try:
            return Outcome({kind: self._put(place, work, kind, path, token) for kind, path in files.items()})
        except RemoteError as error:
            _log.warning("job %s: not stored: %s: %s", work, error.code, error)
            return Outcome(error=error)

    def _put(self, place: Place, work: str, kind: str, path: Path, token: CancelToken) -> Stored:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        key = place.destination.key(object_name(work, kind, path.name))
        parcel = Parcel(path, digest, path.stat().st_size, media_type_of(path))
        for pause in (*_PAUSES, None):
            try:
                place.storage.put(key, parcel, token)
                break
            except StorageUnavailable as error:
                if pause is None:
                    raise
                _log.warning("job %s: the storage can't be reached, again in %g s: %s", work, pause, error)
                token.wait(pause)
                token.check()
        return Stored(place.storage.url(key, media_type=parcel.media_type), key)
