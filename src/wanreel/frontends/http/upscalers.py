"""/v1/upscalers: the networks of this machine that enlarge videos."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.frontends.http import schema
from wanreel.frontends.http.schema import Wire
from wanreel.models.upscalers import UpscalerShelf


class UpscalerState(Wire):
    name: str = Field(description="Give it as `upscaler` of a video.")
    scale: int = Field(description="Times that it enlarges.")
    sha256: str = Field(description="Of its weights.")


class UpscalerList(Wire):
    object: Literal["list"] = "list"
    data: list[UpscalerState]


class UpscalerRoutes:
    """The routes, over one shelf."""

    def __init__(self, shelf: UpscalerShelf) -> None:
        self._shelf = shelf

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/upscalers", tags=["models"], responses=schema.ERRORS)
        router.get("", response_model=UpscalerList, summary="List the networks that enlarge")(self.list)
        return router

    async def list(self) -> UpscalerList:
        """Networks that can enlarge a video. The operator puts them into the models directory."""
        found = await run_in_threadpool(self._shelf.list)
        return UpscalerList(data=[UpscalerState(name=it.name, scale=it.scale, sha256=it.sha256) for it in found])
