"""build_runtime: the only place where parts are joined. Torch comes in with the first generation, not before."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, BinaryIO, cast

from wanreel.core.alternatives import Outlook
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, Mode, ModelSpec
from wanreel.core.errors import InvalidRequest, ModelNotInstalled, SettingsError, UnreadablePicture, UnreadableRecipe
from wanreel.core.events import Downloading, Event
from wanreel.core.importing import without_collecting
from wanreel.core.machines import CARDS, GIB, Machine, card_named, machine_of, machine_of_card
from wanreel.core.memory import MemoryPlan
from wanreel.core.picture import PictureRef
from wanreel.core.picture_models import DEFAULT, PictureSpec
from wanreel.core.picture_request import PictureRequest, PictureResolution, ResolvedPicture, resolve_picture
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Adjustment, Resolution, ResolvedRequest
from wanreel.core.settings import Settings
from wanreel.core.work import AnySpec, Work, work_from_dict
from wanreel.host import free_memory, nvidia_gpus
from wanreel.media.pictures import MAX_BYTES, read_picture
from wanreel.media.recipe import read_recipe, recipe_in
from wanreel.models.formats.assembly import Assembly, added_rows
from wanreel.models.lora.report import LoraDesk
from wanreel.models.lora.shelf import LoraShelf, Shelved, name_for
from wanreel.models.shelf import Shelf, is_tiny
from wanreel.storage.digests import Digests
from wanreel.storage.disk import Blobs, BlobStore
from wanreel.storage.keeping import Keeping

if TYPE_CHECKING:
    import torch

    from wanreel.jobs import JobStore, Liveness
    from wanreel.jobs.checkup import Finding
    from wanreel.models.load import Memory
    from wanreel.models.planning import Planner, PlanRecords
    from wanreel.models.pool import ModelPool
    from wanreel.models.qualify import QualifyReport
    from wanreel.models.registry import Registry
    from wanreel.service import Service
    from wanreel.storage.shared import Shared
    from wanreel.worker.attempt import Task
    from wanreel.worker.verify import Verdict
    from wanreel.worker.worker import Worker


_WORKERS_PATIENCE = 120.0  # seconds that a worker waits for the job database before it gives its work up
_CONTEXT = int(0.6 * GIB)  # of a GPU, taken by the driver and the CUDA context


@dataclass
class Runtime:
    """Everything one process needs to turn requests into videos. Close it to free the model."""

    settings: Settings
    catalog: Catalog
    shelf: Shelf
    pictures: Blobs
    loras: LoraShelf
    shared: Shared | None = None  #: what workers on other machines find
    plan_records: PlanRecords | None = field(default=None, repr=False)  #: of runs before this process
    _pool: ModelPool | None = field(default=None, repr=False)
    _planner: Planner | None = field(default=None, repr=False)
    _registry: Registry | None = field(default=None, repr=False)

    def take_picture(self, data: bytes, knob: str = "image", into: Blobs | None = None) -> PictureRef:
        """Check and clean a picture and keep it `into`, or in the data directory. Raises UnreadablePicture naming `knob`."""
        picture = read_picture(data, knob)
        kept = self.pictures if into is None else into
        return PictureRef(kept.put(picture.png), picture.width, picture.height, picture.notes)

    def take_picture_file(self, path: Path, knob: str = "image") -> PictureRef:
        """The same from a file. For local front doors alone: no request field is ever a path."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as exc:
            raise UnreadablePicture.of(knob, "unreadable_picture", f"{path} can't be read: {exc.strerror}.") from exc
        return self.take_picture(data, knob)

    def take_lora_file(self, path: Path) -> Shelved:
        """Put a LoRA file on the shelf, to be used where it lies. For local front doors alone, as above.

        Where its name is another file's, a part of its SHA-256 is added. Raises BrokenWeights, InvalidRequest.
        """
        try:
            return self.loras.add(path, keep=True)
        except InvalidRequest:
            digest = Digests(self.settings.data.digests).of(path)
            return self.loras.add(path, f"{name_for(path.name)[:55]}-{digest[:8]}", keep=True)

    def defaults(self) -> Defaults:
        """What resolve must know of this machine and its operator."""
        models: dict[Mode, str] = {
            "text": self.settings.default_text_model,
            "picture": self.settings.default_picture_model,
            "first_last": self.settings.default_first_last_model,
        }
        return Defaults(
            models,
            self.shelf.installed(self.catalog),
            lora_names=tuple(lora.name for lora in self.loras.list()),
            lora=self.lora_desk.facts,
            storages=tuple(sorted(self.settings.storage)),
            storage=self.settings.default_storage,
            wishes=self.settings.wishes,
            on_oom=self.settings.on_oom,
        )

    @property
    def lora_desk(self) -> LoraDesk:
        """What judges LoRAs for models."""
        return LoraDesk(self.loras, lambda spec: self.shelf.folder(spec) if self._has_folder(spec) else None)

    def _has_folder(self, spec: ModelSpec) -> bool:
        return not is_tiny(spec) and self.shelf.has(spec)

    def resolve(self, request: VideoRequest) -> Resolution:
        """What will run. Raises InvalidRequest naming every problem, or ModelNotInstalled."""
        resolution = resolve(request, self.catalog, self.defaults())
        return resolution if self.shelf.has(resolution.spec) else self._to_download(resolution)

    def _to_download(self, resolution: Resolution) -> Resolution:
        """The same with a word on what is downloaded first. Raises ModelNotInstalled where that may not be."""
        return replace(resolution, adjustments=(*resolution.adjustments, self._download_note(resolution.spec)))

    def resolve_picture(self, request: PictureRequest) -> PictureResolution:
        """What will run. Raises InvalidRequest naming every problem, or ModelNotInstalled."""
        resolution = resolve_picture(request, self.catalog.picture, DEFAULT)
        models = [spec for spec in (resolution.spec, resolution.refiner) if spec is not None]
        notes = tuple(self._download_note(spec) for spec in models if not self.shelf.has(spec))
        return replace(resolution, adjustments=(*resolution.adjustments, *notes))

    def _download_note(self, spec: AnySpec) -> Adjustment:
        """That the model's weights are downloaded first. Raises ModelNotInstalled where that may not be."""
        if not self.downloads(spec):
            if spec.hub_id is not None and not self.settings.download:
                raise ModelNotInstalled(
                    f"{spec.name} is not installed, and downloads are off.", hint=f"`wanreel models pull {spec.name}`."
                )
            self.shelf.folder(spec)  # raises, saying where it looked
        size = self.registry.size(spec)
        amount = "of a size that the hub does not tell now" if size is None else f"{size / 1e9:.1f} GB"
        return Adjustment("model", None, spec.name, f"downloaded first: {amount}, {spec.licence}, from {spec.hub_id}")

    @property
    def registry(self) -> Registry:
        """What brings weights from the hub."""
        if self._registry is None:
            from wanreel.models.registry import Hub, Registry

            self._registry = Registry(
                root=self.settings.weights_dir,
                hub=Hub(self.settings.hub_endpoint, offline=self.settings.offline),
                digests=Digests(self.settings.data.digests),
                keep_free=int(self.settings.min_free_gb * 2**30),
            )
        return self._registry

    def downloads(self, spec: AnySpec) -> bool:
        """Whether the weights of `spec` are downloaded when they are needed and not here."""
        pulled = spec.hub_id is not None and not spec.builtin and spec.name not in self.shelf.own_folders
        return pulled and self.settings.download and not self.registry.hub.silent

    def fetch(self, spec: AnySpec, cancel: CancelToken) -> Iterator[Event]:
        """Bring the weights of `spec` if they are not here and may be downloaded."""
        if self.shelf.has(spec) or not self.downloads(spec):
            return
        for progress in self.registry.pull(spec, cancel):
            yield Downloading(spec.name, progress.received_bytes, progress.total_bytes)

    def check_weights(self, spec: AnySpec) -> None:
        """Before weights are read: that those that were downloaded are what they were. Raises BrokenWeights."""
        folder = self.shelf.folder(spec)
        assembly = Assembly.read(folder)
        if assembly is not None:
            self.registry.check_paths(path for _, path in assembly.files())
        elif folder == self.registry.folder(spec):
            self.registry.check(spec)

    def generate(
        self, resolution: Resolution, cancel: CancelToken | None = None, keeping: Keeping | None = None
    ) -> Generator[Event]:
        """Run it here and now. The caller owns the loop; closing the iterator stops and leaves nothing behind.

        With `keeping`, what another process did of the same work is not done again.
        """
        with without_collecting():
            from wanreel.generation.render import Target, render
            from wanreel.worker.renderer import render_kept

        cancel = cancel or CancelToken()
        yield from self.fetch(resolution.spec, cancel)
        if keeping is not None:
            share = self.settings.checkpoint_share
            yield from render_kept(self.pool, resolution, self.loras, keeping, cancel, share)
            return
        target = Target(self.settings.results_dir, self.pictures, loras=self.loras)
        yield from render(self.pool, resolution, target, cancel)

    def draw(
        self, resolution: PictureResolution, cancel: CancelToken | None = None, keeping: Keeping | None = None
    ) -> Generator[Event]:
        """The same for pictures. Nothing is saved on the way; `keeping` says what the files are called."""
        with without_collecting():
            from wanreel.generation.draw import draw
            from wanreel.generation.picture_export import SheetTarget

        cancel = cancel or CancelToken()
        for spec in (resolution.spec, resolution.refiner):
            if spec is not None:
                yield from self.fetch(spec, cancel)
        target = SheetTarget(self.settings.results_dir, self.pictures)
        if keeping is not None:
            target = SheetTarget(keeping.results, keeping.pictures, keeping.stem)
        yield from draw(self.pool, resolution, target, cancel)

    def recipe_values(self, video: Path) -> dict[str, object]:
        """The knobs that make the video in `video` again, for `VideoRequest.from_mapping`. Raises UnreadableRecipe."""
        request = read_request(video).as_request()
        values = {name: getattr(request, name) for name in VideoRequest.__dataclass_fields__}
        for knob in ("image", "last_image"):
            picture = values[knob]
            if picture is not None and not self.pictures.has(picture.sha256):
                raise InvalidRequest.of(
                    knob, "missing", f"the picture {video.name} was made from is not here.", "Give it again."
                )
        return {name: value for name, value in values.items() if value is not None}

    def _memory(self) -> Memory:
        """What the models of this process have in common."""
        from wanreel.models.load import Memory
        from wanreel.models.prompt_cache import PromptCache
        from wanreel.models.shared import SharedParts
        from wanreel.storage.digests import Digests

        settings = self.settings
        prompts = PromptCache(settings.data.prompts, settings.prompt_cache_mb * 10**6)
        shared = SharedParts(Digests(settings.data.digests).known)
        return Memory(shared, prompts if settings.prompt_cache_mb else None)

    @property
    def pool(self) -> ModelPool:
        if self._pool is None:
            with without_collecting():
                from wanreel.models.open import ModelOpener
                from wanreel.models.picture_planning import EveryPlanner
                from wanreel.models.pool import ModelPool

            opener = ModelOpener(self.shelf, self.device, self.check_weights, self._memory())
            self._pool = ModelPool(opener.open, EveryPlanner(self.planner), self.planner.machine)
        return self._pool

    @property
    def planner(self) -> Planner:
        """Plans for the device of the settings, and learns from its runs."""
        from wanreel.models.machine import machine_now
        from wanreel.models.planning import NoRecords, Planner

        if self._planner is None:
            device = self.device
            records = self.plan_records or NoRecords()
            self._planner = Planner(lambda: machine_now(device), self.settings.wishes, records)
        return self._planner

    @property
    def device(self) -> torch.device:
        """The device of the settings. Raises SettingsError for one that is absent."""
        from wanreel.models.machine import choose_device

        return choose_device(self.settings.device, self.settings.memory_gb, self.settings.threads)

    def memory_plan(self, resolution: Resolution, *, card: str = "", host_gib: float | None = None) -> MemoryPlan:
        """The plan for a request, asked of the driver and not of torch; or for another card of the table.

        The GPU counts as it is when this program has it for itself; a worker looks again before it begins.
        """
        from wanreel.models.planning import NoRecords, Planner

        machine = self._machine_named(card, host_gib) if card else self.machine()
        planner = Planner(lambda: machine, self.settings.wishes, self.plan_records or NoRecords())
        return planner.plans(resolution.spec, resolution.request, None)[0]

    def outlook(self, resolution: Resolution) -> Outlook:
        """The plan for a request as `memory_plan` makes it, and those that could be asked for."""
        from wanreel.models.planning import NoRecords, Planner

        machine = self.machine()
        planner = Planner(lambda: machine, self.settings.wishes, self.plan_records or NoRecords())
        return planner.outlook(resolution.spec, resolution.request)

    def machine(self) -> Machine:
        """The machine as its driver describes it, without torch."""
        host = free_memory()
        wanted, _, number = self.settings.device.partition(":")
        found = [gpu for gpu in nvidia_gpus() if not number or gpu.index == int(number)] if wanted != "cpu" else []
        if not found:
            return Machine(host_free=host)
        gpu, allowed = found[0], self.settings.memory_gb
        free = gpu.total_bytes - _CONTEXT if allowed is None else int(allowed * GIB)
        return machine_of(gpu.name, gpu.total_bytes, min(free, gpu.total_bytes), gpu.capability, host_free=host)

    def _machine_named(self, card: str, host_gib: float | None) -> Machine:
        row = card_named(card)
        if not row.name:
            known = ", ".join(it.name for it in CARDS)
            raise SettingsError(f"card: {card!r} is not in the table.", hint=f"Known are {known}.")
        return machine_of_card(row, host_gib=host_gib or free_memory() / GIB)

    def weights_folder(self, spec: AnySpec) -> Path | None:
        """Where the model's weights lie; None for one that is made up on the spot. Raises ModelNotInstalled."""
        return None if is_tiny(spec) else self.shelf.folder(spec)

    def qualify(self, model: str, folder: Path | None, cancel: CancelToken) -> QualifyReport:
        """Run `model`'s weights beside Diffusers' pipeline. Raises UnknownModel, ModelNotInstalled, BrokenWeights."""
        from wanreel.generation.qualify import qualify
        from wanreel.models.tiny import save_tiny

        spec = self.catalog.get(model)
        self.unload()
        with TemporaryDirectory() as scratch:
            if folder is None:
                folder = save_tiny(spec, Path(scratch)) if is_tiny(spec) else self.shelf.folder(spec)
            return qualify(spec, folder, self.device, self.planner.default(spec).placement, cancel)

    def load(self, model: str) -> None:
        """Bring a model into memory ahead of the first request, from the hub if it must be."""
        from wanreel.models.picture_planning import EveryPlanner

        spec = self.catalog.weights(model)
        for _ in self.fetch(spec, CancelToken()):
            pass
        self.pool.acquire(spec, EveryPlanner(self.planner).default(spec).placement)

    def warm_up(self) -> None:
        """Load the model that the settings want in memory from the start. Raises UnknownModel, ModelError."""
        wanted = self.settings.auto_load
        if wanted:
            self.load(self.settings.default_text_model if wanted == "default" else wanted)

    @property
    def held(self) -> str | None:
        """Name of the model in memory."""
        return self._pool.held if self._pool is not None else None

    @property
    def all_held(self) -> tuple[str, ...]:
        """Names of all models in memory."""
        return self._pool.names if self._pool is not None else ()

    def unload(self, model: str | None = None) -> None:
        """Free the memory of `model`, or of all that are held."""
        if self._pool is not None:
            self._pool.evict(model)

    def close(self) -> None:
        self.unload()


def _catalog(settings: Settings) -> Catalog:
    """Shipped rows, the operator's, and those of models that were added from files."""
    rows = tuple(settings.catalog())
    return Catalog(rows + added_rows(settings.weights_dir, Catalog(rows)))


def build_runtime(settings: Settings) -> Runtime:
    """Joins the parts that `settings` ask for. Creates the data directory; raises SettingsError."""
    own = {name: model.folder for name, model in settings.models.items() if model.folder is not None}
    shared = None
    if settings.shared_storage:
        from wanreel.storage.shared import open_shared

        shared = open_shared(settings)
    return Runtime(
        settings=settings,
        catalog=_catalog(settings),
        shelf=Shelf(settings.weights_dir, own),
        pictures=shared.pictures if shared else BlobStore(settings.data.pictures),
        loras=LoraShelf(settings.adapters_dir, Digests(settings.data.digests)),
        shared=shared,
    )


# The queue. Its parts are imported where they are built, as SQLAlchemy would slow down every other command.


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


def build_worker(runtime: Runtime, *, supervised: bool = False) -> Worker:
    """A worker on the runtime's device, not yet on the list of workers. Raises StoreError.

    A `supervised` one leaves when the process that started it has ended.
    """
    from wanreel.core.failpoints import Failpoints
    from wanreel.service import make_less
    from wanreel.service.uploader import build_uploader
    from wanreel.worker.attempt import Workshop
    from wanreel.worker.retention import Retention
    from wanreel.worker.space import Reserve
    from wanreel.worker.weights import weight_hashes
    from wanreel.worker.worker import Life, Worker

    digests = Digests(runtime.settings.data.digests)
    settings = runtime.settings
    store = build_store(settings, patience=_WORKERS_PATIENCE)
    runtime.plan_records = store.plans
    life = Life.begin(settings.data.workers, settings.device.replace(":", "-"), build_liveness(settings, store))
    shop = Workshop(
        store=store,
        render=lambda task: _render(runtime, task),
        spec_of=runtime.catalog.weights,
        weights_of=lambda spec: weight_hashes(runtime.weights_folder(spec), digests),
        data=settings.data,
        results=settings.results_dir,
        reserve=Reserve(life.name, settings.data.checkpoints, settings.results_dir),
        failpoints=Failpoints(settings.fault),
        keep_free=int(settings.min_free_gb * 2**30),
        checkpoints=settings.checkpoints,
        held=lambda: runtime.held,
        all_held=lambda: runtime.all_held,
        warm_up=runtime.warm_up,
        obey=lambda order: runtime.load(order.model) if order.verb == "load" else runtime.unload(order.model),
        sample_seconds=settings.stats_seconds,
        reduce=lambda job_id: make_less(build_service(runtime, store), job_id),
        uploader=build_uploader(settings, store) if settings.storage else None,
        states=runtime.shared.states if runtime.shared else None,
    )
    retention = Retention(
        store,
        settings.data.checkpoints,
        settings.keep_artifacts_days,
        settings.results_dir,
        settings.keep_uploaded_days,
    )
    return Worker(life, shop, retention, description=settings.device, supervised=supervised)


def _render(runtime: Runtime, task: Task) -> Iterator[Event]:
    """Torch comes in here, with the first job: so a worker that was just started claims at once."""
    if runtime.shared is not None:
        from wanreel.service import pictures_of

        for picture in pictures_of(task.request):  # before minutes go into loading a model
            runtime.pictures.open(picture.sha256)
    yield from runtime.fetch(task.spec, task.keeper.token)
    with without_collecting():
        from wanreel.worker.renderer import draw_task, render_task

    if isinstance(task.request, ResolvedPicture):
        refiner = runtime.catalog.picture(task.request.refiner) if task.request.refiner else None
        if refiner is not None:
            yield from runtime.fetch(refiner, task.keeper.token)
        yield from draw_task(runtime.pool, runtime.pictures, task, refiner)
        return
    yield from render_task(runtime.pool, runtime.pictures, runtime.loras, task, runtime.settings.checkpoint_share)


def verify_video(runtime: Runtime, video: Path, cancel: CancelToken) -> Verdict:
    """Make a video again into the runtime's results folder and compare. Raises UnreadableRecipe, InvalidRequest."""
    from wanreel.worker.verify import verify
    from wanreel.worker.weights import weight_hashes

    digests = Digests(runtime.settings.data.digests)

    def make(request: ResolvedRequest) -> tuple[Resolution, Iterator[Event]]:
        resolution = runtime.resolve(request.as_request())
        return resolution, runtime.generate(resolution, cancel)

    return verify(
        video, lambda: read_request(video), make, lambda spec: weight_hashes(runtime.weights_folder(spec), digests)
    )


def read_request(video: Path) -> ResolvedRequest:
    """The request inside a video that Wanreel made. Raises UnreadableRecipe."""
    return _request_of(read_recipe(video), video.name)


def read_work(file: Path) -> Work:
    """What the recipe inside a video or a picture asks for. Raises UnreadableRecipe."""
    return _work_of(read_recipe(file), file.name)


def request_in(file: BinaryIO, name: str) -> ResolvedRequest:
    """The same of a file that came from anywhere. Its values are not checked."""
    return _request_of(recipe_in(file, name), name)


def _request_of(recipe: str, name: str) -> ResolvedRequest:
    work = _work_of(recipe, name)
    if not isinstance(work, ResolvedRequest):
        raise UnreadableRecipe.of("from", "no_video", f"{name} is a picture.", "Give it as the first frame.")
    return work


def _work_of(recipe: str, name: str) -> Work:
    try:
        values = cast("Mapping[str, Mapping[str, object]]", json.loads(recipe))
        return work_from_dict(values["request"])
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UnreadableRecipe.of(
            "from", "unreadable_recipe", f"{name} carries a recipe this version can't read."
        ) from exc


def specs_with_state(runtime: Runtime) -> list[tuple[ModelSpec, bool]]:
    """Every model of the catalogue and whether it is installed."""
    return [(spec, runtime.shelf.has(spec)) for spec in runtime.catalog]


def picture_specs_with_state(runtime: Runtime) -> list[tuple[PictureSpec, bool]]:
    """The same of the models that make pictures."""
    return [(spec, runtime.shelf.has(spec)) for spec in runtime.catalog.pictures]
