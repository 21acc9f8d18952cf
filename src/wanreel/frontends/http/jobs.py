"""What OpenAI's API has no words for: cancel, retry, edit, reorder, pause, events, previews, plans."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.finishing import EXPORT_KNOBS
from wanreel.core.job import JobStatus
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Adjustment, Resolution, ResolvedRequest
from wanreel.frontends.http import body_schema, files, schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Body, read_body, read_json, take_only
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House, owner_filter, require_admin
from wanreel.frontends.http.intake import Intake
from wanreel.frontends.http.news import as_sse
from wanreel.frontends.http.schema import Plan, Queue, Video, VideoList
from wanreel.frontends.http.submission import translate

_HIGHEST_PRIORITY = 100
_LONGEST_REASON = 200
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Server-sent events."}
}
_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/webp": {}, "image/jpeg": {}}, "description": "A small picture."}
}
_MANIFEST: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}}, "description": "The manifest."}
}
_LAST_ID = Header(alias="Last-Event-ID", max_length=20, description="Go on after this event.")


class JobRoutes:
    """The routes, over one House."""

    def __init__(self, house: House, intake: Intake) -> None:
        self._house = house
        self._intake = intake

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1", tags=["jobs"], responses=schema.ERRORS)
        plan = {"requestBody": body_schema.request_body()}
        router.post("/plan", response_model=Plan, openapi_extra=plan, summary="What would run")(self.plan)
        router.post("/videos/{video_id}/cancel", response_model=Video, summary="Stop a video")(self.cancel)
        again = {"requestBody": {"content": {"application/json": {"schema": _edit_schema()}}}}
        router.post(
            "/videos/{video_id}/retry", response_model=Video, openapi_extra=again, summary="Queue a failed video again"
        )(self.retry)
        reduce = "/videos/{video_id}/reduce"
        router.get(reduce, response_model=Plan, summary="What a smaller video would be")(self.reduced)
        router.post(reduce, response_model=Video, summary="Queue a smaller video instead")(self.reduce)
        edit = {"requestBody": {"required": True, "content": {"application/json": {"schema": _edit_schema()}}}}
        router.patch("/videos/{video_id}", response_model=Video, openapi_extra=edit, summary="Change a queued video")(
            self.edit
        )
        move = {"requestBody": body_schema.json_body(_MOVE, example={"before": None})}
        router.post("/videos/{video_id}/move", response_model=Video, openapi_extra=move, summary="Reorder the queue")(
            self.move
        )
        export = {"requestBody": body_schema.json_body(_EXPORT, example={"output_format": "webm"})}
        router.post(
            "/videos/{video_id}/export", response_model=Video, openapi_extra=export, summary="Write a video again"
        )(self.export)
        router.get(
            "/videos/{video_id}/manifest", response_class=Response, responses=_MANIFEST, summary="What it was made from"
        )(self.manifest)
        router.get(
            "/videos/{video_id}/preview", response_class=Response, responses=_JPEG, summary="The newest preview"
        )(self.preview)
        router.get("/videos/{video_id}/events", response_class=Response, responses=_EVENTS, summary="Follow a video")(
            self.events
        )
        router.get("/events", response_class=Response, responses=_EVENTS, summary="Follow all your videos")(
            self.all_events
        )
        router.get("/queue", response_model=Queue, summary="The line")(self.queue)
        router.get("/queue/videos", response_model=VideoList, summary="The line, with its videos")(self.line)
        reason = {"requestBody": body_schema.json_body(_REASON, example={"reason": "maintenance"})}
        router.post("/queue/pause", response_model=Queue, openapi_extra=reason, summary="Start no more jobs")(
            self.pause
        )
        router.post("/queue/resume", response_model=Queue, summary="Start jobs again")(self.resume)
        return router

    async def plan(self, request: Request) -> Plan:
        """Checks a request and answers what would run, and how it differs from what was asked. Queues nothing."""
        return await run_in_threadpool(self._plan, request, await read_body(request))

    def _plan(self, request: Request, body: Body) -> Plan:
        submission, resolution = self._intake.resolve(caller_of(request), body)
        return self._plan_of(resolution, resolution.adjustments, submission.notes)

    def _plan_of(self, resolution: Resolution, adjustments: Iterable[Adjustment], notes: Iterable[str]) -> Plan:
        service, outlook = self._house.service, self._house.outlook(resolution)
        steps = resolution.request.num_inference_steps
        return Plan(
            request=resolution.request.to_dict(),
            adjustments=[adjustment.to_dict() for adjustment in adjustments],
            notes=list(notes),
            queued=service.queue().queued,
            estimate=self._estimate(resolution.request),
            memory=schema.MemoryOfPlan.model_validate(_wire(outlook.plan, steps, service.cost)),
            machine=schema.MachineOfPlan(
                gpu=outlook.machine.gpu, gpu_bytes=outlook.machine.gpu_free, host_bytes=outlook.machine.host_free
            ),
            alternatives=[_alternative(_wire(plan, steps, service.cost)) for plan in outlook.alternatives],
        )

    def _estimate(self, request: ResolvedRequest) -> schema.Estimate:
        estimator = self._house.service.estimator
        work, starts = estimator.work(request), estimator.next_start()
        return schema.Estimate(
            starts_in=None if starts is None else round(starts, 1),
            seconds=None if work.seconds is None else round(work.seconds, 1),
            basis=work.basis,
            cost=self._house.service.cost(work.seconds),
        )

    async def cancel(self, request: Request, video_id: str) -> Video:
        """A queued job ends at once, a running one within a step. Cancelling twice is no fault."""
        job = await self._house.job_of(request, video_id)
        job = await run_in_threadpool(self._house.service.cancel, job.id)
        return await run_in_threadpool(self._house.shown, job)

    async def retry(self, request: Request, video_id: str) -> Video:
        """Queues a failed or cancelled job again; with knobs in the body, changed. Else it goes on from its last step."""
        job = await self._house.job_of(request, video_id)
        body = await read_body(request) if await request.body() else Body({}, {})
        self._house.rates.take(caller_of(request))
        return await run_in_threadpool(self._retry, request, job.id, body)

    def _retry(self, request: Request, job_id: str, body: Body) -> Video:
        changes, notes = self._changes(request, body)
        job = self._house.service.retry(job_id, changes)
        return self._house.shown_with(job, notes=notes)

    async def reduced(self, request: Request, video_id: str) -> Plan:
        """What `POST` to the same address would queue, and every change in `adjustments`. Queues nothing."""
        job = await self._house.job_of(request, video_id)
        return await run_in_threadpool(self._reduced, job.id)

    def _reduced(self, job_id: str) -> Plan:
        resolution, changes = self._house.service.reduced(job_id)
        return self._plan_of(resolution, changes, ())

    async def reduce(self, request: Request, video_id: str) -> Video:
        """Queues a new, smaller video for one that ran out of memory. `adjustments` and `notes` name every change."""
        job = await self._house.job_of(request, video_id)
        self._house.rates.take(caller_of(request))
        return await run_in_threadpool(self._reduce, job.id)

    def _reduce(self, job_id: str) -> Video:
        job, changes = self._house.service.reduce(job_id)
        return self._house.shown_with(job, changes)

    async def edit(self, request: Request, video_id: str) -> Video:
        """Changes knobs of a queued job, which keeps its place."""
        job = await self._house.job_of(request, video_id)
        body = await read_body(request)
        return await run_in_threadpool(self._edit, request, job.id, body)

    def _changes(self, request: Request, body: Body) -> tuple[dict[str, object], list[str]]:
        """The knobs that a body changes, and notes. Raises InvalidRequest."""
        submission = translate(body, caller_of(request).owner, self._house.desk, self._house.sounds)
        known = VideoRequest.from_mapping({"prompt": "-", **submission.values})
        if submission.problems:
            raise InvalidRequest(*submission.problems)
        changes = {
            name: value for name in VideoRequest.__dataclass_fields__ if (value := getattr(known, name)) is not None
        }
        if "prompt" not in submission.values:
            del changes["prompt"]
        return changes, submission.notes

    def _edit(self, request: Request, job_id: str, body: Body) -> Video:
        changes, notes = self._changes(request, body)
        resolution = self._house.service.edit(job_id, changes)
        job = self._house.service.get(job_id)
        return self._house.shown_with(job, resolution.adjustments, notes)

    async def move(self, request: Request, video_id: str) -> Video:
        """Puts a queued job before another one of yours, or at the end, or gives it another priority (admin)."""
        values = await read_json(request, empty=True)
        before, priority = _choice(values)
        if priority is not None:
            require_admin(request)
        job = await self._house.job_of(request, video_id)
        if before is not None:
            other = await self._house.job_of(request, before)
            if other.owner != job.owner:
                require_admin(request)
        job = await run_in_threadpool(self._house.service.move, job.id, before=before, priority=priority)
        return await run_in_threadpool(self._house.shown, job)

    async def export(self, request: Request, video_id: str) -> Video:
        """Writes a finished video again: in another format, quality or playback rate, or finished otherwise (trimmed,
        looped, slower, interpolated, enlarged, with sound), without making it again."""
        body = await read_body(request) if await request.body() else Body({}, {})
        take_only(body.values, *_EXPORT)
        job = await self._house.job_of(request, video_id)
        self._house.rates.take(caller_of(request))
        return await run_in_threadpool(self._export, request, job.id, body)

    def _export(self, request: Request, job_id: str, body: Body) -> Video:
        changes, notes = self._changes(request, body)
        job = self._house.service.reexport(job_id, changes)
        return self._house.shown_with(job, notes=notes)

    async def manifest(self, request: Request, video_id: str) -> Response:
        """Everything a video was made from and with: request, weights, versions, hashes."""
        job = await self._house.job_of(request, video_id)
        return await files.artifact(request, self._house.service, job, "manifest")

    async def preview(self, request: Request, video_id: str, format: Literal["webp", "jpeg"] = "webp") -> Response:
        """What the running video is becoming: animated WebP, or its last frame as JPEG. 404 while there is none."""
        job = await self._house.job_of(request, video_id)
        path = await run_in_threadpool(self._house.service.preview, job.id)
        try:
            data = None if path is None else await run_in_threadpool(path.read_bytes)
        except FileNotFoundError:
            data = None
        if data is None:
            raise Refused(404, "no_preview", "There is no preview now.")
        if format == "jpeg":
            return Response(await run_in_threadpool(files.still_of, data), media_type="image/jpeg")
        return Response(data, media_type="image/webp")

    async def events(
        self, request: Request, video_id: str, last_event_id: Annotated[str | None, _LAST_ID] = None
    ) -> Response:
        """Every event of a job and then new ones until it has ended. Step events stand for those before them."""
        job = await self._house.job_of(request, video_id)
        return _stream(as_sse(self._house.news.of_job(job.id, _number(last_event_id) or 0)))

    async def all_events(self, request: Request, last_event_id: Annotated[str | None, _LAST_ID] = None) -> Response:
        """New events of all your jobs, on one connection, without end."""
        owner = owner_filter(caller_of(request))
        return _stream(as_sse(self._house.news.of_owner(owner, _number(last_event_id)), by_number=True))

    async def queue(self, request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Queue:
        """The state of the line and your jobs in it, next one first."""
        return await run_in_threadpool(self._queue, owner_filter(caller_of(request)), limit)

    def _queue(self, owner: str | None, limit: int) -> Queue:
        state = self._house.service.queue()
        jobs = [job.id for job in self._house.service.store.queued() if owner is None or job.owner == owner]
        return Queue(
            paused=state.paused,
            reason=state.reason,
            automatic=state.automatic,
            queued=state.queued,
            in_progress=state.in_progress,
            capacity=state.capacity,
            jobs=jobs[:limit],
        )

    async def line(self, request: Request, limit: Annotated[int, Query(ge=1, le=1000)] = 200) -> VideoList:
        """Your running videos and then those that wait, next one first, with their places and predicted starts."""
        return await run_in_threadpool(self._line, owner_filter(caller_of(request)), limit)

    def _line(self, owner: str | None, limit: int) -> VideoList:
        store = self._house.service.store
        running = store.list(owner=owner, status=JobStatus.IN_PROGRESS, limit=limit, newest_first=False)
        waiting = [job for job in store.queued() if owner is None or job.owner == owner]
        data = [self._house.shown(job) for job in [*running, *waiting][:limit]]
        ends = (data[0].id, data[-1].id) if data else (None, None)
        more = len(running) + len(waiting) > limit
        return VideoList(data=data, first_id=ends[0], last_id=ends[1], has_more=more)

    async def pause(self, request: Request) -> Queue:
        """Running jobs go on and new ones are accepted, but none is started (admin)."""
        require_admin(request)
        values = await read_json(request, empty=True)
        take_only(values, "reason")
        reason = values.get("reason", "paused by hand")
        if not isinstance(reason, str) or not 1 <= len(reason) <= _LONGEST_REASON or not reason.isprintable():
            raise InvalidRequest.of(
                "reason", "bad_text", f"must be text of 1 to {_LONGEST_REASON} printable characters."
            )
        await run_in_threadpool(self._house.service.pause, reason)
        return await run_in_threadpool(self._queue, None, 100)

    async def resume(self, request: Request) -> Queue:
        """Undoes any pause (admin)."""
        require_admin(request)
        await run_in_threadpool(self._house.service.resume)
        return await run_in_threadpool(self._queue, None, 100)


_MOVE: dict[str, Any] = {
    "before": {"type": ["string", "null"], "description": "Id of a queued job; null for the end of the line."},
    "priority": {"type": ["integer", "null"], "minimum": -_HIGHEST_PRIORITY, "maximum": _HIGHEST_PRIORITY},
}
_EXPORT: dict[str, Any] = {
    name: value
    for name, value in body_schema.request_schema(multipart=False)["properties"].items()
    if name in EXPORT_KNOBS
}
_REASON: dict[str, Any] = {
    "reason": {"type": "string", "minLength": 1, "maxLength": _LONGEST_REASON},
}


def _edit_schema() -> dict[str, Any]:
    return {name: value for name, value in body_schema.request_schema(multipart=False).items() if name != "required"}


def _wire(plan: MemoryPlan, steps: int, cost: Callable[[float | None], float | None]) -> dict[str, object]:
    seconds = plan.seconds(steps)
    return plan.to_dict() | {"seconds": round(seconds, 1), "cost": cost(seconds or None)}


def _alternative(told: dict[str, object]) -> schema.Alternative:
    known = schema.Alternative.model_fields
    return schema.Alternative.model_validate({name: value for name, value in told.items() if name in known})


def _choice(values: dict[str, object]) -> tuple[str | None, int | None]:
    """`before` and `priority`, of which one at most is given."""
    take_only(values, "before", "priority")
    before, priority = values.get("before"), values.get("priority")
    problems: list[Problem] = []
    if before is not None and not isinstance(before, str):
        problems.append(Problem("before", "wrong_type", "must be the id of a queued job."))
    whole = isinstance(priority, int) and not isinstance(priority, bool)
    if priority is not None and not (whole and abs(cast("int", priority)) <= _HIGHEST_PRIORITY):
        problems.append(Problem("priority", "out_of_range", f"must be a whole number up to ±{_HIGHEST_PRIORITY}."))
    if before is not None and priority is not None:
        problems.append(Problem("priority", "contradiction", "was given beside before.", "Give one or the other."))
    if problems:
        raise InvalidRequest(*problems)
    return cast("str | None", before), cast("int | None", priority)


def _number(text: str | None) -> int | None:
    """The number in Last-Event-ID; None for anything else, which begins anew."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else None


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
    )
