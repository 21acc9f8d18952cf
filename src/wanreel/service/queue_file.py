"""Queue files: the queued jobs as one JSON text that another Wanreel can take in. Knows nothing of where it lies."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job
from wanreel.core.picture import PictureRef
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.sound import SoundRef
from wanreel.service.service import Service, Terms
from wanreel.service.stored import request_of
from wanreel.storage.disk import Blobs

VERSION = 1
_ALL = 100_000


def export_queue(service: Service, pictures: Blobs) -> str:
    """The queued jobs, next one first, with their pictures; without those that wait for another one's result.

    Raises InvalidRequest for a picture that is gone.
    """
    jobs = [job for job in service.store.queued(limit=_ALL) if not service.store.groups.afters(job.id)]
    requests = [request_of(job) for job in jobs]
    wanted = {picture.sha256 for request in requests for picture in (request.image, request.last_image) if picture}
    sounds = {sound.sha256 for request in requests if (sound := request.finishing.audio)}
    content = {
        "wanreel": "queue",
        "version": VERSION,
        "jobs": [_row(job) for job in jobs],
        "pictures": {sha256: base64.b64encode(pictures.open(sha256)).decode() for sha256 in sorted(wanted)},
        "sounds": {sha256: base64.b64encode(pictures.open(sha256)).decode() for sha256 in sorted(sounds)},
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def import_queue(
    service: Service,
    text: str,
    take_picture: Callable[[bytes], PictureRef],
    take_sound: Callable[[bytes], SoundRef],
) -> tuple[Job, ...]:
    """Queue every job of the text, in its order. Taking the same text in twice queues each job once.

    Nothing is queued unless all of it is sound. Raises InvalidRequest, ModelError, and QueueFull, after which the
    same call goes on.
    """
    rows, pictures, sounds = _parse(text)
    taken = {name: take_picture(data) for name, data in pictures.items()}
    heard = {name: take_sound(data) for name, data in sounds.items()}
    resolved = []
    for row in rows:
        request = _with_sound(_with_pictures(row["request"], taken), heard)
        resolved.append((row, service.resolve(request.as_request())))
    return tuple(
        service.enqueue(resolution, Terms(row["owner"], row["priority"], f"import:{row['id']}", row["time_limit"]))
        for row, resolution in resolved
    )


def _row(job: Job) -> dict[str, object]:
    return {
        "id": job.id,
        "owner": job.owner,
        "priority": job.priority,
        "time_limit": job.time_limit,
        "request": json.loads(job.request),
    }


def _parse(text: str) -> tuple[list[dict[str, Any]], dict[str, bytes], dict[str, bytes]]:
    """Rows with a ResolvedRequest each, and pictures and sounds by the name that the rows call them."""
    try:
        content = cast("dict[str, Any]", json.loads(text))
        if content["wanreel"] != "queue" or content["version"] != VERSION:
            raise _unreadable("it is of another version")
        rows = [
            {
                "id": str(row["id"]),
                "owner": str(row["owner"]),
                "priority": int(row["priority"]),
                "time_limit": None if row["time_limit"] is None else float(row["time_limit"]),
                "request": ResolvedRequest.from_dict(row["request"]),
            }
            for row in content["jobs"]
        ]
        pictures, sounds = (
            {str(name): base64.b64decode(data, validate=True) for name, data in content.get(kind, {}).items()}
            for kind in ("pictures", "sounds")
        )
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as exc:
        raise _unreadable("it is no queue that Wanreel wrote") from exc
    return rows, pictures, sounds


def _with_sound(request: ResolvedRequest, heard: dict[str, SoundRef]) -> ResolvedRequest:
    sound = request.finishing.audio
    if sound is None:
        return request
    if sound.sha256 not in heard:
        raise _unreadable("a sound of a job is not in it")
    return replace(request, finishing=replace(request.finishing, audio=heard[sound.sha256]))


def _with_pictures(request: ResolvedRequest, taken: dict[str, PictureRef]) -> ResolvedRequest:
    pictures: dict[str, PictureRef | None] = {}
    for knob in ("image", "last_image"):
        picture: PictureRef | None = getattr(request, knob)
        if picture is not None and picture.sha256 not in taken:
            raise _unreadable("a picture that a job starts from is not in it")
        pictures[knob] = taken[picture.sha256] if picture is not None else None
    return replace(request, image=pictures["image"], last_image=pictures["last_image"])


def _unreadable(why: str) -> InvalidRequest:
    return InvalidRequest.of("queue", "unreadable", f"The queue can't be read: {why}.")
