"""/v1/files: pictures and sounds handed in ahead of the request that uses them."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Upload, read_body
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.schema import Deleted, File, FileList
from wanreel.frontends.http.uploads import UploadedFile
from wanreel.media.sound import looks_like_sound

_BODY = body_schema.upload_body("PNG, JPEG or WebP; or WAV, MP3, FLAC, Ogg or M4A.", purpose={"type": "string"})


class FileRoutes:
    """The routes, over one House."""

    def __init__(self, house: House) -> None:
        self._house = house

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/files", tags=["files"], responses=schema.ERRORS)
        router.post(
            "", response_model=File, openapi_extra={"requestBody": _BODY}, summary="Hand in a picture or a sound"
        )(self.upload)
        router.get("", response_model=FileList, summary="List your uploads")(self.list)
        router.get("/{file_id}", response_model=File, summary="Look at an upload")(self.retrieve)
        router.delete("/{file_id}", response_model=Deleted, summary="Forget an upload")(self.delete)
        return router

    async def upload(self, request: Request) -> File:
        """Checks a picture or a sound and keeps it. Use its id wherever one is taken."""
        body = await read_body(request)
        file = body.files.get("file")
        if file is None:
            raise InvalidRequest.of("file", "required", "is missing.", "Send it as the form field file.")
        self._house.rates.take(caller_of(request))
        return shown(await run_in_threadpool(self._keep, caller_of(request).owner, file))

    def _keep(self, owner: str, file: Upload) -> UploadedFile:
        taken = (self._house.sounds if looks_like_sound(file.data) else self._house.desk).take(file.data, "file")
        return self._house.uploads.add(owner, file.name, len(file.data), taken)

    async def list(self, request: Request) -> FileList:
        """Your uploads, newest first."""
        found = await run_in_threadpool(self._house.uploads.list, caller_of(request).owner)
        data = [shown(upload) for upload in found]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return FileList(data=data, first_id=first, last_id=last, has_more=False)

    async def retrieve(self, request: Request, file_id: str) -> File:
        """What is known of an upload."""
        upload = await run_in_threadpool(self._house.uploads.get, caller_of(request).owner, file_id)
        if upload is None:
            raise _unknown()
        return shown(upload)

    async def delete(self, request: Request, file_id: str) -> Deleted:
        """Forgets an upload. Requests that use it keep their picture."""
        if not await run_in_threadpool(self._house.uploads.delete, caller_of(request).owner, file_id):
            raise _unknown()
        return Deleted(id=file_id, object="file")


def _unknown() -> Refused:
    return Refused(404, "file_not_found", "There is no such file.")


def shown(upload: UploadedFile) -> File:
    """An upload on the wire."""
    return File(
        id=upload.id,
        bytes=upload.size,
        created_at=int(upload.created_at),
        filename=upload.name,
        width=upload.picture.width if upload.picture else 0,
        height=upload.picture.height if upload.picture else 0,
        seconds=round(upload.sound.seconds, 3) if upload.sound else None,
        notes=list(upload.picture.notes) if upload.picture else [],
    )
