"""Whether the server lives and is ready, and how it fares."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import WanreelError
from wanreel.frontends.http import schema
from wanreel.frontends.http.house import House, require_admin
from wanreel.frontends.http.metrics import Metrics
from wanreel.frontends.http.schema import Wire
from wanreel.host import free_bytes


class Live(Wire):
    status: Literal["live"] = "live"


class Ready(Wire):
    status: Literal["ready", "not_ready"]
    reasons: list[str]


class WorkerState(Wire):
    name: str
    description: str
    alive: bool


class System(Wire):
    workers: list[WorkerState]
    free_bytes: int
    warnings: list[str]


class SystemRoutes:
    """The routes, over one House."""

    def __init__(self, house: House, metrics: Metrics) -> None:
        self._house = house
        self._metrics = metrics

    def router(self) -> APIRouter:
        router = APIRouter(tags=["system"])
        unready: dict[int | str, dict[str, Any]] = {503: {"model": Ready, "description": "Not now; says why."}}
        router.get("/live", response_model=Live, summary="The process answers")(self.live)
        router.get("/ready", response_model=Ready, responses=unready, summary="A job would be worked on now")(
            self.ready
        )
        text: dict[int | str, dict[str, Any]] = {
            200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}
        }
        router.get("/metrics", response_class=Response, responses=text | schema.ERRORS, summary="Figures")(self.metrics)
        router.get("/v1/system", response_model=System, responses=schema.ERRORS, summary="Workers and disk")(
            self.system
        )
        return router

    async def live(self) -> Live:
        """Answers as long as the process does anything at all."""
        return Live()

    async def ready(self) -> Response:
        """200 when a worker is there, the database answers, the disk has room and nobody stopped the server; else 503."""
        reasons = await run_in_threadpool(self.faults)
        state = Ready(status="not_ready" if reasons else "ready", reasons=reasons)
        return JSONResponse(state.model_dump(), 503 if reasons else 200)

    def faults(self) -> list[str]:
        """Why the server is not ready, in words; empty when it is. Blocks."""
        if self._house.stopping:
            return ["the server is stopping"]
        try:
            queue = self._house.service.queue()
            workers = self._house.service.store.workers()
        except WanreelError:
            return ["the job database can't be used"]
        reasons: list[str] = []
        if not any(self._house.worker_lives(name) for name, _ in workers):
            reasons.append("no worker is running")
        if queue.paused and queue.automatic:
            reasons.append("the queue waits for disk space")
        elif free_bytes(self._house.service.data.root) < self._house.min_free_bytes:
            reasons.append("the disk is nearly full")
        if queue.queued >= queue.capacity:
            reasons.append("the queue is full")
        return reasons

    async def metrics(self, request: Request) -> Response:
        """For Prometheus (admin)."""
        require_admin(request)
        return PlainTextResponse(await run_in_threadpool(self._metrics.text), media_type=self._metrics.media_type)

    async def system(self, request: Request) -> System:
        """The workers and what to look after (admin)."""
        require_admin(request)
        return await run_in_threadpool(self._system)

    def _system(self) -> System:
        workers = [
            WorkerState(name=name, description=text, alive=self._house.worker_lives(name))
            for name, text in self._house.service.store.workers()
        ]
        free = free_bytes(self._house.service.data.root)
        return System(workers=workers, free_bytes=free, warnings=self.faults())
