"""Plan: what a cluster consists of, as an operator says it. Knows neither Ray nor the queue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from wanreel.core.catalog import Catalog, Mode
from wanreel.core.errors import InvalidRequest, SettingsError

#: What the pools make unless told otherwise.
T2V_MODEL, I2V_MODEL = "fastwan2.1-t2v-1.3b", "i2v-14b-480p"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_WORKERS = re.compile(r"(?P<least>[0-9]{1,4})-(?P<most>[0-9]{1,4})|(?P<just>[0-9]{1,4})")
_HINT = "As in --pool 't2v=fastwan2.1-t2v-1.3b gpus=1 workers=0-4'."
_MOST_GPUS = 16.0
_DEFAULTS: Mapping[Mode, str] = {
    "text": "default_text_model",
    "picture": "default_picture_model",
    "first_last": "default_first_last_model",
}


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers that make the same models, on the same share of a machine."""

    name: str
    models: tuple[str, ...]
    gpus: float | None = None  #: GPUs of a worker, also a part of one; None: one where the cluster has any
    cpus: float | None = None  #: cores that Ray counts for a worker; None: one without a GPU, none with one
    least: int = 0
    most: int = 64

    @classmethod
    def parse(cls, text: str, catalog: Catalog) -> Self:
        """NAME=MODEL[,MODEL…] [gpus=N] [cpus=N] [workers=LEAST-MOST]. Raises SettingsError."""
        head, *rest = text.split() or [""]
        name, _, models = head.partition("=")
        if not _NAME.fullmatch(name) or not models:
            raise SettingsError(f"--pool: {text!r} names no pool and its models.", hint=_HINT)
        pool = cls(name, tuple(model_named(model, catalog) for model in models.split(",")))
        for word in rest:
            pool = pool.with_word(word)
        return pool

    def with_word(self, word: str) -> Self:
        """The same with `gpus=…`, `cpus=…` or `workers=…`. Raises SettingsError."""
        key, _, value = word.partition("=")
        if key in ("gpus", "cpus"):
            return replace(self, **{key: _amount(key, value)})
        match = _WORKERS.fullmatch(value) if key == "workers" else None
        if match is None:
            raise SettingsError(f"Pool {self.name}: {word!r} is not understood.", hint=_HINT)
        least = int(match["least"] or match["just"])
        most = int(match["most"] or match["just"])
        if most < max(least, 1):
            raise SettingsError(f"Pool {self.name}: workers={value} allows none.", hint=_HINT)
        return replace(self, least=least, most=most)

    def settled(self, *, has_gpus: bool) -> Self:
        """The same with nothing left open."""
        gpus = (1.0 if has_gpus else 0.0) if self.gpus is None else self.gpus
        cpus = (0.0 if gpus else 1.0) if self.cpus is None else self.cpus
        return replace(self, gpus=gpus, cpus=cpus)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast pools grow and shrink, seconds."""

    target: float = 300.0  #: a pool has as many workers as finish what waits in this time, as predicted
    idle: float = 300.0  #: a worker without work leaves after
    turn: float = 600.0  #: a worker may be asked to make room for another pool once it has been there for so long


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster. Holds no secret: it travels between machines."""

    pools: tuple[Pool, ...]
    pace: Pace = Pace()
    replicas: int = 1  #: of the HTTP API
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])  #: over each machine's own
    generation: int = 1  #: grows with every update; workers of an older one are replaced

    def __post_init__(self) -> None:
        names = [pool.name for pool in self.pools]
        twice = {name for name in names if names.count(name) > 1}
        if twice or not names:
            raise SettingsError(f"Two pools are called {min(twice)!r}." if twice else "A cluster needs a pool.")
        made = [model for pool in self.pools for model in pool.models]
        double = {model for model in made if made.count(model) > 1}
        if double:
            raise SettingsError(f"{min(double)} is made by two pools.", hint="A job goes to one pool, by its model.")

    @property
    def models(self) -> tuple[str, ...]:
        """All that the cluster makes."""
        return tuple(model for pool in self.pools for model in pool.models)


def dual(t2v: str, i2v: str, catalog: Catalog) -> tuple[Pool, ...]:
    """A pool for text and one for pictures; one for both where one model makes both."""
    text, picture = model_named(t2v, catalog), model_named(i2v, catalog)
    if text == picture:
        return (Pool("all", (text,)),)
    return (Pool("t2v", (text,)), Pool("i2v", (picture,)))


def model_named(text: str, catalog: Catalog) -> str:
    """The catalogue's name of a model given by name or as the hub's Org/Name. Raises SettingsError."""
    try:
        return catalog.weights(text).name
    except InvalidRequest as exc:
        raise SettingsError(
            f"There is no model {text.strip()!r}.",
            hint="See `wanreel models`. A folder of weights becomes a model by `wanreel models add NAME --folder FOLDER`.",
        ) from exc


def defaults_for(plan: Plan, catalog: Catalog) -> dict[str, str]:
    """The settings that let a request without a model go to a pool that makes its kind."""
    found: dict[str, str] = {}
    pictures = {spec.name for spec in catalog.pictures}
    videos = [catalog.get(name) for name in plan.models if name not in pictures]
    for mode, setting in _DEFAULTS.items():
        able = [spec.name for spec in videos if mode in spec.modes]
        if able:
            # The pool for text comes first; what it makes from pictures as well is better made by the one for pictures.
            found[setting] = able[0 if mode == "text" else -1]
    return found


def _amount(key: str, value: str) -> float:
    try:
        amount = float(value)
    except ValueError:
        amount = -1.0
    if not 0.0 <= amount <= _MOST_GPUS or (amount > 1.0 and amount != int(amount)):
        raise SettingsError(f"{key}={value} is no share of a machine.", hint="A part of one, or a whole number.")
    return amount
