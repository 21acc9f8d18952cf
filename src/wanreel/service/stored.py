"""Requests as the store keeps them. Knows no store."""

from __future__ import annotations

import json
from collections.abc import Mapping

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job
from wanreel.core.resolve import ResolvedRequest

#: Knobs that change how the file is written and not what is generated.
_EXPORT_ONLY = ("fps", "output_format", "quality", "metadata")


def text_of(request: ResolvedRequest) -> str:
    """A resolved request as the store keeps it: equal requests give equal text."""
    return json_text(request.to_dict())


def request_of(job: Job) -> ResolvedRequest:
    """The request of a job. Raises InvalidRequest for one that this version can't read."""
    return request_in(job.request, f"job {job.id}")


def request_in(text: str, whose: str = "a job") -> ResolvedRequest:
    """The same from its text."""
    try:
        return ResolvedRequest.from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidRequest.of("request", "unreadable", f"the request of {whose} is of another version.") from exc


def same_generation(one: ResolvedRequest, other: ResolvedRequest) -> bool:
    """Whether both ask for the same frames, however they are written."""
    first, second = one.to_dict(), other.to_dict()
    return all(first[name] == second[name] for name in first if name not in _EXPORT_ONLY)


def json_text(values: Mapping[str, object]) -> str:
    """Equal values as equal text."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
