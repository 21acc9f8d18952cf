"""/v1/storyboards: scenes that become one video. Each route only translates; what it means is in `service.storyboards`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job, JobStatus
from wanreel.core.picture import PictureRef
from wanreel.core.storyboard import Scene, Storyboard, parse_storyboard
from wanreel.frontends.http import files, schema
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import read_json, take_only
from wanreel.frontends.http.group_desk import GroupDesk
from wanreel.frontends.http.guard import caller_of
from wanreel.frontends.http.house import House
from wanreel.frontends.http.intake import idempotency_key
from wanreel.frontends.http.keys import Caller
from wanreel.frontends.http.schema import Upload, Webhook, Wire, progress_of
from wanreel.frontends.http.storyboard_schema import BOARD, CHANGES, NEW_BOARD, ORDER
from wanreel.frontends.storyboard_file import with_first_picture
from wanreel.service import Terms, request_of
from wanreel.service.storyboards import Storyboards, StoryboardView, changed


class SceneState(Wire):
    """A scene and how its clip fares."""

    number: int = Field(description="From 1.")
    scene: dict[str, Any] = Field(description="As asked.")
    start: Literal["previous", "keyframe", "anchor", "text"]
    video: str = Field(description="Id of the clip: GET /v1/videos/{id}.")
    status: JobStatus
    progress: int = Field(ge=0, le=100)
    seed: int
    error: str | None
    after: list[str] = Field(description="Clips that it goes on from.")
    drift: float | None = Field(description="How far its colours are from those of the first of its run, ΔE; as made.")
    shown_drift: float | None = Field(description="The same as shown, where colours are drawn together.")
    begins_at: float | None = Field(description="Second in the film; null while it is not in it.")


class Film(Wire):
    """The scenes that are there, joined."""

    num_frames: int
    fps: float
    seconds: float
    size: str
    size_bytes: int
    sha256: str
    copied: bool = Field(description="Whether no frame was encoded again to join them.")
    why: str = Field(description="Why frames were, where they were.")
    scenes: int = Field(description="How many it holds, from the first on.")
    whole: bool = Field(description="Whether these are all, as they are now.")


class StoryboardState(Wire):
    id: str
    object: Literal["storyboard"] = "storyboard"
    title: str
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"]
    progress: int = Field(ge=0, le=100)
    created_at: int
    settings: dict[str, Any] = Field(description="What counts for all scenes.")
    scenes: list[SceneState]
    film: Film | None = Field(description="Null until the first scene is there.")
    webhook: Webhook | None = Field(description="Null when nobody is to be told.")
    upload: Upload | None = Field(description="Of the whole film; null when it stays on the server.")
    error: str | None


class StoryboardList(Wire):
    object: Literal["list"] = "list"
    data: list[StoryboardState]
    has_more: bool


class DeletedStoryboard(Wire):
    id: str
    object: Literal["storyboard.deleted"] = "storyboard.deleted"
    deleted: bool = True


class StoryboardRoutes:
    """The routes, over one House."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._boards = Storyboards(house.service)
        self._desk = GroupDesk(house, self._boards)

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/storyboards", tags=["storyboards"], responses=schema.ERRORS)
        one = "/{storyboard_id}"
        router.post("", openapi_extra=NEW_BOARD, summary="Queue a storyboard")(self.create)
        router.get("", response_model=StoryboardList, summary="List your storyboards")(self.list)
        router.get(one, summary="Look at a storyboard")(self.retrieve)
        router.put(one, openapi_extra=BOARD, summary="Take another storyboard in its place")(self.replace)
        router.delete(one, response_model=DeletedStoryboard, summary="Stop and forget a storyboard")(self.delete)
        router.patch(one + "/scenes/{number}", openapi_extra=CHANGES, summary="Change a scene")(self.change)
        router.post(one + "/scenes/{number}/redo", openapi_extra=CHANGES, summary="Make a scene again")(self.redo)
        router.post(one + "/order", openapi_extra=ORDER, summary="Reorder the scenes")(self.order)
        router.post(one + "/cancel", summary="Stop a storyboard")(self.cancel)
        router.post(one + "/retry", summary="Go on with a storyboard")(self.retry)
        film: dict[int | str, dict[str, Any]] = {200: {"content": {"video/mp4": {}}, "description": "The film."}}
        router.get(one + "/content", response_class=Response, responses=film, summary="Fetch the film")(self.content)
        return router

    async def create(self, request: Request) -> StoryboardState:
        """Queues every scene as a video, and joins them as they come. Give an Idempotency-Key to be safe against doubles.

        Pictures are base64, data: URLs or ids of uploads. `reference_image` is the first scene's keyframe.
        """
        return await self.accept(request, await read_json(request))

    async def accept(self, request: Request, values: dict[str, object]) -> StoryboardState:
        """The same of a body that was read already."""
        return await run_in_threadpool(self._create, caller_of(request), values, idempotency_key(request))

    def _create(self, caller: Caller, values: dict[str, object], key: str | None) -> StoryboardState:
        self._house.rates.take(caller)
        asked = with_first_picture(values)
        url = self._house.webhooks.accept(asked.pop("webhook_url", None))
        board = self._parsed(caller, asked)
        return self._shown(self._boards.create(board, Terms(caller.owner, idempotency_key=key, webhook_url=url)))

    async def list(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> StoryboardList:
        """Your storyboards, newest first; `after` is the last id of the page before."""
        found, more = await run_in_threadpool(self._desk.page, caller_of(request), after, limit)
        return StoryboardList(data=[await run_in_threadpool(self._listed, view) for view in found], has_more=more)

    async def retrieve(self, request: Request, storyboard_id: str) -> StoryboardState:
        """How a storyboard stands."""
        return self._shown(await self._desk.asked(request, storyboard_id))

    async def replace(self, request: Request, storyboard_id: str) -> StoryboardState:
        """Makes again what is not as it was, and nothing else. Scenes may be added, left out and reordered."""
        values, caller = await read_json(request), caller_of(request)

        def body() -> StoryboardState:
            view = self._desk.of(caller, storyboard_id)
            self._house.rates.take(caller)
            board = self._parsed(caller, values, view.board)
            return self._shown(self._boards.replace(view.group.id, board))

        return await run_in_threadpool(body)

    async def change(self, request: Request, storyboard_id: str, number: int) -> StoryboardState:
        """Changes fields or knobs of a scene; null takes one away. It and those that depend on it are made again."""
        values, caller = await read_json(request), caller_of(request)

        def body() -> StoryboardState:
            view = self._desk.of(caller, storyboard_id)
            self._house.rates.take(caller)
            place = _place(view, number)
            scenes = list(view.board.scenes)
            scenes[place] = changed(view.board, place, self._pictures(caller, values, view.board))
            return self._shown(self._boards.revise(view.group.id, replace(view.board, scenes=tuple(scenes))))

        return await run_in_threadpool(body)

    async def redo(self, request: Request, storyboard_id: str, number: int) -> StoryboardState:
        """Makes a scene again, with changes or else with another seed, and those that depend on it."""
        values, caller = await read_json(request, empty=True), caller_of(request)

        def body() -> StoryboardState:
            view = self._desk.of(caller, storyboard_id)
            self._house.rates.take(caller)
            changes = self._pictures(caller, values, view.board)
            return self._shown(self._boards.redo(view.group.id, _place(view, number), changes))

        return await run_in_threadpool(body)

    async def order(self, request: Request, storyboard_id: str) -> StoryboardState:
        """Reorders scenes: `order` has the present numbers. What depends on another scene now is made again."""
        values, caller = await read_json(request), caller_of(request)
        take_only(values, "order")

        def body() -> StoryboardState:
            view = self._desk.of(caller, storyboard_id)
            order, count = values.get("order"), len(view.board.scenes)
            numbers = cast("list[object]", order) if isinstance(order, list) else []
            if sorted(number for number in numbers if isinstance(number, int)) != list(range(1, count + 1)):
                raise InvalidRequest.of("order", "wrong_type", f"must hold each of 1 to {count} once.")
            scenes = tuple(view.board.scenes[cast("int", number) - 1] for number in numbers)
            return self._shown(self._boards.revise(view.group.id, replace(view.board, scenes=scenes)))

        return await run_in_threadpool(body)

    async def cancel(self, request: Request, storyboard_id: str) -> StoryboardState:
        """Stops every scene that has not ended."""
        return self._shown(await self._desk.cancel(request, storyboard_id))

    async def retry(self, request: Request, storyboard_id: str) -> StoryboardState:
        """Queues every scene again that failed or was cancelled; each goes on from its last step."""
        return self._shown(await self._desk.retry(request, storyboard_id))

    async def delete(self, request: Request, storyboard_id: str) -> DeletedStoryboard:
        """Stops it, and deletes it with its clips and the film."""
        await self._desk.delete(request, storyboard_id)
        return DeletedStoryboard(id=storyboard_id)

    async def content(self, request: Request, storyboard_id: str) -> Response:
        """The scenes that are there so far, joined from the first on. One Range is served."""
        view = await self._desk.asked(request, storyboard_id)
        path = await run_in_threadpool(self._boards.path, view)
        if path is None or view.film is None:
            raise Refused(404, "not_ready", "No scene is there yet.")
        return files.served(request, path, view.film["media_type"])

    # From and to the wire

    def _parsed(self, caller: Caller, values: Mapping[str, object], before: Storyboard | None = None) -> Storyboard:
        kept = _kept(before) if before is not None else {}

        def take(value: object, name: str) -> PictureRef:
            if isinstance(value, Mapping) and (known := kept.get(str(cast("Mapping[str, Any]", value).get("sha256")))):
                return known
            return self._house.desk.accept(caller.owner, "image", value)

        return parse_storyboard(values, take)

    def _pictures(self, caller: Caller, values: Mapping[str, object], board: Storyboard) -> dict[str, object]:
        """Changes of a scene with the pictures among them taken in."""
        kept, taken = _kept(board), dict(values)
        for name in ("keyframe", "end_keyframe"):
            value = taken.get(name)
            known = (
                kept.get(str(cast("Mapping[str, Any]", value).get("sha256"))) if isinstance(value, Mapping) else None
            )
            if value is not None:
                taken[name] = known or self._house.desk.accept(caller.owner, "image", value)
        return taken

    def _listed(self, view: StoryboardView) -> StoryboardState:
        return self._shown(view, addresses=False)

    def _shown(self, view: StoryboardView, *, addresses: bool = True) -> StoryboardState:
        film = view.film
        clips = {clip["job"]: clip for clip in film["clips"]} if film else {}
        scenes = [
            self._scene(view, job.cell or 0, job, clips.get(job.id), film["fps"] if film else 1.0) for job in view.jobs
        ]
        share = sum(scene.progress for scene in scenes) // max(1, len(scenes))
        done = view.status == "completed"
        settings = {name: value for name, value in view.board.to_dict().items() if name not in ("scenes", "title")}
        return StoryboardState(
            id=view.group.id,
            title=view.group.title,
            status=cast("Any", view.status),
            progress=100 if done else min(99, share),
            created_at=int(view.group.created_at),
            settings=settings,
            scenes=scenes,
            film=_film(view),
            webhook=self._desk.webhook(view),
            upload=self._desk.upload(view, addresses=addresses),
            error=_error(view),
        )

    def _scene(
        self, view: StoryboardView, place: int, job: Job, clip: Mapping[str, Any] | None, fps: float
    ) -> SceneState:
        scene = view.board.scenes[place] if place < len(view.board.scenes) else Scene(prompt="")
        return SceneState(
            number=place + 1,
            scene=scene.to_dict(),
            start=view.board.start(place),
            video=job.id,
            status=job.status,
            progress=progress_of(job),
            seed=request_of(job).seed,
            error=f"{job.error.message} {job.error.hint}".strip() if job.error else None,
            after=sorted({after.job_id for after in self._house.service.store.groups.afters(job.id)}),
            drift=clip["drift"] if clip else None,
            shown_drift=clip["shown_drift"] if clip else None,
            begins_at=round(clip["start"] / fps, 3) if clip else None,
        )


def _error(view: StoryboardView) -> str | None:
    if view.missing:
        numbers = ", ".join(str(place + 1) for place in view.missing)
        return f"The clip of scene {numbers} was deleted. Redo it."
    return f"{view.group.error[1]} {view.group.error[2]}".strip() if view.group.error else None


def _film(view: StoryboardView) -> Film | None:
    film = view.film
    if film is None:
        return None
    return Film(
        num_frames=film["num_frames"],
        fps=film["fps"],
        seconds=round(film["num_frames"] / film["fps"], 3),
        size=f"{film['width']}x{film['height']}",
        size_bytes=film["size"],
        sha256=film["sha256"],
        copied=film["copied"],
        why=film["why"],
        scenes=len(film["clips"]),
        whole=view.whole,
    )


def _kept(board: Storyboard) -> dict[str, PictureRef]:
    """Pictures that are in the storyboard already, which a client may name by their content."""
    pictures = (picture for scene in board.scenes for picture in (scene.keyframe, scene.end_keyframe))
    return {picture.sha256: picture for picture in pictures if picture is not None}


def _place(view: StoryboardView, number: int) -> int:
    if not 1 <= number <= len(view.board.scenes):
        raise Refused(404, "scene_not_found", f"There is no scene {number}; it has {len(view.board.scenes)}.")
    return number - 1
