"""DepotDesk: results in object storage, as routes need them. Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from wanreel.core.destination import Destination
from wanreel.core.errors import InvalidRequest, RemoteError, SettingsError
from wanreel.core.job import ArtifactRef, Job
from wanreel.core.upload import UNFINISHED, UploadedFile, UploadReport, UploadState, UploadTo
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.files import span_of
from wanreel.frontends.http.schema import Upload, UploadFile
from wanreel.frontends.own_storage import FIELDS, OwnStorage
from wanreel.service import Service
from wanreel.service.uploader import Uploader
from wanreel.storage.depots import Depot

#: What a page's own players and pictures are asked for as; they may be loaded from this server alone.
_ARRIVES_WITHIN, _LOOK = 60.0, 0.2  # seconds
_PARTS_OF_PAGES = frozenset({"video", "image", "audio"})


@dataclass(frozen=True)
class DepotDesk:
    """One per app."""

    service: Service
    own: OwnStorage
    uploader: Uploader

    # Requests

    def take_own(self, values: MutableMapping[str, object]) -> Destination | None:
        """Takes storage and keys out of a request. Raises InvalidRequest, whose text holds none of them."""
        given = {name: values.pop(name) for name in FIELDS if name in values}
        found = [place for name, value in given.items() if (place := self.own.accept(value, name)) is not None]
        if not found:
            return None
        if len(found) > 1 or values.get("storage") not in (None, ""):
            raise InvalidRequest.of(
                next(iter(given)),
                "contradiction",
                "the result can go to one place.",
                "Give one of r2, upload, storage.",
            )
        return found[0]

    def hold(self, own: Destination | None) -> UploadTo | None:
        """Keep the keys in memory; what is stored in their place."""
        return None if own is None else self.uploader.hold(own)

    # Answers

    def shown(self, report: UploadReport | None, *, addresses: bool) -> Upload | None:
        """How the copy fares, with `addresses` to fetch it from. Asks nobody."""
        if report is None:
            return None
        depot = self._depot(report.storage) if addresses else None
        return Upload(
            state=report.state,
            storage=report.storage or None,
            attempts=report.attempts,
            outcome=report.outcome,
            files=[_shown(file, depot) for file in report.files],
        )

    async def arrive(self, job: Job, kind: str) -> None:
        """Returns when the job's file is here or in storage, or on no way there any more.

        Where a worker of another machine made it, its copy comes some seconds after the job's end.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ARRIVES_WITHIN):
                while await run_in_threadpool(self._on_its_way, job, kind):
                    await asyncio.sleep(_LOOK)

    def _on_its_way(self, job: Job, kind: str) -> bool:
        file = self.service.files(job.id).get(kind)
        if file is None or (self.service.results / file.name).is_file():
            return False
        report = self.service.store.uploads.reports([job.id]).get(job.id)
        return report is not None and report.state in UNFINISHED

    def read(self, job: Job, kind: str) -> bytes:
        """The bytes of the job's file, wherever they are. Blocks. Raises Refused, RemoteError."""
        file = self.service.files(job.id)[kind]
        with contextlib.suppress(FileNotFoundError):
            return (self.service.results / file.name).read_bytes()
        found = self._find(job, kind)
        if found is None:
            raise Refused(404, "deleted", "The file was deleted.")
        depot, _, key = found
        return b"".join(depot.objects.open(key))

    async def elsewhere(self, request: Request, job: Job, kind: str) -> Response | None:
        """The job's file of this kind, where it is no longer here and lies in the operator's storage; else None."""
        found = await run_in_threadpool(self._find, job, kind)
        if found is None:
            return None
        depot, file, key = found
        part_of_page = request.headers.get("sec-fetch-dest", "") in _PARTS_OF_PAGES
        if depot.destination.proxied or part_of_page:
            return await run_in_threadpool(_passed_on, request, depot, file, key)
        url = await run_in_threadpool(lambda: depot.objects.url(key, file_name=file.name, media_type=file.media_type))
        return RedirectResponse(url, 302, headers={"cache-control": "no-store"})

    def _find(self, job: Job, kind: str) -> tuple[Depot, ArtifactRef, str] | None:
        file = self.service.files(job.id).get(kind)
        if file is None or (self.service.results / file.name).is_file():
            return None
        report = self.service.store.uploads.reports([job.id]).get(job.id)
        copies = [it for it in report.files if it.kind == kind and it.state is UploadState.DONE] if report else []
        if report is None or not copies:
            return None
        depot = self._depot(report.storage)
        if depot is None or copies[0].bucket != depot.destination.bucket:
            raise Refused(404, "elsewhere", f"The file lies in storage, as {copies[0].bucket}/{copies[0].key}.")
        return depot, file, copies[0].key

    def _depot(self, profile: str) -> Depot | None:
        """None for storage of a request's own, and for a profile that is no longer there."""
        try:
            return self.uploader.depots.get(profile) if profile else None
        except SettingsError:
            return None


def _shown(file: UploadedFile, depot: Depot | None) -> UploadFile:
    done = file.state is UploadState.DONE
    url = None
    if done and depot is not None and depot.destination.bucket == file.bucket:
        url = depot.objects.url(file.key, file_name=file.name, media_type=file.media_type)
    return UploadFile(
        kind=file.kind, state=file.state, bucket=file.bucket if done else None, key=file.key if done else None, url=url
    )


def _passed_on(request: Request, depot: Depot, file: ArtifactRef, key: str) -> Response:
    """The object's bytes, or one range of them. Raises Refused."""
    span = span_of(request.headers.get("range", ""), file.size)
    first, last = span or (0, file.size - 1)
    try:
        chunks = depot.objects.open(key, first=first, last=last if span else None)
    except RemoteError as exc:
        raise Refused(
            503, exc.code, "The file can't be fetched from storage now.", headers={"Retry-After": "30"}
        ) from exc
    headers: Mapping[str, str] = {
        "content-length": str(last - first + 1),
        "content-disposition": f'attachment; filename="{key.rpartition("/")[2]}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        **({"content-range": f"bytes {first}-{last}/{file.size}"} if span else {}),
    }
    return StreamingResponse(chunks, 206 if span else 200, headers, file.media_type)
