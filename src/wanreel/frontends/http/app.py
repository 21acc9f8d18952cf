"""create_app: the HTTP front door as one ASGI app. Every request passes the guard first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from wanreel import __version__
from wanreel.frontends.fetcher import Fetcher, build_fetcher
from wanreel.frontends.http import errors, schema
from wanreel.frontends.http.depot_desk import DepotDesk
from wanreel.frontends.http.doorway import Doorway, MakePage
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.extensions import ExtensionRoutes
from wanreel.frontends.http.fastvideo import FastVideoRoutes
from wanreel.frontends.http.files_api import FileRoutes
from wanreel.frontends.http.guard import Exchange, Guard
from wanreel.frontends.http.house import House
from wanreel.frontends.http.images import ImageRoutes
from wanreel.frontends.http.intake import Intake
from wanreel.frontends.http.jobs import JobRoutes
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.http.library import LibraryRoutes
from wanreel.frontends.http.lightx2v import LightX2VRoutes
from wanreel.frontends.http.metrics import Metrics
from wanreel.frontends.http.models import ModelRoutes
from wanreel.frontends.http.news import News
from wanreel.frontends.http.operator import operator_routes
from wanreel.frontends.http.pictures import PictureDesk, Turnstile
from wanreel.frontends.http.prompts import PromptRoutes
from wanreel.frontends.http.pulse import Pulse
from wanreel.frontends.http.rates import Rates
from wanreel.frontends.http.recipes import RecipeRoutes
from wanreel.frontends.http.sessions import Links, Sessions
from wanreel.frontends.http.signin import ATTEMPTS, SignIn
from wanreel.frontends.http.sounds import SoundDesk
from wanreel.frontends.http.storage_api import StorageRoutes
from wanreel.frontends.http.storyboards import StoryboardRoutes
from wanreel.frontends.http.sweeps import SweepRoutes
from wanreel.frontends.http.system import SystemRoutes
from wanreel.frontends.http.unbuilt import unbuilt_routes
from wanreel.frontends.http.uploads import Uploads
from wanreel.frontends.http.videos import VideoRoutes
from wanreel.frontends.http.wakes import Wakes
from wanreel.frontends.http.webhooks import WebhookDesk, WebhookRoutes
from wanreel.frontends.own_storage import build_own_storage
from wanreel.frontends.prompt_help import PromptHelp
from wanreel.frontends.prompt_writer import build_writer
from wanreel.frontends.telemetry import NOT_TRACED, Tracing
from wanreel.frontends.webhooks import SigningSecrets, build_postman
from wanreel.models.tokens import TokenCounts
from wanreel.service import Service
from wanreel.service.uploader import build_uploader
from wanreel.wiring import Runtime, build_liveness, picture_specs_with_state, specs_with_state
from wanreel.worker.downloads import Downloads
from wanreel.worker.orders import Orders
from wanreel.worker.sampling import Probe

_log = logging.getLogger("wanreel.access")


@dataclass(frozen=True)
class HttpApp:
    """The app and what the server must tell it."""

    guard: Guard
    api: FastAPI
    house: House
    links: Links  #: makes sign-in links, for whoever started the server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.guard(scope, receive, send)

    def begin_to_stop(self) -> None:
        """Not ready from now on, and event streams end, so that connections close. For the event loop's thread."""
        self.house.stopping = True
        self.house.news.close()


def create_app(  # noqa: PLR0913 - one place joins all parts
    runtime: Runtime,
    service: Service,
    entrance: Entrance,
    keys: KeyRing,
    *,
    fetcher: Fetcher | None = None,
    submits_per_minute: int | None = None,
    make_page: MakePage | None = None,
    tracing: Tracing | None = None,
) -> HttpApp:
    """The API over a service. Raises SettingsError where others could come in without a key.

    `make_page` makes the web page; without it there is none.
    `fetcher` calls other servers where the operator's settings want that; by default one within those settings.
    """
    entrance.require_key(have=bool(keys))
    settings = runtime.settings
    outbound = settings.outbound
    fetcher = fetcher or build_fetcher(outbound)
    signing = SigningSecrets(
        settings.data.webhook_secret, outbound.webhook_secret.get_secret_value() if outbound.webhook_secret else ""
    )
    uploads = Uploads(settings.data.uploads)
    own = build_own_storage(outbound, fetcher)
    wakes = Wakes(service.store)
    house = House(
        service=service,
        models=lambda: specs_with_state(runtime),
        picture_models=lambda: picture_specs_with_state(runtime),
        downloads=Downloads(runtime.supply.registry, settings.data.digests),
        orders=Orders(settings.data.workers),
        worker_lives=build_liveness(settings, service.store).is_alive,
        min_free_bytes=int(settings.min_free_gb * 2**30),
        desk=PictureDesk(Turnstile(runtime.take_picture), uploads, fetcher.get if outbound.pictures else None),
        sounds=SoundDesk(runtime.take_sound, uploads),
        depots=DepotDesk(service, own, build_uploader(settings, service.store, own.open)),
        webhooks=WebhookDesk(signing, fetcher if outbound.webhooks else None),
        uploads=uploads,
        news=News(service, wakes),
        rates=Rates(time.monotonic, submits_per_minute),
        pulse=Pulse(service, Probe(settings.data.root, "cpu"), settings.stats_seconds, wakes),
        outlook=lambda resolution: runtime.forecast.outlook(resolution),
    )
    metrics = Metrics(house)
    postman = build_postman(service.store.outbox, fetcher, signing, outbound.webhook_url)
    recipes = RecipeRoutes(house, runtime.pictures.has).router()
    intake = Intake(house, time.monotonic)
    page = make_page(house, intake) if make_page is not None else None
    background = (house.news.tell, house.pulse.run, postman.run, *((page.run,) if page is not None else ()))
    storage = StorageRoutes(house, tuple(sorted(settings.storage)), settings.default_storage).router()
    helper = PromptHelp(runtime, build_writer(settings.prompt_help), TokenCounts(runtime.shelf))
    prompts = PromptRoutes(house, helper, runtime.pictures.open).router()
    more = (recipes, prompts, storage, unbuilt_routes(), *operator_routes(runtime, service, keys, entrance))
    api = _api(house, wakes, intake, metrics, entrance, background, more, tracing)

    def observe(exchange: Exchange) -> None:
        metrics.count(exchange)
        _log_exchange(exchange)

    links = Links(keys, time.monotonic)
    sessions = Sessions(settings.data.session_secret, time.time)
    sign_in = SignIn(entrance, keys, sessions, links, Rates(time.monotonic, ATTEMPTS))
    behind = api if page is None else Doorway(api, page)
    return HttpApp(Guard(behind, entrance, keys, observe, time.monotonic, sign_in), api, house, links)


def _api(  # noqa: PLR0913 - the parts of one app
    house: House,
    wakes: Wakes,
    intake: Intake,
    metrics: Metrics,
    entrance: Entrance,
    background: Iterable[Callable[[], Coroutine[Any, Any, None]]],
    more: Iterable[APIRouter],
    tracing: Tracing | None,
) -> FastAPI:
    """The routes behind the guard. `background` runs as long as the app does."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        tasks = [asyncio.create_task(work()) for work in background]
        house.depots.uploader.start()
        try:
            async with wakes.listening():
                yield
        finally:
            house.stopping = True  # whoever waits for a video has left nobody: its job goes on
            house.news.close()
            await run_in_threadpool(house.depots.uploader.close)
            await run_in_threadpool(house.downloads.close)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    api = FastAPI(
        title="Wanreel",
        version=__version__,
        summary="Videos from prompts and pictures with the open Wan models.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from elsewhere
        redoc_url=None,
        servers=[{"url": entrance.url}],
        root_path_in_servers=False,
        separate_input_output_schemas=False,
        telemetry=tracing.for_requests() if tracing is not None else NOT_TRACED,
    )
    errors.install(api)
    storyboards = StoryboardRoutes(house)
    videos = VideoRoutes(house, intake, storyboards)
    native = (
        ExtensionRoutes(house, intake),
        videos,
        storyboards,
        SweepRoutes(house),
        ImageRoutes(house, intake, videos, entrance.url),
        LibraryRoutes(house),
        JobRoutes(house, intake),
        FileRoutes(house),
        ModelRoutes(house),
        SystemRoutes(house, metrics),
        WebhookRoutes(house.webhooks),
    )
    adapters = (FastVideoRoutes(house, intake, videos, metrics.registry), LightX2VRoutes(house, intake))
    for routes in (*native, *adapters):
        api.include_router(routes.router())
    for router in more:
        api.include_router(router)
    _complete_document(api)
    _know_routes(api)
    return api


def _know_routes(api: FastAPI) -> None:
    """Have FastAPI work out what each route takes. Otherwise it does when the first request comes, which then waits."""
    nowhere = {"type": "http", "method": "GET", "path": "/-", "root_path": "", "headers": []}
    for route in api.router.routes:
        route.matches(nowhere)


def _complete_document(api: FastAPI) -> None:
    """Say in the OpenAPI document how to bring a key, which the guard checks and not FastAPI, and what errors look like."""
    build = api.openapi

    def openapi() -> dict[str, Any]:
        known = api.openapi_schema is not None
        document = build()
        if not known:
            components = document.setdefault("components", {})
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            components["schemas"] = schema.error_schemas() | components.get("schemas", {})
            document["security"] = [{"key": []}, {}]
        return document

    api.openapi = openapi


def _log_exchange(exchange: Exchange) -> None:
    """One line of JSON-safe fields. Never the query or a header: they may hold what is secret."""
    _log.info(
        "request",
        extra={
            "method": exchange.method,
            "path": exchange.path,
            "status": exchange.status,
            "seconds": round(exchange.seconds, 4),
            "request_id": exchange.request_id,
            "owner": exchange.owner,
        },
    )
