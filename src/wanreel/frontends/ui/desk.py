"""Desk: what the page's named endpoints ask for, here or of a server elsewhere. Knows no widget."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from wanreel.frontends.http.forms import Body
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import Intake

#: A video's status on the wire when nothing more comes.
ENDED = frozenset({"completed", "failed"})


class Desk(Protocol):
    """Raises WanreelError and Refused, as the API answers. A video is as the API shows it, with its id as `job_id` too."""

    async def generate(self, request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a video with these knobs."""
        ...

    async def status(self, request: Request, job_id: str) -> dict[str, Any]:
        """How the video stands."""
        ...

    async def wait(self, request: Request, job_id: str, seconds: float) -> None:
        """Returns when it has ended, or when the time is over."""
        ...


@dataclass(frozen=True)
class HouseDesk:
    """The desk of the server itself."""

    house: House
    intake: Intake

    async def generate(self, request: Request, values: Mapping[str, Any]) -> dict[str, Any]:
        accepted = await self.intake.accept(request, Body(dict(values), {}))
        video = await run_in_threadpool(self.house.shown_with, accepted.job, accepted.adjustments, accepted.notes)
        return {"job_id": accepted.job.id, **video.model_dump(mode="json")}

    async def status(self, request: Request, job_id: str) -> dict[str, Any]:
        job = await self.house.job_of(request, job_id)
        video = await run_in_threadpool(self.house.shown, job)
        return {"job_id": job.id, **video.model_dump(mode="json")}

    async def wait(self, request: Request, job_id: str, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.house.news.wait(job_id)
