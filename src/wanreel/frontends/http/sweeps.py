"""/v1/sweeps: one request made many times with other values. Each route only translates; what it means is in
`service.sweeps`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import JobStatus
from wanreel.core.sweep import AXES, LORA, MAX_AXES, MAX_CELLS, Sweep, parse_sweep
from wanreel.frontends.http import body_schema, files, schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Body, read_body
from wanreel.frontends.http.group_desk import GroupDesk
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import idempotency_key
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.schema import Adjustments, Upload, Webhook, Wire, progress_of
from wanreel.frontends.http.submission import translate
from wanreel.service import Terms, request_of
from wanreel.service.sweeps import Sweeps, SweepView

Kind = Literal["sheet", "video", "csv", "json"]


class CellState(Wire):
    """One combination and how its video fares."""

    number: int = Field(description="From 1, row by row.")
    labels: list[str] = Field(description="Its value on each axis, for people.")
    places: list[int] = Field(description="The same as places in the axes' values, from 0.")
    video: str = Field(description="Id of the video: GET /v1/videos/{id}.")
    status: JobStatus
    progress: int = Field(ge=0, le=100)
    seed: int
    error: str | None


class SweepAxis(Wire):
    name: str
    values: list[Any]


class SweepFile(Wire):
    name: str
    media_type: str
    bytes: int
    sha256: str


class SweepState(Wire):
    id: str
    object: Literal["sweep"] = "sweep"
    title: str
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    axes: list[SweepAxis]
    rows: int = Field(description="Of the grid that cells are laid out in.")
    columns: int
    cells: list[CellState]
    files: dict[str, SweepFile] = Field(description="What was made of the cells: sheet, video, csv, json.")
    adjustments: list[dict[str, Any]] = Field(description="How cells differ from what was asked; on creation only.")
    notes: list[str]
    webhook: Webhook | None = Field(description="Null when nobody is to be told.")
    upload: Upload | None = Field(description="Of the files; null when they stay on the server.")
    error: str | None


class SweepList(Wire):
    object: Literal["list"] = "list"
    data: list[SweepState]
    has_more: bool


class DeletedSweep(Wire):
    id: str
    object: Literal["sweep.deleted"] = "sweep.deleted"
    deleted: bool = True


class SweepRoutes:
    """The routes, over one House."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._sweeps = Sweeps(house.service)
        self._desk = GroupDesk(house, self._sweeps)

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"], responses=schema.ERRORS)
        one = "/{sweep_id}"
        router.post("", openapi_extra={"requestBody": _body()}, summary="Queue a sweep")(self.create)
        router.get("", response_model=SweepList, summary="List your sweeps")(self.list)
        router.get(one, summary="Look at a sweep")(self.retrieve)
        router.delete(one, response_model=DeletedSweep, summary="Stop and forget a sweep")(self.delete)
        router.post(one + "/cancel", summary="Stop a sweep")(self.cancel)
        router.post(one + "/retry", summary="Go on with a sweep")(self.retry)
        kinds = {"image/png": {}, "video/mp4": {}, "text/csv": {}, "application/json": {}}
        content: dict[int | str, dict[str, Any]] = {200: {"content": kinds, "description": "The file."}}
        router.get(one + "/content", response_class=Response, responses=content, summary="Fetch what was made of it")(
            self.content
        )
        return router

    async def create(self, request: Request) -> SweepState:
        """Queues every combination of the axes' values as a video: all of them or none. Once all have ended, a contact
        sheet, a video of all side by side and tables are made. Give an Idempotency-Key to be safe against doubles."""
        body = await read_body(request)
        return await run_in_threadpool(self._create, caller_of(request), body, idempotency_key(request))

    def _create(self, caller: Caller, body: Body, key: str | None) -> SweepState:
        self._house.rates.take(caller)
        values = dict(body.values)
        url = self._house.webhooks.accept(values.pop("webhook_url", None))
        sweep, notes = self._parsed(caller, replace(body, values=values))
        view, adjustments = self._sweeps.create(sweep, Terms(caller.owner, idempotency_key=key, webhook_url=url))
        return self._shown(view, adjustments, notes)

    async def list(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> SweepList:
        """Your sweeps, newest first; `after` is the last id of the page before."""
        caller = caller_of(request)
        return await run_in_threadpool(self._list, caller, after, limit)

    def _list(self, caller: Caller, after: str | None, limit: int) -> SweepList:
        found, more = self._desk.page(caller, after, limit)
        return SweepList(data=[self._shown(view, listed=True) for view in found], has_more=more)

    async def retrieve(self, request: Request, sweep_id: str) -> SweepState:
        """How a sweep stands."""
        return await run_in_threadpool(self._shown, await self._desk.asked(request, sweep_id))

    async def cancel(self, request: Request, sweep_id: str) -> SweepState:
        """Stops every cell that has not ended. What is there becomes the sheet."""
        return await run_in_threadpool(self._shown, await self._desk.cancel(request, sweep_id))

    async def retry(self, request: Request, sweep_id: str) -> SweepState:
        """Queues every cell again that failed or was cancelled; each goes on from its last step."""
        return await run_in_threadpool(self._shown, await self._desk.retry(request, sweep_id))

    async def delete(self, request: Request, sweep_id: str) -> DeletedSweep:
        """Stops it, and deletes it with its videos and files."""
        await self._desk.delete(request, sweep_id)
        return DeletedSweep(id=sweep_id)

    async def content(self, request: Request, sweep_id: str, variant: Kind = "sheet") -> Response:
        """The contact sheet, the video of all cells side by side, or the tables. One Range is served."""
        view = await self._desk.asked(request, sweep_id)
        path = await run_in_threadpool(self._sweeps.path, view, variant)
        if path is None:
            raise Refused(404, "not_ready", "It is not there yet.")
        return files.served(request, path, str(view.files[variant]["media_type"]))

    # From and to the wire

    def _parsed(self, caller: Caller, body: Body) -> tuple[Sweep, list[str]]:
        """Pictures are taken in once for all cells. Raises InvalidRequest."""
        values = dict(body.values)
        own = {name: values.pop(name) for name in ("axes", "title") if name in values}
        submission = translate(replace(body, values=values), caller.owner, self._house.desk, self._house.sounds)
        try:
            sweep = parse_sweep(submission.values | own)
        except InvalidRequest as error:
            raise InvalidRequest(*submission.problems, *error.problems) from error
        if submission.problems:
            raise InvalidRequest(*submission.problems)
        return sweep, submission.notes

    def _shown(
        self, view: SweepView, adjustments: Adjustments = (), notes: list[str] | None = None, *, listed: bool = False
    ) -> SweepState:
        cells = [
            CellState(
                number=place + 1,
                labels=list(cell.labels),
                places=list(cell.places),
                video=job.id,
                status=job.status,
                progress=progress_of(job),
                seed=request_of(job).seed,
                error=f"{job.error.message} {job.error.hint}".strip() if job.error else None,
            )
            for place, (cell, job) in enumerate(zip(view.cells, view.jobs, strict=False))
        ]
        share = sum(100 if cell.status in _OVER else cell.progress for cell in cells) // max(1, len(cells))
        rows, columns = view.sweep.grid
        return SweepState(
            id=view.group.id,
            title=view.group.title,
            status=cast("Any", view.status),
            progress=100 if view.status == "completed" else min(99, share),
            created_at=int(view.group.created_at),
            axes=[SweepAxis(name=axis["name"], values=axis["values"]) for axis in view.sweep.to_dict()["axes"]],
            rows=rows,
            columns=columns,
            cells=cells,
            files={kind: SweepFile(**file) for kind, file in view.files.items()},
            adjustments=[adjustment.to_dict() for adjustment in adjustments],
            notes=notes or [],
            webhook=self._desk.webhook(view),
            upload=self._desk.upload(view, addresses=not listed),
            error=f"{view.group.error[1]} {view.group.error[2]}".strip() if view.group.error else None,
        )


_OVER = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


def _body() -> dict[str, Any]:
    """Everything that a video takes, and the axes."""
    request = body_schema.request_schema(multipart=False)
    properties = {name: it for name, it in request["properties"].items() if name != "upload"}
    values = {"type": "array", "minItems": 1, "maxItems": MAX_CELLS}
    properties["axes"] = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": MAX_AXES,
        "additionalProperties": values,
        "description": f"Values by axis: {', '.join(AXES)} or {LORA}NAME. Guidance and LoRAs take pairs, high and low: "
        f'[3, 4], "3:4" or 3. At most {MAX_CELLS} combinations.',
        "examples": [{"seed": [1, 2, 3], "guidance": ["3:3", "5:4"]}],
    }
    properties["webhook_url"] = body_schema.or_null(body_schema.webhook_schema("the files are there"))
    properties["title"] = {"type": ["string", "null"], "maxLength": 200}
    body = {"type": "object", "required": ["axes"], "properties": properties}
    example = {"prompt": "a red circle moves right over a blue background", "axes": {"seed": [1, 2, 3]}}
    return {"required": True, "content": {"application/json": {"schema": body, "example": example}}}
