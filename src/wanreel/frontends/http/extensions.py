"""POST /v1/videos/extensions: a video that goes on from another one, made here or handed in. Only translates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest
from wanreel.core.request import VideoRequest
from wanreel.core.storyboard import MAX_FADE
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.forms import Body, Upload, read_body
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Accepted, Intake
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.schema import Video
from wanreel.frontends.http.submission import Submission, translate
from wanreel.media.last_frame import ending_of
from wanreel.service import Terms
from wanreel.service.extending import Wish, extend

_NOT_JOINED = "The video that was handed in is not joined to the new one: of it only the last frame was read."


class ExtensionRoutes:
    """The route, over one House."""

    def __init__(self, house: House, intake: Intake) -> None:
        self._house = house
        self._intake = intake

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=schema.ERRORS)
        router.post(
            "/extensions", response_model=Video, openapi_extra={"requestBody": _body()}, summary="Extend a video"
        )(self.create)
        return router

    async def create(self, request: Request) -> Video:
        """Queues a video that starts from the last frame of another one, and is joined to it.

        `video` is the id of one of yours, which may still be in the making, or an MP4. Of a file only the last frame is
        read. `seconds` in the answer are those of the whole.
        """
        body = await read_body(request)
        source = self._source(body)
        if isinstance(source, str):
            job = await self._house.job_of(request, source)

            def queue(caller: Caller, sent: Body, key: str | None) -> Accepted:
                return self._extend(caller, sent, key, job.id)
        else:
            data = source.data

            def queue(caller: Caller, sent: Body, key: str | None) -> Accepted:
                return self._continue(caller, sent, key, data)

        accepted = await self._intake.accept(request, body, queue)
        return await run_in_threadpool(self._house.shown_with, accepted.job, accepted.adjustments, accepted.notes)

    def _source(self, body: Body) -> str | Upload:
        """The id of a video, or a file. Raises InvalidRequest."""
        given: object = body.files.get("video") or body.values.get("video")
        if isinstance(given, Mapping):
            given = cast("Mapping[str, object]", given).get("id")
        if isinstance(given, str | Upload) and given:
            return given
        hint = "Send the id of a video, or an MP4 as a file."
        raise InvalidRequest.of("video", "required", "says what is to be extended.", hint)

    def _extend(self, caller: Caller, body: Body, key: str | None, job_id: str) -> Accepted:
        submission, asked = self._asked(caller, body)
        wish = Wish(*asked)
        terms = Terms(owner=caller.owner, idempotency_key=key, webhook_url=submission.webhook_url)
        job, resolution = extend(self._house.service, self._house.find(caller, job_id), wish, terms)
        return Accepted(job, resolution.adjustments, tuple(submission.notes))

    def _continue(self, caller: Caller, body: Body, key: str | None, data: bytes) -> Accepted:
        submission, (changes, overlap, colour) = self._asked(caller, body)
        if overlap or colour:
            text = "takes a video that was made here: of a file only the last frame is read."
            raise InvalidRequest.of("overlap" if overlap else "colour_match", "unsupported", text)
        ending = ending_of(data)
        picture = self._house.desk.take(ending.png, "image")
        service = self._house.service
        request = VideoRequest.from_mapping({**changes, "image": picture})
        resolution = service.resolve(request)
        terms = Terms(owner=caller.owner, idempotency_key=key, webhook_url=submission.webhook_url, notes=(_NOT_JOINED,))
        said = json.dumps(asdict(request), sort_keys=True, ensure_ascii=False)
        return Accepted(service.enqueue(resolution, terms, body=said), resolution.adjustments, tuple(submission.notes))

    def _asked(self, caller: Caller, body: Body) -> tuple[Submission, tuple[dict[str, object], int, float]]:
        """The knobs of the new clip, and how it is joined. Raises InvalidRequest naming every problem."""
        values = {name: value for name, value in body.values.items() if name != "video"}
        overlap, colour = _number(values, "overlap", int), _number(values, "colour_match", float)
        files = {name: file for name, file in body.files.items() if name != "video"}
        submission = translate(
            replace(body, values=values, files=files), caller.owner, self._house.desk, self._house.sounds
        )
        submission.webhook_url = self._house.webhooks.accept(submission.values.pop("webhook_url", None))
        asked = submission.request()
        if asked.image is not None:
            hint = "Leave it out, or queue a video of its own."
            raise InvalidRequest.of("image", "contradiction", "an extension starts from the video's last frame.", hint)
        changes = {
            name: value for name in VideoRequest.__dataclass_fields__ if (value := getattr(asked, name)) is not None
        }
        return submission, (changes, int(overlap), float(colour))


def _number(values: dict[str, object], name: str, kind: type[int] | type[float]) -> int | float:
    given = values.pop(name, None)
    if given is None or given == "":
        return 0
    try:
        if isinstance(given, bool):
            raise ValueError
        return kind(cast("Any", given))
    except (TypeError, ValueError) as exc:
        raise InvalidRequest.of(name, "wrong_type", f"{str(given)[:40]!r} is not a number.") from exc


def _body() -> dict[str, Any]:
    known = body_schema.request_schema(multipart=False)
    source: dict[str, Any] = {
        "anyOf": [
            {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        ],
        "description": "The video to extend. In a form, an MP4 too.",
    }
    more: dict[str, Any] = {
        "video": source,
        "overlap": {
            "type": ["integer", "string"],
            "minimum": 0,
            "maximum": MAX_FADE,
            "description": "Frames that both have and over which they are blended; 0: it goes on from the last one.",
        },
        "colour_match": {
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": 1,
            "description": "How far it is brought back to the colours of the first clip.",
        },
    }
    properties = {
        name: value for name, value in known["properties"].items() if name not in ("image", "input_reference")
    }
    members: dict[str, Any] = {**more, **properties}
    whole = {"type": "object", "required": ["video", "prompt"], "properties": members}
    file = whole | {"properties": {**members, "video": {"type": "string", "format": "binary"}}}
    example = {"video": {"id": "0" * 32}, "prompt": "it turns around", "seconds": "4"}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": whole, "example": example},
            "multipart/form-data": {"schema": file},
        },
    }
