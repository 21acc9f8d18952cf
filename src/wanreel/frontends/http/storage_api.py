"""/v1/storage and /v1/videos/{id}/upload: the operator's storage by name, and sending a finished video there."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.destination import LOCAL
from wanreel.core.errors import InvalidRequest
from wanreel.core.upload import UploadTo
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.forms import read_body, take_only
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.schema import Video, Wire


class StorageProfile(Wire):
    name: str
    default: bool = Field(description="Whether videos go there that name none.")


class StorageList(Wire):
    object: Literal["list"] = "list"
    data: list[StorageProfile]
    own: bool = Field(description="Whether requests may bring storage of their own.")


class StorageRoutes:
    """The routes, over one House."""

    def __init__(self, house: House, profiles: tuple[str, ...], default: str) -> None:
        self._house = house
        self._profiles = profiles
        self._default = default

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["jobs"], responses=schema.ERRORS)
        router.get("/storage", response_model=StorageList, summary="Where videos can be copied to")(self.list)
        properties: dict[str, Any] = {
            "storage": {"type": "string", "description": "A profile from GET /v1/storage."},
            "upload": body_schema.own_storage_schema(),
        }
        body = {"requestBody": body_schema.json_body(properties, example={"storage": "results"})}
        router.post(
            "/videos/{video_id}/upload", response_model=Video, openapi_extra=body, summary="Copy a finished video"
        )(self.upload)
        return router

    async def list(self) -> StorageList:
        """The operator's storage profiles. Give a name as `storage` of a video, or `local` to copy it nowhere."""
        data = [StorageProfile(name=name, default=name == self._default) for name in self._profiles]
        return StorageList(data=data, own=self._house.depots.own.allowed)

    async def upload(self, request: Request, video_id: str) -> Video:
        """Copies a finished video again or elsewhere: for keys that were lost, refused or have come late."""
        job = await self._house.job_of(request, video_id)
        body = await read_body(request)
        self._house.rates.take(caller_of(request))
        return await run_in_threadpool(self._upload, job.id, dict(body.values))

    def _upload(self, job_id: str, values: dict[str, object]) -> Video:
        own = self._house.depots.take_own(values)
        take_only(values, "storage", "upload", "r2")
        name = values.get("storage")
        if own is None and (not isinstance(name, str) or name not in self._profiles):
            known = " | ".join(self._profiles) or LOCAL
            raise InvalidRequest.of("storage", "unknown_value", "there is no such profile.", f"Known: {known}.")
        to = self._house.depots.hold(own) or UploadTo(str(name))
        self._house.service.store.uploads.send(job_id, to)
        return self._house.shown(self._house.service.get(job_id))
