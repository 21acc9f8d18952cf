"""Facts: what the page's scripts ask beside the API. Served where the jobs are, be the page there or elsewhere.

Knows no widget and no file of the page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from wanreel.core.errors import InvalidRequest, JobNotFound
from wanreel.core.settings import Settings
from wanreel.frontends.http.errors import Refused, body_of
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.ui.form import again, memory_of, setup_of

_EXACT = frozenset({"/studio/setup", "/studio/memory"})
_BELOW = ("/studio/again/", "/studio/pictures/")


@dataclass
class Facts:
    """The routes, over one House. A page for `Doorway` where there is no other."""

    house: House
    settings: Callable[[], Settings]  #: those in force
    pictures: Callable[[str], bytes]  #: PNG of the picture with this SHA-256; raises InvalidRequest
    _routes: Router = field(init=False)

    def __post_init__(self) -> None:
        self._routes = Router(
            [
                Route("/studio/setup", self._setup, methods=["GET"]),
                Route("/studio/memory", self._memory, methods=["GET"]),
                Route("/studio/again/{video_id}", self._again, methods=["POST"]),
                Route("/studio/pictures/{file_id}", self._picture, methods=["GET"]),
            ]
        )

    def takes(self, path: str) -> bool:
        """Whether a path is one of these."""
        return path in _EXACT or path.startswith(_BELOW)

    async def run(self) -> None:
        """Nothing has to be built."""
        await asyncio.Event().wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._routes(scope, receive, send)

    async def _again(self, request: Request) -> Response:
        """The knobs that a video of the caller's was made with, its pictures as uploads of his."""
        caller = caller_of(request)
        try:
            job = await self.house.job_of(request, request.path_params["video_id"])
        except JobNotFound as error:
            return JSONResponse(body_of(error), 404)
        return JSONResponse(await run_in_threadpool(again, self.house, caller, job))

    async def _picture(self, request: Request) -> Response:
        """An upload of the caller's, as it was cleaned."""
        owner, file_id = caller_of(request).owner, request.path_params["file_id"]
        try:
            data = await run_in_threadpool(self._read_picture, owner, file_id)
        except InvalidRequest:
            data = None
        if data is None:
            return Refused(404, "file_not_found", "There is no such file.").response()
        return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=86400"})

    def _read_picture(self, owner: str, file_id: str) -> bytes | None:
        upload = self.house.uploads.get(owner, file_id)
        return None if upload is None or upload.picture is None else self.pictures(upload.picture.sha256)

    async def _setup(self, request: Request) -> Response:
        """What the scripts of the page must know before they build a form."""
        caller = caller_of(request)
        return JSONResponse(await run_in_threadpool(setup_of, self.house, self.settings(), caller))

    async def _memory(self, request: Request) -> Response:
        """What each model takes of the GPU, for those who may look at all: the guard has let them in."""
        return JSONResponse(await run_in_threadpool(memory_of, self.house))
