"""Runtime: everything one process needs to turn requests into videos, joined once.

Knows nothing of the queue (queue.py). Torch comes in with the first generation, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from wanreel.core.adjustment import Adjustment
from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, Mode, ModelSpec
from wanreel.core.errors import InvalidRequest, OutOfMemory, UnreadablePicture, WanreelError
from wanreel.core.events import Event
from wanreel.core.importing import without_collecting
from wanreel.core.picture import PictureRef
from wanreel.core.picture_models import DEFAULT, PictureSpec
from wanreel.core.picture_request import PictureRequest
from wanreel.core.picture_resolve import PictureResolution, resolve_picture
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.settings import Settings, keep_compiled
from wanreel.core.sound import SoundRef
from wanreel.core.work import AnySpec
from wanreel.media.pictures import MAX_BYTES, read_picture
from wanreel.media.sound import MAX_BYTES as MAX_SOUND
from wanreel.media.sound import read_sound
from wanreel.models.formats.assembly import added_rows
from wanreel.models.lora.report import LoraDesk
from wanreel.models.lora.shelf import LoraShelf, Shelved, name_for
from wanreel.models.shelf import Shelf, is_tiny
from wanreel.models.upscalers import UpscalerShelf
from wanreel.storage.digests import Digests
from wanreel.storage.disk import Blobs, BlobStore
from wanreel.storage.keeping import Keeping
from wanreel.wiring.forecast import Forecast
from wanreel.wiring.ranks import build_crew, devices_of, ranks_wanted
from wanreel.wiring.recipes import read_request
from wanreel.wiring.supply import Supply

if TYPE_CHECKING:
    import torch

    from wanreel.core.placement import Placement
    from wanreel.models.held import Held
    from wanreel.models.load import Memory
    from wanreel.models.open import ModelOpener
    from wanreel.models.parallel.crew import Crew
    from wanreel.models.parallel.opening import CrewOpener
    from wanreel.models.planning import Planner, PlanRecords
    from wanreel.models.pool import ModelPool
    from wanreel.models.qualify import QualifyReport
    from wanreel.storage.shared import Shared


@dataclass
class Runtime:
    """Everything one process needs to turn requests into videos. Close it to free the model."""

    settings: Settings
    catalog: Catalog
    shelf: Shelf
    pictures: Blobs
    loras: LoraShelf
    upscalers: UpscalerShelf
    supply: Supply
    shared: Shared | None = None  #: what workers on other machines find
    plan_records: PlanRecords | None = field(default=None, repr=False)  #: of runs before this process
    #: Told, in another thread, why this process ends though its work does not come back.
    last_words: Callable[[WanreelError], object] = field(default=lambda fault: None, repr=False)
    _pool: ModelPool | None = field(default=None, repr=False)
    _planner: Planner | None = field(default=None, repr=False)
    _crew: Crew | None = field(default=None, repr=False)
    _devices: tuple[str, ...] | None = field(default=None, repr=False)

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

    def take_sound(self, data: bytes, knob: str = "audio", into: Blobs | None = None) -> SoundRef:
        """Check and clean a sound and keep it among the pictures. Raises InvalidRequest naming `knob`. Takes a second."""
        sound = read_sound(data, knob)
        return SoundRef((self.pictures if into is None else into).put(sound.flac), sound.seconds)

    def take_sound_file(self, path: Path, knob: str = "audio") -> SoundRef:
        """The same from a file. For local front doors alone, as above."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SOUND + 1)
        except OSError as exc:
            raise InvalidRequest.of(knob, "unreadable", f"{path} can't be read: {exc.strerror}.") from exc
        return self.take_sound(data, knob)

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
            upscaler=self.upscalers.get,
            storages=tuple(sorted(self.settings.storage)),
            storage=self.settings.default_storage,
            wishes=self.settings.wishes,
            on_oom=self.settings.on_oom,
            compute=self.settings.compute,
            edit_model=self.settings.default_edit_model,
        )

    @property
    def lora_desk(self) -> LoraDesk:
        """What judges LoRAs for models."""
        return LoraDesk(self.loras, lambda spec: self.shelf.folder(spec) if self._has_folder(spec) else None)

    def _has_folder(self, spec: ModelSpec) -> bool:
        return not is_tiny(spec) and self.shelf.holds(spec)

    def resolve(self, request: VideoRequest) -> Resolution:
        """What will run. Raises InvalidRequest naming every problem, or ModelNotInstalled."""
        resolution = resolve(request, self.catalog, self.defaults())
        notes = self._to_download(resolution.spec, self.editor_of(resolution.request))
        return replace(resolution, adjustments=(*resolution.adjustments, *notes))

    def _to_download(self, *models: AnySpec | None) -> tuple[Adjustment, ...]:
        """A word on each that is downloaded first. Raises ModelNotInstalled where that may not be."""
        return tuple(self.supply.note(it) for it in models if it is not None and not self.shelf.has(it))

    def resolve_picture(self, request: PictureRequest) -> PictureResolution:
        """What will run. Raises InvalidRequest naming every problem, or ModelNotInstalled."""
        edit = self.settings.default_edit_model
        resolution = resolve_picture(request, self.catalog.picture, DEFAULT, default_edit=edit)
        notes = self._to_download(resolution.spec, resolution.refiner)
        return replace(resolution, adjustments=(*resolution.adjustments, *notes))

    def generate(
        self, resolution: Resolution, cancel: CancelToken | None = None, keeping: Keeping | None = None
    ) -> Generator[Event]:
        """Run it here and now. The caller owns the loop; closing the iterator stops and leaves nothing behind.

        With `keeping`, what another process did of the same work is not done again.
        """
        with without_collecting():
            from wanreel.generation.export import Target
            from wanreel.worker.renderer import render_here, render_kept

        cancel = cancel or CancelToken()
        if (upscaler := resolution.request.finishing.upscaler) is not None:
            self.upscalers.check(upscaler)  # before minutes go into loading a model
        editor = self.editor_of(resolution.request)
        for spec in (editor, resolution.spec):
            if spec is not None:
                yield from self.supply.fetch(spec, cancel)
        if keeping is not None:
            share = self.settings.checkpoint_share
            yield from render_kept(self.pool, resolution, (self.loras, self.upscalers), keeping, cancel, share, editor)
            return
        target = Target(self.settings.results_dir, self.pictures, loras=self.loras, upscalers=self.upscalers)
        yield from render_here(self.pool, resolution, target, cancel, editor)

    def editor_of(self, request: ResolvedRequest) -> PictureSpec | None:
        """The model that draws the keyframe, where one is asked for."""
        return self.catalog.picture(request.keyframe.model) if request.keyframe is not None else None

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
                yield from self.supply.fetch(spec, cancel)
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
        if request.audio is not None and not self.pictures.has(request.audio.sha256):
            raise InvalidRequest.of("audio", "missing", f"the sound of {video.name} is not here.", "Give it again.")
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
    def opener(self) -> ModelOpener:
        """A new one: what opens models of the shelf on the device of the settings."""
        with without_collecting():
            from wanreel.models.open import ModelOpener
            from wanreel.models.step.choice import Choices

        keep_compiled(self.settings.data.compiled)
        kernels = Choices(self.settings.data.compiled / "kernels")
        return ModelOpener(self.shelf, self.device, self.supply.check, self._memory(), kernels)

    @property
    def pool(self) -> ModelPool:
        if self._pool is None:
            with without_collecting():
                from wanreel.models.picture_planning import EveryPlanner
                from wanreel.models.pool import ModelPool

            opener = self.opener
            shared = self._shared(opener.open)
            planner, machine = EveryPlanner(self.planner), self.planner.machine
            if shared is None:
                self._pool = ModelPool(opener.open, planner, machine)
            else:
                self._pool = ModelPool(shared.open, planner, machine, shared.close, shared.usable)
        return self._pool

    def _shared(self, open_here: Callable[[AnySpec, Placement], Held]) -> CrewOpener | None:
        """What opens models on several ranks at once, where the settings want that."""
        if len(self.devices) == 1:
            return None
        from wanreel.models.parallel.opening import CrewOpener

        self._crew = build_crew(self.settings, self.devices, self.device, self._say_last_words)
        return CrewOpener(self._crew, open_here)

    def _say_last_words(self, fault: WanreelError) -> None:
        """A rank is lost and this process ends, perhaps stuck: what the next one must know."""
        if self._pool is not None and isinstance(fault, OutOfMemory):
            self._pool.last_words()
        self.last_words(fault)

    @property
    def planner(self) -> Planner:
        """Plans for the device of the settings, and learns from its runs."""
        from wanreel.models.machine import machine_now
        from wanreel.models.planning import NoRecords, Planner

        if self._planner is None:
            device, ranks = self.device, len(self.devices)
            records = self.plan_records or NoRecords()
            self._planner = Planner(lambda: replace(machine_now(device), gpus=ranks), self.settings.wishes, records)
        return self._planner

    @property
    def device(self) -> torch.device:
        """The device of the settings. Raises SettingsError for one that is absent."""
        from wanreel.models.machine import choose_device

        return choose_device(self.devices[0], self.settings.memory_gb, self.settings.threads)

    @property
    def devices(self) -> tuple[str, ...]:
        """As the settings name them: this process's, and those of the further ranks of its group. Raises SettingsError."""
        if self._devices is None:
            self._devices = devices_of(self.settings)
        return self._devices

    @property
    def forecast(self) -> Forecast:
        """What a request would take, told without torch."""
        return Forecast(self.settings, self.plan_records, ranks_wanted(self.settings))

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
        for _ in self.supply.fetch(spec, CancelToken()):
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
        if self._crew is not None:
            self._crew.disband()
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
    shelf = Shelf(settings.weights_dir, own)
    return Runtime(
        settings=settings,
        catalog=_catalog(settings),
        shelf=shelf,
        supply=Supply(settings, shelf),
        pictures=shared.pictures if shared else BlobStore(settings.data.pictures),
        loras=LoraShelf(settings.adapters_dir, Digests(settings.data.digests)),
        upscalers=UpscalerShelf(settings.upscalers_dir, Digests(settings.data.digests)),
        shared=shared,
    )


def specs_with_state(runtime: Runtime) -> list[tuple[ModelSpec, bool]]:
    """Every model of the catalogue and whether it is installed."""
    return [(spec, runtime.shelf.has(spec)) for spec in runtime.catalog]


def picture_specs_with_state(runtime: Runtime) -> list[tuple[PictureSpec, bool]]:
    """The same of the models that make pictures."""
    return [(spec, runtime.shelf.has(spec)) for spec in runtime.catalog.pictures]
