"""The queue's parts, joined: store, service and worker.

They are imported where they are built, as SQLAlchemy would slow down every other command.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wanreel.core.events import Event
from wanreel.core.failpoints import Failpoints
from wanreel.core.importing import without_collecting
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.settings import Settings
from wanreel.storage.digests import Digests

if TYPE_CHECKING:
    from wanreel.jobs import JobStore, Liveness
    from wanreel.jobs.checkup import Finding
    from wanreel.service import Service
    from wanreel.worker.arrangement import QueueLook
    from wanreel.worker.task import Task
    from wanreel.worker.worker import Worker


from wanreel.wiring.runtime import Runtime

_WORKERS_PATIENCE = 120.0  # seconds that a worker waits for the job database before it gives its work up


def build_store(settings: Settings, *, patience: float = 5.0) -> JobStore:
    """The job database: of the data directory, or on the server that the settings name. Raises StoreError.

    `patience`: seconds that calls wait for a server that is away.
    """
    from wanreel.jobs import JobStore

    data, url = settings.data, settings.database_url.get_secret_value()
    data.root.mkdir(parents=True, exist_ok=True)
    if not url:
        return JobStore.open(data.database, capacity=settings.max_queue_size, fault=settings.fault)
    return JobStore.open_server(
        url, data.root, patience=patience, capacity=settings.max_queue_size, fault=settings.fault
    )


def check_store(settings: Settings, url: str | None = None) -> tuple[Finding, ...]:
    """What the job database is and whether it can be relied on. Raises SettingsError, StoreError."""
    from wanreel.jobs.checkup import check_file, check_server

    url = url or settings.database_url.get_secret_value()
    return (
        check_server(url, settings.data.root, settings.worker_lease_seconds)
        if url
        else check_file(settings.data.database)
    )


def migrate_store(settings: Settings, url: str | None = None) -> tuple[str | None, str]:
    """Bring the job database to the present schema. Returns the schema before, None for none, and after."""
    from wanreel.jobs.checkup import migrate_path, migrate_url

    url = url or settings.database_url.get_secret_value()
    return migrate_url(url) if url else migrate_path(settings.data.database)


def copy_store(source: Path, target: str) -> Mapping[str, int]:
    """Copy a SQLite job database to an empty one on a server. Returns rows by table. Raises SettingsError, StoreError."""
    from wanreel.jobs.transfer import copy_jobs

    return copy_jobs(source, target)


def look_at_queue(settings: Settings) -> QueueLook:
    """What decides how GPUs are given to workers. An away database says nothing: an empty queue."""
    from wanreel.core.errors import StoreError
    from wanreel.core.job import JobStatus
    from wanreel.worker.arrangement import QueueLook

    try:
        with contextlib.closing(build_store(settings)) as store:
            state, latest = store.queue(), store.list(status=JobStatus.COMPLETED, limit=5)
            seconds = [it.seconds for job in latest for it in store.attempts(job.id)[-1:] if it.seconds]
    except StoreError:
        return QueueLook(0, 0.0)
    return QueueLook(state.queued + state.in_progress, sum(seconds) / len(seconds) if seconds else 0.0)


def build_liveness(settings: Settings, store: JobStore) -> Liveness:
    """What tells which workers of the store live."""
    from wanreel.jobs import Liveness, SharedLiveness

    folder = settings.data.workers
    return SharedLiveness(folder, store.leases, settings.worker_lease_seconds) if store.shared else Liveness(folder)


def build_service(runtime: Runtime, store: JobStore | None = None) -> Service:
    """The queue as front doors see it, over `store` or one of its own. Close it before the runtime."""
    from wanreel.service import Service
    from wanreel.worker.weights import same_weights

    settings = runtime.settings
    digests = Digests(settings.data.digests)
    store = store or build_store(settings)
    runtime.plan_records = runtime.plan_records or store.plans
    return Service(
        store=store,
        resolve=runtime.resolve,
        resolve_picture=runtime.resolve_picture,
        data=settings.data,
        results=settings.results_dir,
        time_limit=settings.job_time_limit,
        same_weights=lambda manifest: same_weights(manifest, runtime.catalog, runtime.weights_folder, digests),
        webhook_url=settings.outbound.webhook_url,
        gpu_price_per_hour=settings.gpu_price_per_hour,
        shared=runtime.shared,
    )


def build_worker(
    runtime: Runtime,
    *,
    supervised: bool = False,
    only: tuple[str, ...] = (),
    placed: bool = False,
    failpoints: Failpoints | None = None,
) -> Worker:
    """A worker on the runtime's device, not yet on the list of workers. Raises StoreError.

    A `supervised` one leaves when the process that started it has ended. `only`: the models that it makes, if not all.
    A `placed` one was given its GPUs by somebody who knows who has which, and may share them: it locks none.
    `failpoints`: what attempts call at their places, where it is not the settings' fault.
    """
    from wanreel.service import make_less
    from wanreel.service.uploader import build_uploader
    from wanreel.worker import storyboards, sweeps
    from wanreel.worker.gathering import Gatherer
    from wanreel.worker.retention import Retention
    from wanreel.worker.space import Reserve
    from wanreel.worker.taking import Taking
    from wanreel.worker.weights import weight_hashes
    from wanreel.worker.worker import Life, Worker
    from wanreel.worker.workshop import Workshop

    digests = Digests(runtime.settings.data.digests)
    settings = runtime.settings
    store = build_store(settings, patience=_WORKERS_PATIENCE)
    runtime.plan_records = store.plans
    films = storyboards.Films(store, settings.results_dir)
    sheets = sweeps.SweepSheets(store, settings.results_dir)
    labels = ["placed"] if placed else [device.replace(":", "-") for device in runtime.devices]
    life = Life.begin(settings.data.workers, labels, build_liveness(settings, store))
    shop = Workshop(
        store=store,
        render=lambda task: _render(runtime, task),
        spec_of=runtime.catalog.weights,
        weights_of=lambda spec: weight_hashes(runtime.weights_folder(spec), digests),
        data=settings.data,
        results=settings.results_dir,
        reserve=Reserve(life.name, settings.data.checkpoints, settings.results_dir),
        failpoints=failpoints or Failpoints(settings.fault),
        taking=Taking(store, settings.results_dir, runtime.pictures, _sharing(runtime)),
        gatherer=Gatherer(
            store,
            {storyboards.KIND: films.finish, sweeps.KIND: sheets.finish},
            {storyboards.KIND: films.sweep, sweeps.KIND: sheets.sweep},
        ),
        keep_free=int(settings.min_free_gb * 2**30),
        checkpoints=settings.checkpoints,
        batch=settings.part_batch,
        held=lambda: runtime.held,
        all_held=lambda: runtime.all_held,
        warm_up=runtime.warm_up,
        obey=lambda order: runtime.load(order.model) if order.verb == "load" else runtime.unload(order.model),
        sample_seconds=settings.stats_seconds,
        reduce=lambda job_id: make_less(build_service(runtime, store), job_id),
        uploader=build_uploader(settings, store) if settings.storage else None,
        states=runtime.shared.states if runtime.shared else None,
        only=only,
    )
    retention = Retention(
        store,
        settings.data.checkpoints,
        settings.keep_artifacts_days,
        settings.results_dir,
        settings.keep_uploaded_days,
    )
    worker = Worker(life, shop, retention, description=runtime.devices[0], supervised=supervised)
    runtime.last_words = worker.lost
    return worker


def _sharing(runtime: Runtime) -> Callable[[str], None]:
    """Puts a picture where workers on other machines find it, if there are any."""
    shared = runtime.shared
    return (lambda sha256: None) if shared is None else shared.pictures.share


def _render(runtime: Runtime, task: Task) -> Iterator[Event]:
    """Torch comes in here, with the first job: so a worker that was just started claims at once."""
    if runtime.shared is not None:
        from wanreel.service import blobs_of

        for sha256 in blobs_of(task.request):  # before minutes go into loading a model
            runtime.pictures.open(sha256)
    if isinstance(task.request, ResolvedRequest) and task.request.finishing.upscaler is not None:
        runtime.upscalers.check(task.request.finishing.upscaler)
    yield from runtime.supply.fetch(task.spec, task.keeper.token)
    with without_collecting():
        from wanreel.worker.renderer import draw_task, render_task

    if isinstance(task.request, ResolvedPicture):
        refiner = runtime.catalog.picture(task.request.refiner) if task.request.refiner else None
        if refiner is not None:
            yield from runtime.supply.fetch(refiner, task.keeper.token)
        yield from draw_task(runtime.pool, runtime.pictures, task, refiner)
        return
    editor = runtime.editor_of(task.request)
    if editor is not None:
        yield from runtime.supply.fetch(editor, task.keeper.token)
    share = runtime.settings.checkpoint_share
    yield from render_task(runtime.pool, runtime.pictures, (runtime.loras, runtime.upscalers), task, share, editor)
