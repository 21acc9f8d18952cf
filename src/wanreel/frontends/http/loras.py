"""/v1/loras: which LoRAs are here and what each fits; taking one in and forgetting it is the operator's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.errors import BrokenWeights, InsufficientStorage, InvalidRequest
from wanreel.core.lora import NAME, SUFFIX
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import display_name
from wanreel.frontends.http.house import require_admin
from wanreel.frontends.http.schema import Wire
from wanreel.host import free_bytes
from wanreel.models.lora.report import LoraDesk
from wanreel.models.lora.shelf import Shelved, name_for

_NAME = {"type": "string", "description": "What it is called here; by default as the file is."}
_BODY = body_schema.upload_body("A .safetensors file, at most 4 GiB.", name=_NAME)


class LoraFit(Wire):
    """How much of a LoRA one model takes."""

    model: str
    ok: bool
    matched: int = Field(description="Layers that it changes.")
    unmatched: int = Field(description="Of its tensors, those that are not used.")
    examples: list[str] = Field(description="Some of these.")
    fault: str | None = Field(description="Why it is not for this model.")


class Lora(Wire):
    """A LoRA on the shelf, read from its header."""

    object: Literal["lora"] = "lora"
    name: str = Field(description="What requests call it.")
    target: Literal["both", "high", "low"] = Field(description="The expert that its name says it is for.")
    partner: str | None = Field(description="The file for the other expert.")
    builtin: bool
    fault: str | None = Field(description="Why the file can't be used.")
    sha256: str | None = Field(description="Null until it is first used, for a file that was put there by hand.")
    size_bytes: int | None
    format: str | None = Field(description="kohya, Diffusers, PEFT or Wan: how its tensors are named.")
    base: str | None = Field(description="What it was made for, from its shapes.")
    layers: int | None
    rank: list[int] | None = Field(description="Smallest and largest.")
    scale: list[float] | None = Field(description="alpha / rank: smallest and largest.")
    dtypes: list[str]
    two_experts: bool = Field(description="It holds a part of its own for the low-noise expert.")
    about: dict[str, str] = Field(description="What its maker wrote into it.")
    fits: list[LoraFit] = Field(description="For the model asked for, or for each that is installed.")


class LoraList(Wire):
    object: Literal["list"] = "list"
    data: list[Lora]


class LoraDeleted(Wire):
    name: str
    object: Literal["lora"] = "lora"
    deleted: bool = True


@dataclass(frozen=True)
class LoraRoutes:
    """The routes, over one desk."""

    desk: LoraDesk
    catalog: Catalog
    models: Callable[[], Sequence[tuple[ModelSpec, bool]]]  #: every model, and whether it is installed

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/loras", tags=["models"], responses=schema.ERRORS)
        router.get("", response_model=LoraList, summary="List the LoRAs")(self.list)
        router.post("", response_model=Lora, openapi_extra={"requestBody": _BODY}, summary="Take in a LoRA")(self.add)
        router.get("/{name}", response_model=Lora, summary="Look at a LoRA")(self.inspect)
        router.delete("/{name}", response_model=LoraDeleted, summary="Forget a LoRA")(self.remove)
        return router

    async def list(self, model: str | None = None) -> LoraList:
        """Every LoRA with what it fits: `model`, or all models that are installed."""
        return await run_in_threadpool(self._list, model)

    async def inspect(self, name: str, model: str | None = None) -> Lora:
        """One LoRA: matched and unmatched tensors, rank, scale, base."""
        return await run_in_threadpool(self._inspect, name, model)

    async def add(self, request: Request) -> Lora:
        """Takes in a file (admin). Every number of it is checked; pickles are refused."""
        require_admin(request)
        _check_room(request, self.desk.shelf.root)
        try:
            async with request.form(max_files=1, max_fields=4) as form:
                file, name = form.get("file"), form.get("name")
                if not isinstance(file, UploadFile):
                    text = "Send the .safetensors file as the form field file."
                    raise InvalidRequest.of("file", "required", "is missing.", text)
                if unknown := set(form) - {"file", "name"}:
                    raise InvalidRequest.of(display_name(min(unknown)), "unknown_field", "is not taken here.")
                shelved = await run_in_threadpool(self._take, file, name if isinstance(name, str) else "")
        except (HTTPException, MultiPartException, UnicodeDecodeError, ValueError) as exc:
            raise Refused(400, "bad_form", "The form can't be read, or has too many fields or files.") from exc
        except ClientDisconnect as exc:
            raise Refused(400, "disconnected", "The client left.") from exc
        return await run_in_threadpool(self._shown, shelved, None)

    async def remove(self, request: Request, name: str) -> LoraDeleted:
        """Forgets a LoRA (admin). Queued jobs that use it fail, saying so."""
        require_admin(request)
        shelved = await run_in_threadpool(self._find, name)
        await run_in_threadpool(self.desk.shelf.remove, shelved.name)
        return LoraDeleted(name=shelved.name)

    def _list(self, model: str | None) -> LoraList:
        return LoraList(data=[self._shown(shelved, model) for shelved in self.desk.shelf.list()])

    def _inspect(self, name: str, model: str | None) -> Lora:
        return self._shown(self._find(name), model)

    def _find(self, name: str) -> Shelved:
        """Raises Refused where there is none."""
        try:
            return self.desk.shelf.get(name)
        except InvalidRequest as exc:
            raise Refused(404, "lora_not_found", "There is no such LoRA.") from exc

    def _take(self, file: UploadFile, name: str) -> Shelved:
        shown = display_name(file.filename or "")
        if not shown.lower().endswith(SUFFIX):
            raise InvalidRequest.of("file", "broken_lora", "is no .safetensors file by its name.")
        wanted = name.removesuffix(SUFFIX) or name_for(shown)
        if NAME.fullmatch(wanted) is None:
            hint = "Letters, digits, dot, underscore and hyphen, at most 64."
            raise InvalidRequest.of("name", "bad_name", "is not the name of a LoRA.", hint)
        try:
            return self.desk.shelf.take(file.file, wanted)
        except BrokenWeights as error:
            raise InvalidRequest.of("file", "broken_lora", error.message) from error

    def _shown(self, shelved: Shelved, model: str | None) -> Lora:
        specs = [spec for spec, installed in self.models() if installed] if model is None else [self.catalog.get(model)]
        return Lora(**self.desk.report(shelved, specs))


def _check_room(request: Request, shelf: Path) -> None:
    """Raises InsufficientStorage where what is announced would fill a disk: it lies there twice until it is judged."""
    announced = request.headers.get("content-length", "")
    size = int(announced[:20]) if announced.isdecimal() else 0
    existing = next(folder for folder in (shelf, *shelf.parents) if folder.exists())
    if any(2 * size > free_bytes(folder) for folder in (Path(tempfile.gettempdir()), existing)):
        raise InsufficientStorage(f"There is no room for {size / 2**20:.0f} MiB.")
