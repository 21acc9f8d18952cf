"""/v1/settings: what the operator may change on the page. Written to config.toml, whose comments stay.

Which settings are offered is a list of rows here; what they mean and take is derived from `Settings`.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool

from wanreel.core.catalog import Catalog, Mode
from wanreel.core.config_file import change_config, read_config
from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.settings import Origin, Settings
from wanreel.frontends.http import body_schema, schema
from wanreel.frontends.http.forms import read_json
from wanreel.frontends.http.house import require_admin
from wanreel.frontends.http.schema import Wire

Group = Literal["models", "memory", "queue", "folders", "page"]
Kind = Literal["text", "integer", "number", "flag", "choice", "folder"]
Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Row:
    """A setting that the page offers."""

    name: str
    group: Group
    unit: str = ""
    live: bool = False  #: takes effect at once; others at the next start
    mode: Mode | None = None  #: a model that can do this


ROWS: tuple[Row, ...] = (
    Row("default_text_model", "models", live=True, mode="text"),
    Row("default_picture_model", "models", live=True, mode="picture"),
    Row("default_first_last_model", "models", live=True, mode="first_last"),
    Row("download", "models"),
    Row("offline", "models"),
    Row("auto_load", "models"),
    Row("memory_mode", "memory"),
    Row("precision", "memory"),
    Row("offload", "memory"),
    Row("vae_tile", "memory", "px"),
    Row("quantize", "memory"),
    Row("memory_choices", "memory"),
    Row("on_oom", "memory"),
    Row("memory_gb", "memory", "GiB"),
    Row("device", "memory"),
    Row("threads", "memory"),
    Row("gpu_price_per_hour", "queue", live=True),
    Row("max_queue_size", "queue", live=True),
    Row("job_time_limit", "queue", "s"),
    Row("checkpoints", "queue"),
    Row("checkpoint_share", "queue"),
    Row("part_batch", "queue"),
    Row("keep_artifacts_days", "queue", "d"),
    Row("keep_uploaded_days", "queue", "d"),
    Row("min_free_gb", "queue", "GiB"),
    Row("outputs_dir", "folders"),
    Row("models_dir", "folders"),
    Row("loras_dir", "folders"),
    Row("stats_seconds", "page", "s"),
)
_KINDS: Mapping[str, Kind] = {"string": "text", "boolean": "flag", "integer": "integer", "number": "number"}
_BY_NAME: Mapping[str, Row] = {row.name: row for row in ROWS}


class Setting(Wire):
    """One setting, all that is needed to show and change it."""

    name: str
    group: Group
    kind: Kind
    help: str
    unit: str
    value: Value = Field(description="In force at the next start; now too, where nothing is pending.")
    default: Value
    running: Value = Field(description="In force now.")
    origin: Origin = Field(description="Where the value comes from. Only what is in the file can be changed here.")
    minimum: float | None
    maximum: float | None
    choices: list[str]
    optional: bool = Field(description="Whether null is a value.")
    live: bool = Field(description="Whether a change takes effect at once.")
    pending: bool = Field(description="Whether the value waits for a restart.")


class Profile(Wire):
    """A profile of S3 storage, without its keys. Written in config.toml alone."""

    name: str
    bucket: str
    prefix: str
    endpoint: str = Field(description="Empty for AWS.")
    default: bool = Field(description="Whether it takes the videos that name none.")


class SettingsList(Wire):
    object: Literal["settings"] = "settings"
    file: str = Field(description="Where they are kept.")
    restart_needed: bool
    data: list[Setting]
    storage: list[Profile]


@dataclass
class SettingsDesk:
    """The settings in force, what the file says, and the way from one to the other."""

    running: Callable[[], Settings]
    adopt: Callable[[Settings], None]  #: puts the live ones in force
    catalog: Catalog
    writing: threading.Lock

    def list(self) -> SettingsList:
        """Every row. Raises SettingsError when the file is damaged."""
        running = self.running()
        return self._listed(running, running.with_config(read_config(running.data.config)))

    def change(self, asked: Mapping[str, object]) -> SettingsList:
        """Check, write and put in force. None goes back to the default. Raises InvalidRequest naming every problem."""
        with self.writing:
            running = self.running()
            path = running.data.config
            changes = {name: _plain(value) for name, value in asked.items()}
            written = read_config(path)
            candidate = {name: value for name, value in (written | changes).items() if value is not None}
            problems = list(self._problems(asked, changes, running))
            try:
                settings = running.with_config(candidate)
            except ValidationError as exc:
                problems += [Problem(str(item["loc"][0]), "bad_value", f"{item['msg']}.") for item in exc.errors()]
            else:
                problems += [] if problems else list(_folder_problems(changes, settings))
            if problems:
                raise InvalidRequest(*problems)
            change_config(path, changes)
            after = running.with_config(read_config(path))
            self.adopt(after)
            return self._listed(self.running(), after)

    def _problems(self, asked: Mapping[str, object], changes: Mapping[str, Value], running: Settings) -> Any:
        for name, value in changes.items():
            row = _BY_NAME.get(name)
            if row is None:
                yield Problem(name[:64], "unknown_field", "can't be changed here.", "See GET /v1/settings.")
            elif running.origin(name) in ("environment", "command line"):
                where = "on the command line" if running.origin(name) == "command line" else f"WANREEL_{name.upper()}"
                yield Problem(name, "fixed", f"is set {where}, which wins over the file.", "Change it there.")
            elif asked[name] is not None and value is None:
                yield Problem(name, "wrong_type", "must be text, a number, true, false or null.")
            elif row.mode is not None and value is not None and value not in self._models(row.mode):
                yield Problem(name, "unknown_value", "names no model that can do this.", "See GET /v1/models.")

    def _models(self, mode: Mode) -> list[str]:
        return [spec.name for spec in self.catalog if mode in spec.modes]

    def _listed(self, running: Settings, after: Settings) -> SettingsList:
        data = [self._shown(row, running, after) for row in ROWS]
        return SettingsList(
            file=str(running.data.config),
            restart_needed=any(item.pending for item in data),
            data=data,
            storage=[
                Profile(
                    name=name,
                    bucket=profile.bucket,
                    prefix=profile.prefix,
                    endpoint=profile.endpoint,
                    default=name == running.default_storage,
                )
                for name, profile in running.storage.items()
            ],
        )

    def _shown(self, row: Row, running: Settings, after: Settings) -> Setting:
        facts = _facts(row.name)
        value, now = _wire(getattr(after, row.name)), _wire(getattr(running, row.name))
        return Setting(
            name=row.name,
            group=row.group,
            kind="choice" if row.mode else facts.kind,
            help=facts.help,
            unit=row.unit,
            value=value,
            default=_wire(Settings.model_fields[row.name].default),
            running=now,
            origin=after.origin(row.name),
            minimum=facts.minimum,
            maximum=facts.maximum,
            choices=self._models(row.mode) if row.mode else facts.choices,
            optional=facts.optional,
            live=row.live,
            pending=value != now,
        )


class SettingsRoutes:
    """The routes, over one desk."""

    def __init__(self, desk: SettingsDesk) -> None:
        self._desk = desk

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/v1/settings", tags=["settings"], responses=schema.ERRORS)
        router.get("", response_model=SettingsList, summary="The operator's settings")(self.list)
        properties: dict[str, Any] = {row.name: {"description": _facts(row.name).help} for row in ROWS}
        body = {"requestBody": body_schema.json_body(properties, example={"max_queue_size": 50})}
        router.patch("", response_model=SettingsList, openapi_extra=body, summary="Change settings")(self.change)
        return router

    async def list(self, request: Request) -> SettingsList:
        """What can be changed here, where each value comes from and which waits for a restart (admin)."""
        require_admin(request)
        return await run_in_threadpool(self._desk.list)

    async def change(self, request: Request) -> SettingsList:
        """Writes settings to config.toml; null goes back to the default (admin). All or none is written."""
        require_admin(request)
        return await run_in_threadpool(self._desk.change, await read_json(request))


@dataclass(frozen=True, slots=True)
class _Facts:
    """What `Settings` says of a field."""

    kind: Kind
    help: str
    minimum: float | None
    maximum: float | None
    choices: list[str]
    optional: bool


@functools.cache
def _described() -> dict[str, dict[str, Any]]:
    """JSON Schema of every setting. The same for ever, and slow to make."""
    return Settings.model_json_schema()["properties"]


def _facts(name: str) -> _Facts:
    described = _described()[name]
    kinds: list[dict[str, Any]] = described.get("anyOf", [described])
    taken = next(item for item in kinds if item.get("type") != "null")
    kind = "folder" if taken.get("format") == "path" else _KINDS[taken.get("type", "string")]
    choices = [str(item) for one in kinds for item in one.get("enum", [one["const"]] if "const" in one else [])]
    choices.sort(key=lambda choice: choice != "auto")
    return _Facts(
        kind="choice" if choices else kind,
        help=described.get("description", ""),
        minimum=taken.get("minimum", taken.get("exclusiveMinimum")),
        maximum=taken.get("maximum"),
        choices=choices,
        optional=any(one.get("type") == "null" for one in kinds),
    )


def _plain(value: object) -> Value:
    """The value as a TOML file can hold it at its top; None for anything else."""
    return value if isinstance(value, (str, int, float, bool)) else None


def _wire(value: object) -> Value:
    return str(value) if isinstance(value, Path) else _plain(value)


def _folder_problems(changes: Mapping[str, Value], settings: Settings) -> Any:
    """Folders that could not be used, found before anything is written."""
    for name in changes:
        folder = getattr(settings, name)
        if not isinstance(folder, Path):
            continue
        there = next((place for place in (folder, *folder.parents) if place.exists()), None)
        if not folder.is_absolute():
            yield Problem(name, "bad_value", "must be a whole path.", "For example /data/videos.")
        elif there is None or not there.is_dir():
            yield Problem(name, "bad_value", "is no folder and can't be made one.", "Choose another place.")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Problem(name, "bad_value", "can't be written to.", "Change its permissions, or choose another.")
