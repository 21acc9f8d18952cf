"""Files of jobs as answers: one range at a time, fixed media types, a name to save under."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import ArtifactRef, Job
from wanreel.frontends.http.errors import Refused
from wanreel.media.video import read_frames
from wanreel.service import Service

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_CELL = 256  #: px, the longer side of a picture in a sprite sheet
_CELLS = 25  #: at most
_ANIMATIONS = frozenset({"image/webp", "image/gif"})


def is_one_range(value: str) -> bool:
    """Whether a header Range asks for one range of bytes: from and to, from, or the last so many."""
    match = _RANGE.fullmatch(value)
    if match is None:
        return False
    first, last = match.groups()
    return bool(first or last) and not (first and last and int(first) > int(last))


def span_of(value: str, size: int) -> tuple[int, int] | None:
    """The first and last byte of a header Range that asks for one range of a file of this size; None for all of it."""
    match = _RANGE.fullmatch(value)
    if match is None or not is_one_range(value) or not size:
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size - 1
    return (int(first), min(int(last or size), size - 1)) if int(first) < size else None


async def artifact(request: Request, service: Service, job: Job, kind: str) -> Response:
    """The job's file of this kind. Raises Refused when there is none."""
    file = (await run_in_threadpool(service.files, job.id)).get(kind)
    if file is None:
        raise _not_ready(job)
    path = service.results / file.name
    if not path.is_file():
        raise Refused(404, "deleted", "The file was deleted.")
    return served(request, path, file.media_type)


def served(request: Request, path: Path, media_type: str) -> Response:
    """A file, or the one range of it that was asked for, with its name to save under."""
    if not is_one_range(request.headers.get("range", "")):
        # Several would be answered in parts that nobody here asks for, and nonsense with 400; the whole file is allowed
        # instead of either (RFC 9110, 14.2).
        request.scope["headers"] = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    headers = {"cache-control": "private, no-cache"}
    return FileResponse(path, media_type=media_type, filename=path.name, headers=headers)


async def spritesheet(service: Service, job: Job) -> Response:
    """Frames of the video in one JPEG, evenly spaced, row by row."""
    video = (await run_in_threadpool(service.files, job.id)).get("video")
    if video is None:
        raise _not_ready(job)
    sheet, columns = await run_in_threadpool(_sheet, service.results / video.name, video)
    headers = {"content-disposition": f'attachment; filename="{job.id}.jpg"', "x-columns": str(columns)}
    return Response(sheet, media_type="image/jpeg", headers=headers)


def _not_ready(job: Job) -> Refused:
    return Refused(404, "not_ready", f"The video is {job.status.replace('_', ' ')}, so there is no file yet.")


def _sheet(path: Path, video: ArtifactRef) -> tuple[bytes, int]:
    """A JPEG and how many columns it has."""
    try:
        cells = _cells(path, video)
    except (OSError, ValueError) as exc:
        raise Refused(404, "deleted", "The file was deleted or damaged.") from exc
    if not cells:
        raise InvalidRequest.of("variant", "unreadable", "the video has no frames.")
    picked = [cells[index] for index in np.linspace(0, len(cells) - 1, min(_CELLS, len(cells))).round().astype(int)]
    columns = math.ceil(math.sqrt(len(picked)))
    width, height = picked[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(picked) / columns) * height))
    for place, cell in enumerate(picked):
        sheet.paste(cell, (place % columns * width, place // columns * height))
    data = io.BytesIO()
    sheet.save(data, "JPEG", quality=85)
    return data.getvalue(), columns


def _cells(path: Path, video: ArtifactRef) -> list[Image.Image]:
    """Every frame, small."""
    cells: list[Image.Image] = []
    if video.media_type in _ANIMATIONS:
        with Image.open(path, formats=["WEBP", "GIF"]) as animation:
            for frame in ImageSequence.Iterator(animation):
                cells.append(_small(frame.convert("RGB")))
    else:
        for frame in read_frames(path):
            cells.append(_small(Image.fromarray(frame)))
    return cells


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((_CELL, _CELL))
    return image


def still_of(animation: bytes) -> bytes:
    """The last frame of an animated preview, as JPEG."""
    with Image.open(io.BytesIO(animation), formats=["WEBP"]) as opened:
        opened.seek(getattr(opened, "n_frames", 1) - 1)
        data = io.BytesIO()
        opened.convert("RGB").save(data, "JPEG", quality=85)
    return data.getvalue()
