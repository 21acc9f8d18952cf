"""Requests as the store keeps them. Knows no store."""

from __future__ import annotations

import json
from collections.abc import Mapping

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job
from wanreel.core.picture import PictureRef
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.work import Work, work_from_dict

#: What in a record changes how the file is written and not what is generated.
_EXPORT_ONLY = frozenset({"fps", "output_format", "quality", "metadata", "finishing"})


def text_of(request: Work) -> str:
    """A resolved request as the store keeps it: equal requests give equal text."""
    return json_text(request.to_dict())


def work_of(job: Job) -> Work:
    """What a job makes. Raises InvalidRequest for a request that this version can't read."""
    return work_in(job.request, f"job {job.id}")


def request_of(job: Job) -> ResolvedRequest:
    """The request of a job that makes a video. Raises InvalidRequest for one that makes pictures too."""
    work = work_of(job)
    if not isinstance(work, ResolvedRequest):
        raise InvalidRequest.of("request", "no_video", f"job {job.id} makes pictures, and this is for videos.")
    return work


def work_in(text: str, whose: str = "a job") -> Work:
    """What a request's text asks for."""
    try:
        return work_from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidRequest.of("request", "unreadable", f"the request of {whose} is of another version.") from exc


def adapters_of(work: Work) -> str:
    """Its LoRAs by name, as `NewJob.adapters` has them."""
    return ",".join(sorted(lora.name for lora in work.loras)) if isinstance(work, ResolvedRequest) else ""


def pictures_of(work: Work) -> tuple[PictureRef, ...]:
    """What it starts from and ends with, as far as it is there."""
    last = work.last_image if isinstance(work, ResolvedRequest) else None
    return tuple(picture for picture in (work.image, last) if picture is not None and not picture.pending)


def blobs_of(work: Work) -> tuple[str, ...]:
    """SHA-256 of all that must be there when it is made: its pictures and its sound."""
    sound = work.finishing.audio if isinstance(work, ResolvedRequest) else None
    return (*(picture.sha256 for picture in pictures_of(work)), *((sound.sha256,) if sound else ()))


def same_generation(one: Work, other: Work) -> bool:
    """Whether both ask for the same frames, however they are written."""
    first, second = (
        {name: value for name, value in work.to_dict().items() if name not in _EXPORT_ONLY} for work in (one, other)
    )
    return first == second


def json_text(values: Mapping[str, object]) -> str:
    """Equal values as equal text."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
