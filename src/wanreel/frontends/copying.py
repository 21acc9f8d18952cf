"""Copying a video that was made without the queue to the operator's storage. Knows nothing of who asked for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import object_name
from wanreel.core.errors import RemoteError
from wanreel.core.media_types import media_type_of
from wanreel.core.settings import Settings
from wanreel.core.video import Video
from wanreel.storage.depots import Depots
from wanreel.storage.objects import Parcel

_ID_LENGTH = 32  # as long as a job's


@dataclass(frozen=True, slots=True)
class Copy:
    """A file in storage."""

    kind: str
    key: str
    url: str  #: good for a while unless the bucket is public


def copy_video(settings: Settings, profile: str, video: Video, cancel: CancelToken) -> tuple[Copy, ...]:
    """Put the video and its last frame there, named by the video's own digest, so that twice is once.

    Raises SettingsError, StorageUnavailable, StorageRefused, StorageDamaged, which name the local file, and Cancelled.
    """
    depot, copies = Depots(settings.destination).get(profile), list[Copy]()
    try:
        for kind, path in (("video", video.path), ("last_frame", video.last_frame)):
            media_type = media_type_of(path)
            key = depot.destination.key(object_name(video.sha256[:_ID_LENGTH], kind, path.name))
            data = Parcel(path, _digest(path), path.stat().st_size, media_type)
            depot.objects.put(key, data, cancel)
            copies.append(Copy(kind, key, depot.objects.url(key, file_name=path.name, media_type=media_type)))
    except RemoteError as error:
        raise type(error)(error.message, hint=f"{error.hint} The video itself is {video.path}.".strip()) from error
    return tuple(copies)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
