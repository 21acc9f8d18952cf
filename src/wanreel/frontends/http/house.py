"""House: what all routes share. One per app; holds nothing of a single request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from wanreel.core.alternatives import Outlook
from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import JobNotFound
from wanreel.core.job import Job
from wanreel.core.picture_models import PictureSpec
from wanreel.core.resolved import Resolution
from wanreel.frontends.http.depot_desk import DepotDesk
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.news import News
from wanreel.frontends.http.pictures import PictureDesk
from wanreel.frontends.http.pulse import Pulse
from wanreel.frontends.http.rates import Rates
from wanreel.frontends.http.schema import Adjustments, Video, video_of
from wanreel.frontends.http.sounds import SoundDesk
from wanreel.frontends.http.uploads import Uploads
from wanreel.frontends.http.webhooks import WebhookDesk
from wanreel.frontends.telemetry import name_job
from wanreel.service import Service
from wanreel.service.extending import Extension
from wanreel.worker.downloads import Downloads
from wanreel.worker.orders import Orders

_JOB_ID = re.compile(r"[0-9a-f]{32}")


@dataclass
class House:
    """The parts behind the routes."""

    service: Service
    models: Callable[[], Sequence[tuple[ModelSpec, bool]]]  #: every model, and whether it is installed
    picture_models: Callable[[], Sequence[tuple[PictureSpec, bool]]]  #: the same of those that make pictures
    downloads: Downloads
    orders: Orders
    worker_lives: Callable[[str], bool]  #: whether the worker of this name is there
    min_free_bytes: int  #: below it the server is not ready
    desk: PictureDesk
    sounds: SoundDesk
    depots: DepotDesk
    webhooks: WebhookDesk
    uploads: Uploads
    news: News
    rates: Rates
    pulse: Pulse
    outlook: Callable[[Resolution], Outlook]  #: what a request takes on this machine
    on_demand: bool = False  #: workers come when a job waits, so that none need be there
    replica: str = ""  #: which of several processes of one address this is; its own figures bear this name
    stopping: bool = False  #: set when the server begins to leave: then it is not ready

    async def job_of(self, request: Request, job_id: str) -> Job:
        """The job, if it is the caller's. Raises JobNotFound, the same for unknown ids and others' jobs."""
        job = await run_in_threadpool(self.find, caller_of(request), job_id)
        name_job(job.id)
        return job

    def find(self, caller: Caller, job_id: str) -> Job:
        """The same, blocking."""
        if _JOB_ID.fullmatch(job_id) is None:
            raise _unknown()
        try:
            job = self.service.get(job_id)
        except JobNotFound as exc:
            raise _unknown() from exc
        if job.owner != caller.owner and not caller.is_admin:
            raise _unknown()
        return job

    def shown(self, job: Job) -> Video:
        """The job on the wire, with its place in line. Blocks."""
        return self.shown_with(job)

    def shown_with(self, job: Job, adjustments: Adjustments = (), notes: Iterable[str] = ()) -> Video:
        """The same, with what is to be said about it once."""
        standing = self.service.standing(job.id) if not job.ended else None
        report = self.service.store.outbox.reports([job.id]).get(job.id)
        video = video_of(job, standing, adjustments, notes, report, self.service.cost_of(job))
        video.wanreel.upload = self.depots.shown(
            self.service.store.uploads.reports([job.id]).get(job.id), addresses=True
        )
        return self._extended(job, video)

    def _extended(self, job: Job, video: Video) -> Video:
        """With what it extends, and the length of the whole, as OpenAI tells it."""
        extension = Extension.of(self.service, job)
        if extension is not None:
            video.wanreel.extends = extension.source
            video.seconds = f"{extension.num_frames / video.fps:.4g}"
        return video

    def shown_all(self, jobs: Sequence[Job]) -> list[Video]:
        """Many jobs on the wire, without their places in line. Blocks."""
        ids = [job.id for job in jobs]
        reports, uploads = self.service.store.outbox.reports(ids), self.service.store.uploads.reports(ids)
        videos = [video_of(job, report=reports.get(job.id), cost=self.service.cost_of(job)) for job in jobs]
        for video, job in zip(videos, jobs, strict=True):
            video.wanreel.upload = self.depots.shown(uploads.get(video.id), addresses=False)
            self._extended(job, video)
        return videos


def require_admin(request: Request) -> Caller:
    """The caller. Raises Refused when his key may not run the server."""
    caller = caller_of(request)
    if not caller.is_admin:
        raise Refused(403, "missing_scope", "This needs a key with the scope admin.")
    return caller


def owner_filter(caller: Caller) -> str | None:
    """Whose jobs the caller sees: his own, or everybody's as an admin."""
    return None if caller.is_admin else caller.owner


def _unknown() -> JobNotFound:
    return JobNotFound("There is no such video.")
