"""Settings: what the operator chose. The only reader of the environment.

Values come from WANREEL_* variables, then from `config.toml` in the data directory, then from the defaults here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import platformdirs
from pydantic import (
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from wanreel.core.catalog import MODELS, Catalog, ModelSpec
from wanreel.core.compute import Compile, Compute
from wanreel.core.config_file import read_config
from wanreel.core.data_directory import DataDirectory
from wanreel.core.destination import LOCAL, PROFILE_NAME, Destination
from wanreel.core.errors import SettingsError
from wanreel.core.parallel import parse_parallel
from wanreel.core.placement import Plan, Precision
from wanreel.core.settings_groups import (
    HttpSettings,
    OutboundSettings,
    PromptHelpSettings,
    RemoteSettings,
    RunPodSettings,
    StorageProfile,
    UserModel,
)
from wanreel.core.wishes import MemoryMode, OnOom, Wishes

#: Where a setting's value comes from.
Origin = Literal["default", "file", "environment", "command line"]


def _user_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("wanreel", appauthor=False))


class _Home(BaseSettings):
    """Where the data directory is, which must be known before its config.toml can complete the other settings."""

    model_config = SettingsConfigDict(env_prefix="WANREEL_", extra="ignore")

    data_dir: Path = Field(default_factory=_user_data_dir)


class Settings(BaseSettings):
    """Every operator-side setting."""

    model_config = SettingsConfigDict(
        env_prefix="WANREEL_", env_nested_delimiter="__", extra="forbid", hide_input_in_errors=True
    )

    data_dir: Path = Field(default_factory=_user_data_dir)
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="The job database: postgresql://user:password@host/name; empty for SQLite in the data directory.",
    )
    worker_lease_seconds: float = Field(
        default=30.0,
        ge=1.0,
        le=3600.0,
        description="On PostgreSQL: a worker that did not show itself for so long is taken for dead, seconds.",
    )
    models_dir: Path | None = Field(default=None, description="Weights, when not under the data directory.")
    offline: bool = Field(default=False, description="Never ask the model hub for anything.")
    download: bool = Field(default=True, description="Download a model's weights when it is first used.")
    prompt_cache_mb: int = Field(
        default=512,
        ge=0,
        description="Disk for embeddings of prompts, so that a repeated prompt is not encoded again, MB.",
    )
    hub_endpoint: str = Field(default="", description="Another address of the model hub, such as a mirror's.")
    loras_dir: Path | None = Field(default=None, description="LoRAs, when not under the data directory.")
    outputs_dir: Path | None = Field(default=None, description="Results, when not under the data directory.")
    default_text_model: str = Field(default="ti2v-5b", description="Makes videos from text alone.")
    default_picture_model: str = Field(default="ti2v-5b", description="Makes videos from a picture.")
    default_first_last_model: str = Field(default="flf2v-14b-720p", description="Makes videos between two pictures.")
    default_edit_model: str = Field(default="qwen-image-edit-2509", description="Changes pictures by instruction.")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, …")
    multi_gpu: bool = Field(
        default=False, description="One video on several GPUs of this machine; see docs/multi-gpu.md."
    )
    gpus: str = Field(default="", description="The GPUs that may be used, as 0,1; all of them by default.")
    parallel: str = Field(
        default="auto",
        description="How GPUs share videos: auto, together, each (its own), or parts as cfg=2,ulysses=2,ring=1,fsdp.",
    )
    memory_gb: float | None = Field(default=None, gt=0, description="GPU memory it may use, GiB; all of it by default.")
    memory_mode: MemoryMode = Field(
        default="auto",
        description="auto: exact plans first, the fastest of them; fastest; balanced: leaves GPU memory to other "
        "programs; smallest; custom: nothing but the next four decides.",
    )
    precision: Precision | Literal["auto"] = Field(
        default="auto",
        description="What the transformers' weights are stored in: native (bf16), fp16, fp8, int8, int4.",
    )
    offload: Plan | Literal["auto"] = Field(
        default="auto",
        description="Where weights wait: resident, encoders, exclusive or streamed (see docs/memory.md).",
    )
    vae_tile: int | None = Field(
        default=None, ge=0, le=4096, description="Side of the VAE's tiles, px; 0: whole frames; unset: as they fit."
    )
    quantize: bool = Field(
        default=False,
        description="Where nothing else fits, weights may be stored in fewer bits. It is named in the job.",
    )
    memory_choices: bool = Field(
        default=True,
        description="Requests may choose memory mode, precision and tiles where the settings above leave them open.",
    )
    compute: Compute = Field(
        default="exact", description="How steps are computed unless a request says: exact, fast, turbo (docs/speed.md)."
    )
    compile: Compile = Field(
        default="auto", description="Blocks are compiled on a GPU: auto, where that pays back; always; off."
    )
    on_oom: OnOom = Field(
        default="fail",
        description="What becomes of a job that no plan carries, unless it says: fail, or reduce: a smaller one, linked.",
    )
    gpu_price_per_hour: float | None = Field(
        default=None,
        ge=0,
        description="What an hour of a worker costs, in your currency; plans and jobs then tell costs.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of the model; the machine's cores by default."
    )
    auto_load: str = Field(
        default="", description="Model that workers load as they start; `default` for the default one."
    )
    stats_seconds: float = Field(default=5.0, ge=1.0, le=3600.0, description="Between two looks at CPU, GPU and disk.")
    max_queue_size: int = Field(default=100, ge=1, description="Queued jobs accepted before submit answers 'full'.")
    job_time_limit: float = Field(default=6 * 3600.0, gt=0, description="Longest a job may run, seconds.")
    checkpoints: bool = Field(default=True, description="Save the state while denoising, so that a killed job goes on.")
    checkpoint_share: float = Field(
        default=0.02, gt=0, description="Share of the run time that checkpoints may cost; more loses less at a crash."
    )
    part_batch: int = Field(
        default=4,
        ge=1,
        le=16,
        description="Jobs of one kind that have a model's parts in turn where the card holds one at a time; 1 for none.",
    )
    keep_artifacts_days: float = Field(
        default=0.0, ge=0, description="Delete saved latents of ended jobs after; 0 keeps them."
    )
    min_free_gb: float = Field(default=1.0, ge=0, description="The queue pauses below this much free disk, GiB.")
    otlp_endpoint: str = Field(
        default="", description="Where traces are sent, as http://127.0.0.1:4318; empty for nowhere."
    )
    http: HttpSettings = Field(default_factory=HttpSettings)
    remote: RemoteSettings = Field(default_factory=RemoteSettings)
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)
    prompt_help: PromptHelpSettings = Field(default_factory=PromptHelpSettings)
    runpod: RunPodSettings = Field(default_factory=RunPodSettings)
    fault: str = Field(default="", description="Failpoint for fault tests, NAME:kill. Empty in normal use.")
    models: dict[str, UserModel] = Field(default_factory=dict[str, UserModel])
    storage: dict[str, StorageProfile] = Field(
        default_factory=dict[str, StorageProfile], description="Profiles of S3 storage; see docs/storage.md."
    )
    default_storage: str = Field(
        default="", description="Profile of every job that names none; empty: results stay here."
    )
    shared_storage: str = Field(
        default="",
        description="Profile where workers on other machines find pictures and checkpoints; empty: they don't.",
    )
    keep_uploaded_days: float = Field(
        default=0.0, ge=0, description="Delete the local copy of what lies safely in storage after; 0 keeps it."
    )

    @field_validator("parallel")
    @classmethod
    def _understood(cls, parallel: str) -> str:
        try:
            parse_parallel(parallel)
        except SettingsError as error:
            raise ValueError(f"{error.message.removeprefix('parallel: ')} {error.hint}") from error
        return parallel

    @field_validator("storage")
    @classmethod
    def _names(cls, profiles: dict[str, StorageProfile]) -> dict[str, StorageProfile]:
        wrong = [name for name in profiles if not PROFILE_NAME.fullmatch(name) or name == LOCAL]
        if wrong:
            raise ValueError(f"a profile can't be called {wrong[0]!r}: lower-case letters, digits, dashes")
        return profiles

    @model_validator(mode="after")
    def _named_exist(self) -> Self:
        for setting in ("default_storage", "shared_storage"):
            if (name := getattr(self, setting)) and name not in self.storage:
                raise ValueError(f"{setting} names no profile of [storage]")
        return self

    def destination(self, name: str) -> Destination:
        """The profile's place and keys. Raises SettingsError for one that is not there."""
        if name not in self.storage:
            known = ", ".join(sorted(self.storage)) or "none"
            raise SettingsError(
                f"There is no storage profile {name!r}.",
                hint=f"Known are: {known}. They stand in config.toml under [storage.NAME].",
            )
        return self.storage[name].destination(name)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Given values, then the environment; the file comes in through `load`, which must know the data directory."""
        return (init_settings, env_settings)

    _given: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])
    _origins: dict[str, Origin] = PrivateAttr(default_factory=dict[str, "Origin"])

    def remember(self, given: Mapping[str, Any], origins: Mapping[str, Origin]) -> None:
        """Keep where the values come from, so that the page can tell."""
        self._given = dict(given)
        self._origins = {**origins, **dict.fromkeys(given, "command line")}

    def origin(self, name: str) -> Origin:
        """Where the value of this setting comes from."""
        return self._origins.get(name, "default")

    def with_config(self, from_file: Mapping[str, Any]) -> Settings:
        """What would be in force if config.toml said this. Raises pydantic's ValidationError."""
        return _joined(self._given, from_file)

    @property
    def data(self) -> DataDirectory:
        return DataDirectory(self.data_dir)

    @property
    def wishes(self) -> Wishes:
        """What plans of memory keep to."""
        return Wishes(
            self.memory_mode,
            self.precision,
            self.offload,
            self.vae_tile,
            self.quantize,
            self.memory_choices,
            parse_parallel(self.parallel),
            self.compile,
        )

    @property
    def weights_dir(self) -> Path:
        return self.models_dir or self.data.models

    @property
    def adapters_dir(self) -> Path:
        return self.loras_dir or self.data.loras

    @property
    def upscalers_dir(self) -> Path:
        return self.weights_dir / "upscalers"

    @property
    def results_dir(self) -> Path:
        return self.outputs_dir or self.data.outputs

    def catalog(self) -> Catalog:
        """The shipped rows and the operator's. Raises SettingsError for a row that makes no sense."""
        shipped = Catalog()
        rows = [_row(shipped, name, model) for name, model in self.models.items()]
        return Catalog(tuple([spec for spec in MODELS if spec.name not in self.models] + rows))


def visible_gpus() -> tuple[str, ...] | None:
    """What CUDA_VISIBLE_DEVICES names, numbers or UUIDs in CUDA's order; None where it hides nothing."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else tuple(name.strip() for name in named.split(",") if name.strip())


def prepare_for_ranks() -> None:
    """Before processes of this machine exchange tensors: over its own interface, and without NVLink multicast.

    A program that uses multicast and is killed can leave all GPUs of the host out of service.
    """
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")
    os.environ["NCCL_NVLS_ENABLE"] = "0"
    os.environ["TORCH_SYMM_MEM_DISABLE_MULTICAST"] = "1"


def keep_compiled(folder: Path) -> None:
    """What torch.compile and Triton make is kept in `folder`, unless the operator has said where."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))


def variable(name: str) -> str:
    """An environment variable that the operator named; empty where it is not set."""
    return os.environ.get(name, "")


def environment_with(**settings: object) -> dict[str, str]:
    """The environment of this process for one that it starts, with other settings."""
    return dict(os.environ) | {f"WANREEL_{name.upper()}": str(value) for name, value in settings.items()}


def has_desktop() -> bool:
    """Whether a browser opened here would be seen by whoever started this process."""
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def load_settings(**given: Any) -> Settings:
    """Settings from arguments, environment and the data directory's config.toml. Raises SettingsError naming the value."""
    try:
        return _joined(given, read_config(DataDirectory(_Home(**given).data_dir).config))
    except ValidationError as exc:
        # Only where and what: the input itself may be a secret.
        faults = "; ".join(f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors())
        raise SettingsError(
            f"A setting can't be used: {faults}.", hint="Correct the WANREEL_ variable or config.toml."
        ) from exc


def _joined(given: Mapping[str, Any], from_file: Mapping[str, Any]) -> Settings:
    """Settings where what was given wins over the environment, and that over the file. Raises ValidationError."""
    paths = [
        tuple(name.removeprefix("WANREEL_").lower().split("__")) for name in os.environ if name.startswith("WANREEL_")
    ]
    in_environment = {path[0] for path in paths}
    kept = {key: value for key, value in _without(from_file, paths).items() if key not in given}
    settings = Settings(**(kept | dict(given)))
    origins: dict[str, Origin] = {**dict.fromkeys(kept, "file"), **dict.fromkeys(in_environment, "environment")}
    settings.remember(given, origins)
    return settings


def _without(section: Mapping[str, Any], paths: Collection[tuple[str, ...]]) -> dict[str, Any]:
    """The section without the values at `paths`: keys in the environment join a table that stands in the file."""
    kept: dict[str, Any] = {}
    for key, value in section.items():
        below = [path[1:] for path in paths if path[0] == key]
        if not below:
            kept[key] = value
        elif isinstance(value, Mapping) and all(below):
            kept[key] = _without(cast("Mapping[str, Any]", value), below)
    return kept


def _row(catalog: Catalog, name: str, model: UserModel) -> ModelSpec:
    if model.base not in catalog:
        raise SettingsError(f"models.{name}.base: there is no model {model.base!r}.", hint="See `wanreel models`.")
    base = catalog.get(model.base)
    facts: dict[str, Any] = dict(model.model_extra or {})
    unknown = set(facts) - {item.name for item in fields(ModelSpec)}
    if unknown:
        raise SettingsError(
            f"models.{name}: there is no fact {sorted(unknown)[0]!r}.", hint="See the field names of ModelSpec."
        )
    title = facts.pop("title", f"{name} ({base.title})")
    return replace(base, name=name, title=title, hub_id=None, builtin=False, **facts)
