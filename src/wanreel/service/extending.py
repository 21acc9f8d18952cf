"""Extending a video: a new one that starts from its last frame, and is joined to it. Imports no torch."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wanreel.core.chain import Chain, Link, Seam, pending
from wanreel.core.errors import IllegalTransition, InvalidRequest
from wanreel.core.finishing import FINISHING_KNOBS
from wanreel.core.group import After
from wanreel.core.job import Job, JobStatus
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.storyboard import MAX_FADE
from wanreel.service.service import Service, Terms
from wanreel.service.stored import json_text, request_of
from wanreel.service.storyboards import waits_for

WHOLE = "whole"  #: what the clips before are taken for
_HERE = ""  #: the name of the extending clip itself in its own chain

#: Knobs that any model that starts from a picture takes over from the one before.
_KEPT = ("width", "height", "fps", "output_format", "quality", "metadata")


@dataclass(frozen=True, slots=True)
class Wish:
    """How a video is to be extended."""

    changes: Mapping[str, object]  #: knobs of the new clip: its prompt, its length, …
    overlap: int = 0  #: frames that both clips have and over which they are blended
    colour_match: float = 0.0  #: 0 to 1: how far it is brought back to the colours of the first clip

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= MAX_FADE:
            text = f"{self.overlap} is not within 0 to {MAX_FADE} frames."
            raise InvalidRequest.of("overlap", "out_of_range", text)
        if not 0 <= self.colour_match <= 1:
            raise InvalidRequest.of("colour_match", "out_of_range", f"{self.colour_match:g} is not within 0 to 1.")


@dataclass(frozen=True, slots=True)
class Extension:
    """What an extending job is part of."""

    source: str
    chain: Chain
    num_frames: int  #: of the whole

    @classmethod
    def of(cls, service: Service, job: Job) -> Extension | None:
        """None for a job that extends none."""
        if job.parent_id is None:
            return None
        after = next((it for it in service.store.groups.afters(job.id) if it.takes == WHOLE), None)
        if after is None:
            return None
        facts = json.loads(after.detail)
        return cls(after.job_id, Chain.from_dict(facts), int(facts["num_frames"]))


def extend(service: Service, source: Job, wish: Wish, terms: Terms | None = None) -> tuple[Job, Resolution]:
    """Queue a video that goes on from another, which may still be in the making.

    Raises InvalidRequest, ModelError, QueueFull, and IllegalTransition for one that failed, was cancelled or deleted.
    """
    request = request_of(source)
    _check(service, source, request, wish)
    before = Extension.of(service, source)
    chain, frames = (
        (Chain((Link(source.id),)), request.finished.num_frames)
        if before is None
        else (before.chain, before.num_frames)
    )
    chain = _named(chain, source.id)
    seam = Seam("overlap", wish.overlap) if wish.overlap else Seam("continue")
    resolution = _resolve(service, request, source.id, wish)
    frames += resolution.request.finished.num_frames - seam.skip - seam.frames
    whole = replace(chain.then(_HERE, seam), colour=wish.colour_match)
    root = chain.links[chain.root(len(chain.links) - 1)].job
    after = (
        *waits_for(source.id, seam, root, wish.colour_match),
        After(source.id, WHOLE, "video", json_text(whole.to_dict() | {"num_frames": frames})),
    )
    terms = replace(terms or Terms(), parent_id=source.id, after=after)
    body = json_text({"extends": source.id, "changes": _plain(wish.changes), "more": [wish.overlap, wish.colour_match]})
    return service.enqueue(resolution, terms, body=body), resolution


def _check(service: Service, source: Job, request: ResolvedRequest, wish: Wish) -> None:
    if source.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        raise IllegalTransition(f"Video {source.id} is {source.status}, so there is nothing to go on from.")
    if wish.overlap >= request.num_frames - 1:
        text = f"{wish.overlap} frames can't overlap: the video has {request.num_frames}."
        raise InvalidRequest.of("overlap", "out_of_range", text)
    if source.status is JobStatus.COMPLETED and service.shared is None:
        last = service.files(source.id).get("last_frame")
        if last is None or not (service.results / last.name).is_file():
            raise IllegalTransition(f"The last frame of video {source.id} was deleted.", hint="Make it again first.")


def _resolve(service: Service, request: ResolvedRequest, source: str, wish: Wish) -> Resolution:
    """As the source was made, where its model starts from pictures; else by the default one that does."""
    asked = request.as_request()
    values: dict[str, Any] = {
        name: value for name in VideoRequest.__dataclass_fields__ if (value := getattr(asked, name)) is not None
    }
    picture = pending(request.export_width, request.export_height, f"video {source}")
    seed = secrets.randbelow(2**31)
    values |= {"image": picture, "seed": seed}
    for name in ("last_image", *FINISHING_KNOBS, *_replaced(wish.changes)):
        values.pop(name, None)
    try:
        return service.resolve(VideoRequest.from_mapping(values | dict(wish.changes)))
    except InvalidRequest as error:
        if "model" in wish.changes or not any(problem.field in ("image", "last_image") for problem in error.problems):
            raise
    kept = {name: values[name] for name in _KEPT if name in values} | {"image": picture, "seed": seed}
    return service.resolve(VideoRequest.from_mapping(kept | dict(wish.changes)))


def _replaced(changes: Mapping[str, object]) -> tuple[str, ...]:
    """Knobs of the source that a change takes the place of under another name."""
    instead = {"seconds": ("num_frames",), "preset": ("num_inference_steps",)}
    instead |= {"guidance_scale": ("guidance_high", "guidance_low")}
    return tuple(name for asked in changes for name in instead.get(asked, ()))


def _named(chain: Chain, source: str) -> Chain:
    """The source's own chain, in which it had no name yet."""
    return replace(chain, links=tuple(replace(link, job=link.job or source) for link in chain.links))


def _plain(changes: Mapping[str, object]) -> dict[str, object]:
    return {
        name: value if isinstance(value, (str, int, float, bool)) else repr(value) for name, value in changes.items()
    }
