"""LightX2V's `/v1/tasks`: the same jobs under its names. An adapter; it keeps nothing of its own."""

from __future__ import annotations

import contextlib
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import IllegalTransition, InvalidRequest, JobNotFound
from wanreel.core.job import Job, JobStatus
from wanreel.frontends.http import files
from wanreel.frontends.http.forms import Body, read_body
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House, owner_filter
from wanreel.frontends.http.intake import Intake
from wanreel.frontends.http.schema import video_of

_STATUS = {JobStatus.QUEUED: "pending", JobStatus.IN_PROGRESS: "processing"}
_NAMES = {"target_video_length": "num_frames", "target_fps": "fps", "image_file": "image"}
#: Fields that ask for nothing at these values.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "task_id": (),
    "num_fragments": (1, "1"),
    "presigned_url": ("",),
    "audio_path": ("",),
    "video_path": ("",),
    "image_mask_path": ("",),
    "resize_mode": ("adaptive",),
    "talk_objects": (),
    "sr_ratio": (1, 1.0),
}


class LightX2VRoutes:
    """The routes, over one House."""

    def __init__(self, house: House, intake: Intake) -> None:
        self._house = house
        self._intake = intake

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/tasks", include_in_schema=False)
        for path in ("/", "/video/", "/video", "/video/form", "/form"):
            router.post(path)(self.create)
        router.get("/")(self.list)
        router.get("/queue/status")(self.queue)
        router.get("/{task_id}/status")(self.status)
        router.get("/{task_id}/result")(self.result)
        router.delete("/all/running")(self.stop_all)
        router.delete("/{task_id}")(self.stop)
        return router

    async def create(self, request: Request) -> dict[str, Any]:
        """Queues a task."""
        accepted = await self._intake.accept(request, _translated(await read_body(request)))
        return {"task_id": accepted.job.id, "task_status": "pending", "save_result_path": "", "notes": accepted.notes}

    async def list(self, request: Request) -> dict[str, Any]:
        """Your newest tasks."""
        jobs = await run_in_threadpool(self._house.service.list, owner=owner_filter(caller_of(request)), limit=100)
        return {job.id: _status(job) for job in jobs}

    async def queue(self, request: Request) -> dict[str, Any]:
        """The line."""
        state = await run_in_threadpool(self._house.service.queue)
        running = await run_in_threadpool(
            self._house.service.list, owner=owner_filter(caller_of(request)), status=JobStatus.IN_PROGRESS, limit=1
        )
        return {
            "is_processing": state.in_progress > 0,
            "current_task": running[0].id if running else None,
            "pending_count": state.queued,
            "active_count": state.queued + state.in_progress,
            "queue_size": state.capacity,
            "queue_available": max(0, state.capacity - state.queued),
        }

    async def status(self, request: Request, task_id: str) -> dict[str, Any]:
        """How a task stands; `progress` is ours."""
        return _status(await self._house.job_of(request, task_id))

    async def result(self, request: Request, task_id: str) -> Response:
        """The video."""
        job = await self._house.job_of(request, task_id)
        return await files.artifact(request, self._house.service, job, "video")

    async def stop(self, request: Request, task_id: str) -> dict[str, str]:
        """Stops a task."""
        job = await self._house.job_of(request, task_id)
        try:
            await run_in_threadpool(self._house.service.cancel, job.id)
        except IllegalTransition as error:
            return {"stop_status": "do_nothing", "reason": error.message}
        return {"stop_status": "success", "reason": "The task is stopped within a step."}

    async def stop_all(self, request: Request) -> dict[str, str]:
        """Stops your tasks that run; those in line stay."""
        stopped = await run_in_threadpool(self._stop_running, caller_of(request).owner)
        if not stopped:
            return {"stop_status": "do_nothing", "reason": "No task of yours is running."}
        return {"stop_status": "success", "reason": f"{stopped} stopped within a step."}

    def _stop_running(self, owner: str) -> int:
        service, stopped = self._house.service, 0
        for job in service.list(owner=owner, status=JobStatus.IN_PROGRESS, limit=100):
            with contextlib.suppress(IllegalTransition, JobNotFound):  # it ended by itself, or was deleted
                service.cancel(job.id)
                stopped += 1
        return stopped


def _status(job: Job) -> dict[str, Any]:
    shown = video_of(job)
    return {
        "task_id": job.id,
        "task_status": _STATUS.get(job.status, str(job.status)),
        "status": _STATUS.get(job.status, str(job.status)),
        "start_time": job.started_at,
        "end_time": job.ended_at,
        "error": shown.error.message if shown.error else None,
        "error_type": shown.error.code if shown.error else None,
        "save_result_path": "",
        "progress": shown.progress,
    }


def _translated(body: Body) -> Body:
    """LightX2V's names as ours. Raises InvalidRequest for what can't be done."""
    values: dict[str, object] = {}
    strength = body.values.get("lora_strength", 1.0)
    for name, value in body.values.items():
        if name in _NEUTRAL:
            if value is not None and name != "task_id" and value not in _NEUTRAL[name]:
                raise InvalidRequest.of(name, "unsupported", "can't be done here.", "Leave it out.")
        elif name == "target_shape" and isinstance(value, list) and len(value) == 2:  # pyright: ignore[reportUnknownArgumentType]
            values["height"], values["width"] = value
        elif name == "lora_name":
            values["loras"] = [{"name": value, "strength": strength}] if value else None
        elif name == "video_duration":
            values["seconds"] = value
        elif name != "lora_strength":
            values[_NAMES.get(name, name)] = value
    return Body(values, body.files)
