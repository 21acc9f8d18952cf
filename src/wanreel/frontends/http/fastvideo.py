"""FastVideo's `POST /generate_video`: asks, waits and answers the video inside JSON. An adapter over `videos`."""

from __future__ import annotations

import base64
import re
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest, WanreelError
from wanreel.core.job import Job
from wanreel.frontends.http.errors import Refused, body_of
from wanreel.frontends.http.forms import Body, read_body
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Intake
from wanreel.frontends.http.schema import video_of
from wanreel.frontends.http.videos import VideoRoutes, seconds_of

#: FastVideo's own default, where neither model nor picture says what is wanted.
_MODES = {"t2v": False, "i2v": True}
_HUB_ID = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9._-]+")
_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_LARGEST_INLINE = 64 * 2**20  #: bytes of a video that are put into JSON


class Figures:
    """What its dashboards draw: the same series by the same names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        label = ["model_type"]
        self._requests = Counter(
            "fastvideo_requests", "Requests to /generate_video.", [*label, "status"], registry=registry
        )
        self._seconds = Histogram(
            "fastvideo_request_duration_seconds",
            "Until they were answered.",
            label,
            buckets=_SECONDS,
            registry=registry,
        )
        self._generation = Histogram(
            "fastvideo_video_generation_seconds", "Of making the video.", label, buckets=_SECONDS, registry=registry
        )

    def count(self, model: str, answer: dict[str, Any], seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(model, "success" if answer["success"] else "error").inc()
        self._seconds.labels(model).observe(seconds)
        if answer["success"]:
            self._generation.labels(model).observe(answer["generation_time"])


class FastVideoRoutes:
    """The routes, over one House."""

    def __init__(self, house: House, intake: Intake, videos: VideoRoutes, registry: CollectorRegistry) -> None:
        self._house = house
        self._intake = intake
        self._videos = videos
        self._figures = Figures(registry)

    def router(self) -> APIRouter:
        router = APIRouter(include_in_schema=False)
        router.post("/generate_video")(self.generate)
        router.get("/health")(self.health)
        return router

    async def generate(self, request: Request) -> Response:
        """FastVideo's fields in, its fields out. As there, a failure is told in the body of a 200."""
        began, model = time.monotonic(), "unknown"
        try:
            accepted = await self._intake.accept(request, _translated(await read_body(request)))
            model = accepted.job.model
            job = await self._videos.finish(request, accepted.job)
            await self._house.depots.arrive(job, "video")
            answer = await run_in_threadpool(self._answer, job)
        except WanreelError as error:
            answer = _failed(str(body_of(error)["error"]["message"]))  # type: ignore[index]
        except Refused as refusal:
            if refusal.status in (413, 415, 429, 503):
                raise
            answer = _failed(refusal.message)
        self._figures.count(model, answer, time.monotonic() - began)
        return JSONResponse(answer)

    def _answer(self, job: Job) -> dict[str, Any]:
        file = self._house.service.files(job.id)["video"]
        if file.size > _LARGEST_INLINE:
            raise Refused(413, "too_large", f"Fetch it with GET /v1/videos/{job.id}/content.")
        data = self._house.depots.read(job, "video")
        seconds = seconds_of(job)
        stages = {
            event.kind: float(event.data["seconds"])
            for event in self._house.service.store.events(job.id)
            if event.kind in ("loaded", "encoded", "exported") and "seconds" in event.data
        }
        return {
            "video_data": f"data:{file.media_type};base64,{base64.b64encode(data).decode()}",
            "seed": video_of(job).seed,
            "success": True,
            "error_message": None,
            "generation_time": seconds,
            "inference_time": seconds,
            "total_time": max(0.0, (job.ended_at or 0.0) - job.created_at),
            "model_load_time": stages.get("loaded", 0.0),
            "encoding_time": stages.get("exported", 0.0),
            "stage_names": list(stages),
            "stage_execution_times": list(stages.values()),
            "job_id": job.id,
        }

    async def health(self) -> dict[str, str]:
        """What FastVideo's clients ask before they begin: whether the process answers. `/ready` says more."""
        return {"status": "healthy"}


def _translated(body: Body) -> Body:
    """FastVideo's names as ours. Raises InvalidRequest."""
    values = dict(body.values)
    if not _flag(values.pop("use_negative_prompt", None)) and not values.get("negative_prompt"):
        values.pop("negative_prompt", None)
    if _flag(values.pop("randomize_seed", None)):
        values["seed"] = -1
    if _flag(values.pop("return_frames", None)):
        raise InvalidRequest.of("return_frames", "unsupported", "frames are not sent one by one.", "Leave it out.")
    model = values.pop("model_path", None)
    if model is not None and "model" not in values:
        # The hub's "Org/Name", or a path, of which the last part is looked up: as a name, and never as a path.
        text = str(model)
        values["model"] = text if _HUB_ID.fullmatch(text) else text.rstrip("/").rpartition("/")[2]
    kind = values.pop("model_type", None)
    if kind is not None and kind not in _MODES:
        raise InvalidRequest.of("model_type", "unknown_value", "is neither t2v nor i2v.", "Choose t2v | i2v.")
    pictures = ("image_data", "image_path", "image", "image_url", "input_reference")
    if kind == "i2v" and not any(values.get(name) for name in pictures) and not body.files:
        raise InvalidRequest.of("image_data", "required", "is missing.", "i2v starts from a picture.")
    return Body(values, body.files)


def _flag(value: object) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes")


def _failed(message: str) -> dict[str, Any]:
    return {"success": False, "error_message": message, "video_data": "", "seed": -1}
