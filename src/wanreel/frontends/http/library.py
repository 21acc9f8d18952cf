"""The library: searching many videos or pictures, favourites, deleting and fetching several at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import IllegalTransition, InvalidRequest, JobNotFound
from wanreel.core.job import Job, JobStatus, Search
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.bundle import Member, zipped
from wanreel.frontends.http.forms import read_body, take_only
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House, owner_filter
from wanreel.frontends.http.schema import Video, Wire

MOST_AT_ONCE = 500  #: videos or pictures in one bulk request
_LONGEST_SEARCH = 200  #: characters
PICTURE_KIND = re.compile(r"picture(_[0-9]+)?")  #: of a file that is one of the pictures
_ID = re.compile(r"[0-9a-f]{32}")
_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}, "description": "A ZIP."}}
_IDS: dict[str, Any] = {
    "ids": {
        "type": "array",
        "items": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "minItems": 1,
        "maxItems": MOST_AT_ONCE,
        "description": "Videos of yours.",
    }
}
_BODY = {"requestBody": body_schema.json_body(_IDS, required=["ids"], example={"ids": ["0" * 32]})}


class LibraryShape(Wire):
    """What a search finds, without the videos: enough to show any page of it at once."""

    total: int
    favourites: int = Field(description="How many of them are marked.")
    cursors: list[str] = Field(description="The `after` of the second page, the third and so on.")
    models: dict[str, int] = Field(description="Videos by model, whatever model was asked for.")


class Kept(Wire):
    id: str
    code: str
    message: str


class DeletedVideos(Wire):
    """What a bulk delete did."""

    deleted: list[str]
    kept: list[Kept] = Field(description="Those that could not be deleted, and why.")


def found_by(  # noqa: PLR0913 - FastAPI reads the query off the signature
    request: Request,
    status: JobStatus | None = None,
    search: Annotated[str, Query(max_length=_LONGEST_SEARCH, description="Words of the prompt.")] = "",
    model: Annotated[str | None, Query(max_length=64)] = None,
    favourite: bool | None = None,
    since: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Seconds since 1970.")] = None,
    until: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Seconds since 1970.")] = None,
) -> Search:
    """Which of the caller's videos or pictures a query asks for."""
    return Search(
        owner=owner_filter(caller_of(request)),
        status=status,
        model=model,
        favourite=favourite,
        text=search,
        since=since,
        until=until,
    )


FoundBy = Annotated[Search, Depends(found_by)]


def wanted(search: FoundBy, mode: Literal["text", "picture", "first_last"] | None = None) -> Search:
    """Which of the caller's videos."""
    return replace(search, mode=mode, pictures=False)


def wanted_pictures(search: FoundBy) -> Search:
    """Which of the caller's pictures."""
    return replace(search, pictures=True)


Wanted = Annotated[Search, Depends(wanted)]
WantedPictures = Annotated[Search, Depends(wanted_pictures)]


class LibraryRoutes:
    """The routes, over one House."""

    def __init__(self, house: House) -> None:
        self._house = house

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["library"], responses=schema.ERRORS)
        router.get("/library", response_model=LibraryShape, summary="How many videos a search finds")(self.shape)
        router.post("/library/delete", response_model=DeletedVideos, openapi_extra=_BODY, summary="Delete several")(
            self.delete
        )
        router.post(
            "/library/download", response_class=Response, responses=_ZIP, openapi_extra=_BODY, summary="Fetch several"
        )(self.download)
        mark = "/videos/{video_id}/favourite"
        router.put(mark, response_model=Video, summary="Mark a video")(self.mark)
        router.delete(mark, response_model=Video, summary="Take the mark off")(self.unmark)
        return router

    async def shape(
        self,
        search: Wanted,
        limit: Annotated[int, Query(ge=1, le=100, description="Videos a page.")] = 100,
        order: Literal["asc", "desc"] = "desc",
        makes: Literal["videos", "images"] = "videos",
    ) -> LibraryShape:
        """The shape of what GET /v1/videos, or /v1/images, finds with the same query: how many, and where each page
        begins. `mode` is for videos."""
        search = replace(search, pictures=makes == "images")
        found = await run_in_threadpool(
            self._house.service.store.overview, search, page=limit, newest_first=order == "desc"
        )
        return LibraryShape(
            total=found.total, favourites=found.favourites, cursors=list(found.cursors), models=dict(found.models)
        )

    async def mark(self, request: Request, video_id: str) -> Video:
        """Makes a video a favourite. Twice is no fault."""
        return await self._mark(request, video_id, favourite=True)

    async def unmark(self, request: Request, video_id: str) -> Video:
        """Makes a video no favourite."""
        return await self._mark(request, video_id, favourite=False)

    async def _mark(self, request: Request, video_id: str, *, favourite: bool) -> Video:
        job = await self._house.job_of(request, video_id)
        job = await run_in_threadpool(self._house.service.store.set_favourite, job.id, favourite)
        return await run_in_threadpool(self._house.shown, job)

    async def delete(self, request: Request) -> DeletedVideos:
        """Deletes videos with their files. One that runs is kept: cancel it first."""
        return await run_in_threadpool(self._delete, request, await _ids(request))

    def _delete(self, request: Request, ids: list[str]) -> DeletedVideos:
        caller = caller_of(request)
        deleted: list[str] = []
        kept: list[Kept] = []
        for job_id in ids:
            try:
                self._house.service.delete(self._house.find(caller, job_id).id)
                deleted.append(job_id)
            except (JobNotFound, IllegalTransition) as error:
                kept.append(Kept(id=job_id, code=error.code, message=str(error)))
        return DeletedVideos(deleted=deleted, kept=kept)

    async def download(self, request: Request) -> Response:
        """Sends the files of finished videos as one ZIP, made on the way. Takes a form's field `ids` too."""
        members = await run_in_threadpool(self._members, request, await _ids(request))
        headers = {"content-disposition": 'attachment; filename="wanreel.zip"'}
        return StreamingResponse(zipped(members), media_type="application/zip", headers=headers)

    def _members(self, request: Request, ids: list[str]) -> list[Member]:
        caller = caller_of(request)
        return [member for job_id in ids for member in self._of(self._house.find(caller, job_id))]

    def _of(self, job: Job) -> Iterator[Member]:
        service = self._house.service
        for kind, file in service.files(job.id).items():
            if kind == "video" or PICTURE_KIND.fullmatch(kind):
                yield Member(file.name, service.results / file.name, job.created_at)


async def _ids(request: Request) -> list[str]:
    """The ids of a bulk request: a list, or a form's text with commas. Raises InvalidRequest."""
    body = await read_body(request)
    take_only(body.values, "ids")
    given = body.values.get("ids")
    items = given.split(",") if isinstance(given, str) else given
    if not isinstance(items, list) or not 1 <= len(cast("list[object]", items)) <= MOST_AT_ONCE:
        raise InvalidRequest.of("ids", "wrong_type", f"must be a list of 1 to {MOST_AT_ONCE} ids of videos.")
    ids = [item for item in cast("list[object]", items) if isinstance(item, str) and _ID.fullmatch(item)]
    if len(ids) < len(cast("list[object]", items)):
        raise InvalidRequest.of("ids", "wrong_type", "holds what is no id of a video.")
    return list(dict.fromkeys(ids))
