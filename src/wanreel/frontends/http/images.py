"""/v1/images: OpenAI's Images API, and the same as jobs. Each route only translates; what it means is in `service`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.job import Job
from wanreel.core.picture_request import PICTURE_KNOBS, PictureRequest
from wanreel.frontends.http import body_schema, files, schema
from wanreel.frontends.http.forms import Body, read_body
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Accepted, Intake
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.library import PICTURE_KIND, WantedPictures
from wanreel.frontends.http.schema import Deleted, Video, VideoList, Wire
from wanreel.frontends.http.submission import Submission, split_size, take_pictures
from wanreel.frontends.http.videos import VideoRoutes
from wanreel.service import Terms

Format = Literal["b64_json", "url"]
#: Of OpenAI's fields those that mean nothing here, with the reason that is told.
_IGNORED: Mapping[str, str] = {
    "user": "not kept",
    "quality": "num_inference_steps says how much work is spent",
    "style": "say it in the prompt",
    "moderation": "there is none",
}
#: Accepted where they ask for nothing; the values that do.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "background": ("auto", "opaque"),
    "output_format": ("png",),
    "output_compression": (100,),
    "stream": (False,),
    "partial_images": (0,),
    "input_fidelity": ("low",),
}
_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}, "image/jpeg": {}, "application/json": {}}, "description": "The file's bytes."}
}


class ImageData(Wire):
    """One picture. One of the two is there."""

    b64_json: str | None = Field(default=None, description="The PNG in base64.")
    url: str | None = Field(
        default=None, description="Where it lies; where keys are needed, fetching it needs one too."
    )
    revised_prompt: str | None = Field(default=None, description="Always null: prompts are never changed.")


class ImageJob(Wire):
    """What OpenAI's object has no place for."""

    id: str = Field(description="Of the job: GET /v1/images/{id}.")
    model: str
    seed: int = Field(description="Of the first picture; each has the one after.")
    adjustments: list[dict[str, Any]]
    notes: list[str]


class Images(Wire):
    """OpenAI's ImagesResponse."""

    created: int
    data: list[ImageData]
    size: str
    output_format: Literal["png"] = "png"
    wanreel: ImageJob


class ImageRoutes:
    """The routes, over one House. `url` is the server's own address, for links."""

    def __init__(self, house: House, intake: Intake, videos: VideoRoutes, url: str) -> None:
        self._house = house
        self._intake = intake
        self._videos = videos
        self._url = url

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/images", tags=["images"], responses=schema.ERRORS)
        body = {"requestBody": _request_body()}
        router.post(
            "/generations", response_model=Images, openapi_extra=body, summary="Make pictures and wait for them"
        )(self.generate)
        edits = {"requestBody": _request_body(edit=True)}
        router.post(
            "/edits",
            response_model=Images,
            openapi_extra=edits,
            summary="Change a picture by instruction and wait for it",
        )(self.edit)
        router.post("", response_model=Video, openapi_extra=body, summary="Queue pictures")(self.create)
        router.get("", response_model=VideoList, summary="List your pictures")(self.list)
        router.get("/{image_id}", response_model=Video, summary="Look at pictures")(self.retrieve)
        router.delete("/{image_id}", response_model=Deleted, summary="Stop and forget pictures")(self.delete)
        router.get("/{image_id}/content", response_class=Response, responses=_PNG, summary="Fetch a picture's file")(
            self.content
        )
        return router

    async def generate(self, request: Request) -> Images:
        """Queues the request, waits, and answers the pictures. Cancelled when you leave."""
        return await self._made(request, await read_body(request))

    async def edit(self, request: Request) -> Images:
        """The same with a picture that is changed as the prompt says. Masks are not taken: say in words what to change."""
        return await self._made(request, _edit(await read_body(request)))

    async def _made(self, request: Request, body: Body) -> Images:
        form = _format(body.values.pop("response_format", None))
        accepted = await self._intake.accept(request, body, self._queue)
        job = await self._videos.finish(request, accepted.job)
        return await run_in_threadpool(self._answer, job, accepted, form)

    async def create(self, request: Request) -> Video:
        """Queues the request and answers at once: a job, as videos are, with `object` image."""
        body = await read_body(request)
        _format(body.values.pop("response_format", None))
        accepted = await self._intake.accept(request, body, self._queue)
        return await run_in_threadpool(self._house.shown_with, accepted.job, accepted.adjustments, accepted.notes)

    async def list(
        self,
        request: Request,
        search: WantedPictures,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> VideoList:
        """Your pictures by order of acceptance; `after` is the last id of the page before."""
        return await self._videos.list(request, search, limit, order, after)

    async def retrieve(self, request: Request, response: Response, image_id: str) -> Video:
        """How a request for pictures stands."""
        return await self._videos.retrieve(request, response, image_id)

    async def delete(self, request: Request, image_id: str) -> Deleted:
        """Stops the job if it runs, and deletes it with its files."""
        return await self._videos.delete(request, image_id)

    async def content(
        self,
        request: Request,
        image_id: str,
        number: Annotated[int, Query(ge=1, le=10, description="Which of several.")] = 1,
        variant: Literal["picture", "thumbnail", "manifest"] = "picture",
    ) -> Response:
        """A picture without loss, a thumbnail of the first, or what it was made from."""
        job = await self._house.job_of(request, image_id)
        kinds = {"thumbnail": "poster", "manifest": "manifest", "picture": _kind(number)}
        return await files.artifact(request, self._house.service, job, kinds[variant])

    # Blocking

    def _queue(self, caller: Caller, body: Body, key: str | None) -> Accepted:
        submission = Submission(dict(body.values))
        url = submission.values.pop("webhook_url", None)
        request = _request_of(submission, body, caller.owner, self._house)
        resolution = self._house.service.resolve_picture(request)
        asked = json.dumps(asdict(request), sort_keys=True, ensure_ascii=False)
        terms = Terms(owner=caller.owner, idempotency_key=key, webhook_url=self._house.webhooks.accept(url))
        job = self._house.service.enqueue(resolution, terms, body=asked)
        return Accepted(job, resolution.adjustments, tuple(submission.notes))

    def _answer(self, job: Job, accepted: Accepted, form: Format) -> Images:
        service, shown = self._house.service, self._house.shown_with(job, accepted.adjustments, accepted.notes)
        kept = service.files(job.id)
        numbers = range(1, sum(PICTURE_KIND.fullmatch(kind) is not None for kind in kept) + 1)
        return Images(
            created=int(job.created_at),
            data=[self._data(job, service.results / kept[_kind(number)].name, number, form) for number in numbers],
            size=shown.size,
            wanreel=ImageJob(
                id=job.id,
                model=job.model,
                seed=shown.seed,
                adjustments=shown.wanreel.adjustments,
                notes=shown.wanreel.notes,
            ),
        )

    def _data(self, job: Job, path: Path, number: int, form: Format) -> ImageData:
        if form == "url":
            return ImageData(url=f"{self._url}/v1/images/{job.id}/content?number={number}")
        return ImageData(b64_json=base64.b64encode(path.read_bytes()).decode())


def _edit(body: Body) -> Body:
    """A body of OpenAI's edits. Raises InvalidRequest for what only others' models do."""
    values, files = dict(body.values), dict(body.files)
    if values.pop("mask", None) or files.pop("mask", None) is not None:
        raise InvalidRequest.of("mask", "unsupported", "masks are not taken.", "Say in words what is to change.")
    if (one := values.pop("image[]", None)) is not None:
        values.setdefault("image", one)
    if (file := files.pop("image[]", None)) is not None:
        files.setdefault("image", file)
    match values.get("image"):
        case [one]:
            values["image"] = one
        case [_, _, *_]:
            raise InvalidRequest.of("image", "too_many", "one picture is changed at a time.", "Send one.")
        case _:
            pass
    return replace(body, values={**values, "mode": "edit"}, files=files)


def _kind(number: int) -> str:
    return "picture" if number == 1 else f"picture_{number}"


def _format(given: object) -> Format:
    match given:
        case None | "b64_json":
            return "b64_json"
        case "url":
            return "url"
        case _:
            raise InvalidRequest.of("response_format", "unknown_value", "is not offered.", "Choose b64_json | url.")


def _request_of(submission: Submission, body: Body, owner: str, house: House) -> PictureRequest:
    """The request. Raises InvalidRequest naming every problem at once."""
    take_pictures(submission, body.files, owner, house.desk)
    if "last_image" in submission.values:
        del submission.values["last_image"]
        submission.problems.append(Problem("last_image", "unknown_field", "is for videos.", "Leave it out."))
    split_size(submission)
    for name, reason in _IGNORED.items():
        if submission.values.pop(name, None) is not None:
            submission.notes.append(f"{name} was not used: {reason}.")
    for name, neutral in _NEUTRAL.items():
        value = submission.values.pop(name, None)
        if value is not None and value not in neutral:
            submission.problems.append(Problem(name, "unsupported", "can't be done here.", "Leave it out."))
    try:
        request = PictureRequest.from_mapping(submission.values)
        problems = [*submission.problems, *request.problems()]
    except InvalidRequest as error:
        raise InvalidRequest(*submission.problems, *error.problems) from error
    if problems:
        raise InvalidRequest(*problems)
    return request


def _request_body(*, edit: bool = False) -> dict[str, Any]:
    """OpenAPI's requestBody: every knob, and what OpenAI's clients send."""
    properties = body_schema.knob_properties(PICTURE_KNOBS)
    properties["size"] = {"type": "string", "pattern": "^([0-9]{2,4}x[0-9]{2,4}|auto)?$", "examples": ["1024x1024"]}
    properties["n"] = {"type": ["integer", "string"], "minimum": 1, "maximum": 10, "description": "How many pictures."}
    properties["response_format"] = {"type": "string", "enum": ["b64_json", "url"]}
    properties["webhook_url"] = {"type": "string", "maxLength": 2048, "description": "Told when they are made."}
    optional = {name: body_schema.or_null(value) for name, value in properties.items() if name != "prompt"}
    body = {"type": "object", "required": ["prompt"], "properties": {"prompt": properties["prompt"], **optional}}
    example: dict[str, Any] = {"prompt": "a red fox in the snow", "size": "1024x1024", "seed": 7}
    if edit:
        example = {"prompt": "make it night", "image": {"image_url": "data:image/png;base64,…"}, "seed": 7}
    return {"required": True, "content": {"application/json": {"schema": body, "example": example}}}
