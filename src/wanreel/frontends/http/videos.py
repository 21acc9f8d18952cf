"""/v1/videos: OpenAI's Videos API. Each route only translates; what it means is in `service`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import IllegalTransition, InvalidRequest, JobNotFound
from wanreel.core.job import Job, JobStatus
from wanreel.frontends.http import body_schema, files, schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import read_body, read_json, take_only
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Intake, idempotency_key
from wanreel.frontends.http.library import Wanted
from wanreel.frontends.http.schema import Deleted, Video, VideoList, video_of
from wanreel.frontends.http.storyboards import StoryboardRoutes, StoryboardState
from wanreel.service import Terms, request_of
from wanreel.service.extending import WHOLE

#: Seconds that a delete waits for a running job to stop, which takes a step.
_STOPS_WITHIN = 30.0
_LOOK = 0.1
#: Milliseconds after which the openai client should poll again.
_POLL_AFTER = "1000"

Variant = Literal["video", "clip", "thumbnail", "spritesheet", "last_frame", "keyframe", "chain"]


class VideoRoutes:
    """The routes, over one House."""

    def __init__(self, house: House, intake: Intake, storyboards: StoryboardRoutes) -> None:
        self._house = house
        self._intake = intake
        self._storyboards = storyboards

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/videos", tags=["videos"], responses=schema.ERRORS)
        body = {"requestBody": body_schema.request_body()}
        router.post("", response_model=Video | StoryboardState, openapi_extra=body, summary="Queue a video")(
            self.create
        )
        router.get("", response_model=VideoList, summary="List your videos")(self.list)
        file: dict[int | str, dict[str, Any]] = {
            200: {"content": {"video/mp4": {}}, "description": "The video's bytes."}
        }
        router.post(
            "/sync", response_class=Response, responses=file, openapi_extra=body, summary="Make a video and wait for it"
        )(self.sync)
        router.get("/{video_id}", response_model=Video, summary="Look at a video")(self.retrieve)
        router.delete("/{video_id}", response_model=Deleted, summary="Stop and forget a video")(self.delete)
        contents: dict[int | str, dict[str, Any]] = {
            200: {"content": {"video/mp4": {}, "image/jpeg": {}, "image/png": {}}, "description": "The file's bytes."}
        }
        router.get("/{video_id}/content", response_class=Response, responses=contents, summary="Fetch a video's file")(
            self.content
        )
        known = body_schema.request_schema(multipart=False)["properties"]
        taken = {name: known[name] for name in ("prompt", "webhook_url")}
        remix = {
            "requestBody": body_schema.json_body(taken, required=["prompt"], example={"prompt": "the same at night"})
        }
        router.post(
            "/{video_id}/remix", response_model=Video, openapi_extra=remix, summary="The same with another prompt"
        )(self.remix)
        return router

    async def create(self, request: Request) -> Video | StoryboardState:
        """Queues a video and answers at once. Give an Idempotency-Key to be safe against doubles.

        JSON or multipart. Any knob may be left out but the prompt; `wanreel.adjustments` says what was filled in.
        With `mode` storyboard it is what `POST /v1/storyboards` is.
        """
        body = await read_body(request)
        if body.values.get("mode") == "storyboard":
            return await self._storyboards.accept(request, body.values)
        accepted = await self._intake.accept(request, body)
        return await run_in_threadpool(self._house.shown_with, accepted.job, accepted.adjustments, accepted.notes)

    async def list(
        self,
        request: Request,
        search: Wanted,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        order: Literal["asc", "desc"] = "desc",
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> VideoList:
        """Your videos by order of acceptance; `after` is the last id of the page before."""
        if after is not None:
            await self._house.job_of(request, after)
        jobs = await run_in_threadpool(
            self._house.service.store.search, search, after=after, limit=limit + 1, newest_first=order == "desc"
        )
        data = await run_in_threadpool(self._house.shown_all, jobs[:limit])
        return VideoList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(jobs) > limit,
        )

    async def retrieve(self, request: Request, response: Response, video_id: str) -> Video:
        """How a video stands."""
        job = await self._house.job_of(request, video_id)
        if not job.ended:
            response.headers["openai-poll-after-ms"] = _POLL_AFTER
        return await run_in_threadpool(self._house.shown, job)

    async def delete(self, request: Request, video_id: str) -> Deleted:
        """Stops the job if it runs, and deletes it with its files."""
        job = await self._house.job_of(request, video_id)
        if job.status is JobStatus.IN_PROGRESS:
            await self._stop(job)
        await run_in_threadpool(self._house.service.delete, job.id)
        return Deleted(id=job.id, object="video.deleted")

    async def _stop(self, job: Job) -> None:
        """Cancel and wait until the worker let go."""
        service = self._house.service
        try:
            job = await run_in_threadpool(service.cancel, job.id)
            async with asyncio.timeout(_STOPS_WITHIN):
                while not job.ended:
                    await asyncio.sleep(_LOOK)
                    job = await run_in_threadpool(service.get, job.id)
        except IllegalTransition:
            return  # it ended by itself meanwhile
        except TimeoutError as exc:
            raise IllegalTransition("The job is still being stopped.", hint="Delete it again in a while.") from exc

    async def content(self, request: Request, video_id: str, variant: Variant = "video") -> Response:
        """The video, a thumbnail, a sheet of frames, or the last frame without loss. One Range is served.

        Of one that extends another, `video` is the whole, `clip` what was added, and `chain` what it consists of.
        """
        job = await self._house.job_of(request, video_id)
        if variant == "spritesheet":
            return await files.spritesheet(self._house.service, job)
        kind = {"thumbnail": "poster", "clip": "video"}.get(variant, variant)
        if variant == "video" and WHOLE in await run_in_threadpool(self._house.service.files, job.id):
            kind = WHOLE
        await self._house.depots.arrive(job, kind)
        elsewhere = await self._house.depots.elsewhere(request, job, kind)
        return elsewhere or await files.artifact(request, self._house.service, job, kind)

    async def remix(self, request: Request, video_id: str) -> Video:
        """Queues the same video with another prompt: same seed, size, length and picture."""
        job = await self._house.job_of(request, video_id)
        values = await read_json(request)
        take_only(values, "prompt", "webhook_url")
        prompt = values.get("prompt")
        if not isinstance(prompt, str):
            raise InvalidRequest.of("prompt", "required", "must be text.", "Say what happens in the video.")
        self._house.rates.take(caller_of(request))
        url = self._house.webhooks.accept(values.get("webhook_url"))
        return await run_in_threadpool(self._remix, request, job, prompt, url)

    def _remix(self, request: Request, job: Job, prompt: str, url: str) -> Video:
        service = self._house.service
        resolution = service.resolve(replace(request_of(job).as_request(), prompt=prompt))
        owner, key = caller_of(request).owner, idempotency_key(request)
        terms = Terms(owner=owner, idempotency_key=key, parent_id=job.id, webhook_url=url)
        remixed = service.enqueue(resolution, terms, body="\n".join((job.id, prompt, url)))
        return self._house.shown_with(remixed, resolution.adjustments)

    async def sync(self, request: Request) -> Response:
        """Queues a video, waits and answers its bytes. Cancelled when you leave."""
        accepted = await self._intake.accept(request, await read_body(request))
        job = await self.finish(request, accepted.job)
        await self._house.depots.arrive(job, "video")
        elsewhere = await self._house.depots.elsewhere(request, job, "video")
        answer = elsewhere or await files.artifact(request, self._house.service, job, "video")
        answer.headers.update(
            {"x-model": job.model, "x-video-id": job.id, "x-inference-time-s": f"{seconds_of(job):.3f}"}
        )
        return answer

    async def finish(self, request: Request, job: Job) -> Job:
        """The job when it has completed. Cancels it when the client leaves. Raises Refused when it failed."""
        waiting = asyncio.ensure_future(self._house.news.wait(job.id))
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                waiting.result()
        except JobNotFound as exc:
            raise Refused(404, "deleted", "The video was deleted meanwhile.") from exc
        finally:
            waiting.cancel()
            leaving.cancel()
        job = await run_in_threadpool(self._house.service.get, job.id)
        if not job.ended and not self._house.stopping:
            job = await run_in_threadpool(self._house.service.cancel, job.id)
        if job.status is not JobStatus.COMPLETED:
            raise _failure(job)
        return job


def seconds_of(job: Job) -> float:
    """How long the newest attempt took, by the clock on the wall."""
    return max(0.0, (job.ended_at or 0.0) - (job.started_at or 0.0)) if job.ended_at and job.started_at else 0.0


async def _left(request: Request) -> None:
    """Returns when the client has gone."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.5)


def _failure(job: Job) -> Refused:
    shown = video_of(job).error
    if shown is None:
        return Refused(
            503, "stopping", "The server is stopping; the job goes on after its start.", headers={"Retry-After": "30"}
        )
    return Refused(409 if shown.code == "cancelled" else 500, shown.code, shown.message)
