"""/v1/recipes: what a video of Wanreel's says about how it was made, as a request to be looked at and sent again.

The file may come from anybody, so it is only skimmed, and what it says is checked as any other request is.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest, UnreadableRecipe
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.files_api import shown
from wanreel.frontends.http.forms import Upload, read_body
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.schema import File, Wire
from wanreel.wiring import request_in

_PICTURES = ("image", "last_image")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BODY = body_schema.upload_body("An MP4, WebM, WebP or GIF that Wanreel made. Its first 8 MB are enough.")


class Recipe(Wire):
    """What made a video."""

    filename: str
    mode: str
    request: dict[str, Any] = Field(description="The knobs, as POST /v1/videos takes them.")
    pictures: dict[str, File] = Field(description="The pictures in it, by knob.")
    notes: list[str] = Field(description="What could not be restored.")


class RecipeRoutes:
    """The routes, over one House. `has_picture` says whether a picture of this SHA-256 is kept."""

    def __init__(self, house: House, has_picture: Callable[[str], bool]) -> None:
        self._house = house
        self._has_picture = has_picture

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/recipes", tags=["library"], responses=schema.ERRORS)
        router.post("", response_model=Recipe, openapi_extra={"requestBody": _BODY}, summary="Read a video's recipe")(
            self.read
        )
        return router

    async def read(self, request: Request) -> Recipe:
        """Answers the settings that a video was made with. Nothing is queued."""
        body = await read_body(request)
        file = body.files.get("file")
        if file is None:
            raise InvalidRequest.of("file", "required", "is missing.", "Send the video as the form field file.")
        self._house.rates.take(caller_of(request))
        return await run_in_threadpool(self._read, caller_of(request), file)

    def _read(self, caller: Caller, file: Upload) -> Recipe:
        found = request_in(io.BytesIO(file.data), file.name)
        asked = found.as_request()
        values = {name: getattr(asked, name) for name in VideoRequest.__dataclass_fields__}
        pictures = {knob: picture for knob in _PICTURES if (picture := values.pop(knob)) is not None}
        request = _checked(values)
        kept, notes = self._keep(caller, pictures)
        return Recipe(
            filename=file.name,
            mode=str(found.mode)[:20],
            request=request | {knob: upload.id for knob, upload in kept.items()},
            pictures=kept,
            notes=notes,
        )

    def _keep(self, caller: Caller, pictures: dict[str, PictureRef]) -> tuple[dict[str, File], list[str]]:
        """The pictures as uploads of the caller's, where they are his.

        Whoever shares a video shares the digests in its recipe, but not the pictures behind them.
        """
        kept: dict[str, File] = {}
        notes: list[str] = []
        for knob, picture in pictures.items():
            name = picture.sha256
            known = _SHA256.fullmatch(name) is not None and self._has_picture(name)
            if known and (caller.is_admin or self._house.service.store.has_request_with(caller.owner, name)):
                upload = self._house.uploads.add(caller.owner, f"{knob}.png", 0, picture)
                kept[knob] = shown(upload)
            else:
                notes.append(f"{knob}: the picture it was made from is not here; give it again.")
        return kept, notes


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """The knobs as plain JSON values. Raises InvalidRequest, UnreadableRecipe."""
    try:
        request = VideoRequest.from_mapping({name: value for name, value in values.items() if value is not None})
    except (TypeError, AttributeError) as exc:
        raise UnreadableRecipe.of("from", "unreadable_recipe", "the recipe can't be read by this version.") from exc
    if problems := request.problems():
        raise InvalidRequest(*problems)
    return {name: value for name, value in asdict(request).items() if value is not None}
