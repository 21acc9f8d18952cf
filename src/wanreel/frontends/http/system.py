"""Whether the server lives and is ready, and how it fares."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import WanreelError
from wanreel.core.sample import GpuSample, Sample, WorkerRecord
from wanreel.frontends.http import schema
from wanreel.frontends.http.house import House, require_admin
from wanreel.frontends.http.metrics import Metrics
from wanreel.frontends.http.pulse import Moment
from wanreel.frontends.http.schema import Wire
from wanreel.host import free_bytes


class Live(Wire):
    status: Literal["live"] = "live"


class Ready(Wire):
    status: Literal["ready", "not_ready"]
    reasons: list[str]


class GpuState(Wire):
    """A GPU, as its driver sees it, with everything that runs on it."""

    name: str
    driver: str
    utilisation_percent: float | None
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: int | None


class HostState(Wire):
    """A machine at one moment."""

    at: float = Field(description="Seconds since 1970.")
    cpu_percent: float = Field(description="Of all cores.")
    ram_used_bytes: int
    ram_total_bytes: int
    process_bytes: int = Field(description="Memory of the process that measured.")
    disk_free_bytes: int
    disk_total_bytes: int


class WorkerState(Wire):
    """A worker, and the machine it runs on as it last told."""

    name: str
    description: str
    alive: bool
    draining: bool
    started_at: float
    model: str | None = Field(description="Held in memory.")
    host: HostState | None = Field(description="Null until the worker has told.")
    gpu: GpuState | None
    warnings: list[str]


class WorkerMoment(Wire):
    description: str
    gpu_utilisation_percent: float | None
    gpu_memory_used_bytes: int | None


class SystemMoment(Wire):
    """A point of the charts."""

    at: float
    cpu_percent: float
    ram_used_bytes: int
    queued: int
    in_progress: int
    steps_per_second: float
    completed: int = Field(description="Since the moment before, as the next two.")
    failed: int
    cancelled: int
    workers: list[WorkerMoment]


class System(Wire):
    """This server, its workers, and the last minutes."""

    host: HostState | None = Field(description="Where the API runs; null in the first moment.")
    workers: list[WorkerState]
    free_bytes: int
    warnings: list[str]
    refresh_seconds: float = Field(description="Between two moments.")
    run_seconds: float = Field(description="Worker time of all jobs that are kept.")
    cost: float | None = Field(
        default=None,
        exclude_if=lambda cost: cost is None,
        description="Of it; left out where the operator set no price.",
    )
    history: list[SystemMoment] = Field(description="The last ones, oldest first; begins anew with the server.")


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
        router.get("/v1/system", response_model=System, responses=schema.ERRORS, summary="This server and its workers")(
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
        if not self._house.on_demand and not any(self._house.worker_lives(name) for name, _ in workers):
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
        """CPU, memory, GPUs, disk, what to look after, and the last minutes for charts (admin)."""
        require_admin(request)
        return await run_in_threadpool(self._system)

    def _system(self) -> System:
        pulse, moments = self._house.pulse, self._house.pulse.moments
        workers = [self._worker(record) for record in self._house.service.store.worker_records()]
        seconds = self._house.service.store.run_seconds()
        warnings = [*self.faults(), *(moments[-1].host.warnings if moments else ())]
        return System(
            host=_host(moments[-1].host) if moments else None,
            workers=workers,
            free_bytes=free_bytes(self._house.service.data.root),
            warnings=list(dict.fromkeys([*warnings, *(text for worker in workers for text in worker.warnings)])),
            refresh_seconds=pulse.seconds,
            run_seconds=round(seconds, 1),
            cost=self._house.service.cost(seconds),
            history=[_moment(moment) for moment in moments],
        )

    def _worker(self, record: WorkerRecord) -> WorkerState:
        sample = record.sample
        alive = self._house.worker_lives(record.name)
        return WorkerState(
            name=record.name,
            description=record.description,
            alive=alive,
            draining=record.draining,
            started_at=record.started_at,
            model=(sample.model or None) if sample else None,
            host=_host(sample) if sample else None,
            gpu=_gpu(sample.gpu) if sample and sample.gpu else None,
            warnings=list(self._house.pulse.warnings_of(record)) if alive else [],
        )


def _host(sample: Sample) -> HostState:
    return HostState(
        at=sample.at,
        cpu_percent=sample.cpu,
        ram_used_bytes=sample.ram_used,
        ram_total_bytes=sample.ram_total,
        process_bytes=sample.process_ram,
        disk_free_bytes=sample.disk_free,
        disk_total_bytes=sample.disk_total,
    )


def _gpu(gpu: GpuSample) -> GpuState:
    return GpuState(
        name=gpu.name,
        driver=gpu.driver,
        utilisation_percent=gpu.utilisation,
        memory_used_bytes=gpu.memory_used,
        memory_total_bytes=gpu.memory_total,
        temperature_celsius=gpu.temperature,
    )


def _moment(moment: Moment) -> SystemMoment:
    return SystemMoment(
        at=moment.host.at,
        cpu_percent=moment.host.cpu,
        ram_used_bytes=moment.host.ram_used,
        queued=moment.queued,
        in_progress=moment.in_progress,
        steps_per_second=round(moment.steps_per_second, 3),
        **moment.ended,
        workers=[_worker_moment(worker) for worker in moment.workers],
    )


def _worker_moment(worker: WorkerRecord) -> WorkerMoment:
    gpu = worker.sample.gpu if worker.sample is not None else None
    return WorkerMoment(
        description=worker.description,
        gpu_utilisation_percent=gpu.utilisation if gpu else None,
        gpu_memory_used_bytes=gpu.memory_used if gpu else None,
    )
