"""Models: what can be run and what is installed; downloads begun, paused, checked and taken away."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from wanreel.core.picture_models import PictureSpec
from wanreel.core.work import AnySpec
from wanreel.frontends.http import schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House, require_admin
from wanreel.frontends.http.schema import Wire
from wanreel.models.registry import Progress


class DownloadState(Wire):
    """How far a model's download, or its verification, is."""

    state: Literal["starting", "downloading", "paused", "interrupted", "failed", "complete", "verifying", "damaged"]
    received_bytes: int  #: or, while verifying, bytes read
    total_bytes: int  #: 0 while unknown
    file: str
    message: str | None  #: why it failed or what is damaged; for admins


class Model(Wire):
    """A model, as OpenAI shows it, with the facts that matter."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    title: str
    installed: bool
    modes: list[str]
    fps: float
    num_frames: int
    num_inference_steps: int
    sizes: list[str]
    parameters: str
    licence: str
    repository: str | None  #: on the model hub; null for models that are not downloaded
    size_bytes: int | None  #: of the files that were downloaded; null while unknown
    qualified: bool
    builtin: bool
    download: DownloadState | None


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: list[Model]


class ModelDeleted(Wire):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
    freed_bytes: int


class ModelRoutes:
    """The routes, over one House."""

    def __init__(self, house: House) -> None:
        self._house = house

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/models", tags=["models"])
        get, post, one = router.get, router.post, "/{model_id}"
        errors: dict[int | str, dict[str, Any]] = schema.ERRORS
        get("", response_model=ModelList, responses=errors, summary="List the models")(self.models)
        get(one, response_model=Model, responses=errors, summary="Look at a model")(self.model)
        pull = post(f"{one}/pull", status_code=202, response_model=Model, responses=errors, summary="Download a model")
        pull(self.pull)
        pause = post(f"{one}/pull/pause", response_model=Model, responses=errors, summary="Pause a download")
        pause(self.pause)
        verify = post(f"{one}/verify", status_code=202, response_model=Model, responses=errors, summary="Check a model")
        verify(self.verify)
        load = post(f"{one}/load", status_code=202, response_model=Model, responses=errors, summary="Load a model")
        load(self.load)
        unload = post(
            f"{one}/unload", status_code=202, response_model=Model, responses=errors, summary="Unload a model"
        )
        unload(self.unload)
        router.delete(one, response_model=ModelDeleted, responses=errors, summary="Delete a model's files")(self.delete)
        return router

    async def models(self, request: Request, makes: Literal["videos", "images"] = "videos") -> ModelList:
        """Every model that makes videos, installed ones marked; with `makes=images` those that make pictures."""
        shown = await run_in_threadpool(self._shown, admin=caller_of(request).is_admin)
        return ModelList(data=[model for model in shown if (model.modes == ["image"]) == (makes == "images")])

    async def model(self, request: Request, model_id: str) -> Model:
        """One model."""
        return await run_in_threadpool(self._one, model_id, admin=caller_of(request).is_admin)

    async def pull(self, request: Request, model_id: str) -> Model:
        """Start to download the model, or go on (admin). `download` in GET /v1/models tells how far it is."""
        require_admin(request)
        spec = await run_in_threadpool(self._spec, model_id)
        await run_in_threadpool(self._house.downloads.pull, spec)
        return await run_in_threadpool(self._one, model_id, admin=True)

    async def pause(self, request: Request, model_id: str) -> Model:
        """Stop the download, within seconds, and keep what arrived (admin)."""
        require_admin(request)
        spec = await run_in_threadpool(self._spec, model_id)
        await run_in_threadpool(self._house.downloads.pause, spec)
        return await run_in_threadpool(self._one, model_id, admin=True)

    async def verify(self, request: Request, model_id: str) -> Model:
        """Start to read every byte of the model's files (admin); `download` ends as complete or damaged."""
        require_admin(request)
        spec = await run_in_threadpool(self._spec, model_id)
        await run_in_threadpool(self._house.downloads.verify, spec)
        return await run_in_threadpool(self._one, model_id, admin=True)

    async def load(self, request: Request, model_id: str) -> Model:
        """Ask the workers to bring the model into memory (admin). One at work does so when its job has ended."""
        return await self._order(request, "load", model_id)

    async def unload(self, request: Request, model_id: str) -> Model:
        """Ask the workers to free the model's memory (admin). One at work does so when its job has ended."""
        return await self._order(request, "unload", model_id)

    async def _order(self, request: Request, verb: Literal["load", "unload"], model_id: str) -> Model:
        require_admin(request)
        shown = await run_in_threadpool(self._one, model_id, admin=True)
        if verb == "load" and not shown.installed:
            raise Refused(
                409, "model_not_installed", "The weights of this model are not on this server: pull it first."
            )
        await run_in_threadpool(self._house.orders.give, verb, shown.id)
        return shown

    async def delete(self, request: Request, model_id: str) -> Response:
        """Delete what was downloaded of the model (admin)."""
        require_admin(request)
        spec = await run_in_threadpool(self._spec, model_id)
        freed = await run_in_threadpool(self._house.downloads.remove, spec)
        return Response(ModelDeleted(id=spec.name, freed_bytes=freed).model_dump_json(), media_type="application/json")

    # Blocking

    def _all(self) -> list[tuple[AnySpec, bool]]:
        return [*self._house.models(), *self._house.picture_models()]

    def _spec(self, model_id: str) -> AnySpec:
        for spec, _ in self._all():
            if spec.name == model_id:
                return spec
        raise Refused(404, "model_not_found", "There is no such model.")

    def _one(self, model_id: str, *, admin: bool) -> Model:
        for model in self._shown(admin=admin):
            if model.id == model_id:
                return model
        raise Refused(404, "model_not_found", "There is no such model.")

    def _shown(self, *, admin: bool) -> list[Model]:
        downloads = self._house.downloads
        states, pins = downloads.progresses(), downloads.pins()
        return [
            _model(
                spec,
                installed=installed,
                size=pins[spec.name].size if spec.name in pins else None,
                download=_state(states.get(spec.name), admin=admin),
            )
            for spec, installed in self._all()
        ]


def _state(progress: Progress | None, *, admin: bool) -> DownloadState | None:
    if progress is None:
        return None
    return DownloadState(
        state=progress.state,
        received_bytes=progress.received_bytes,
        total_bytes=progress.total_bytes,
        file=progress.file,
        message=progress.message or None if admin else None,
    )


def _model(spec: AnySpec, *, installed: bool, size: int | None, download: DownloadState | None) -> Model:
    return Model(
        id=spec.name,
        owned_by=(spec.hub_id or "wanreel").partition("/")[0],
        title=spec.title,
        installed=installed,
        num_inference_steps=spec.steps,
        **_shape(spec),
        parameters=spec.parameters,
        licence=spec.licence,
        repository=spec.hub_id,
        size_bytes=size,
        qualified=spec.qualified,
        builtin=spec.builtin,
        download=download,
    )


def _shape(spec: AnySpec) -> dict[str, Any]:
    """What it makes."""
    if isinstance(spec, PictureSpec):
        return {"modes": ["image"], "fps": 0.0, "num_frames": 1, "sizes": [f"{spec.width}x{spec.height}"]}
    sizes = [f"{size.width}x{size.height}" for size in spec.sizes.values()]
    return {"modes": list(spec.modes), "fps": spec.fps, "num_frames": spec.num_frames, "sizes": sizes}
