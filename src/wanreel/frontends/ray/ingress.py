"""Ingress: the HTTP API as a deployment of Ray Serve. The same app and the same guard as `wanreel serve`, without the page.

Each replica is one process over the store; a request may come to any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ray import serve

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.errors import UnknownModel
from wanreel.core.settings import Settings, load_settings
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.ray.plan import Plan, defaults_for

if TYPE_CHECKING:
    from wanreel.frontends.http.app import HttpApp

APP = "wanreel"
#: Requests of one replica at a time. Event streams and clients that wait for their video are most of them.
_AT_A_TIME = 1000
#: Seconds that a replica which is replaced gives to requests under way; event streams begin anew elsewhere.
_LAST_WORDS = 30.0


@dataclass(frozen=True, slots=True)
class Door:
    """How the API is reached."""

    host: str
    port: int
    public_url: str = ""
    allowed_hosts: frozenset[str] = frozenset()
    submits_per_minute: int | None = None

    @property
    def entrance(self) -> Entrance:
        return Entrance(self.host, self.port, self.public_url, self.allowed_hosts)

    @property
    def local(self) -> str:
        """Its address on this machine."""
        return Entrance(self.host, self.port).url


@dataclass(frozen=True)
class Served(Catalog):
    """The models that a cluster makes; the others are there and can't be had."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, catalog: Catalog, names: tuple[str, ...]) -> Served:
        pictures = tuple(spec for spec in catalog.pictures if spec.name in names)
        return cls(catalog.models, pictures, names)

    def __iter__(self) -> Iterator[ModelSpec]:
        pictures = {spec.name for spec in self.pictures}
        return (self.get(name) for name in self.names if name not in pictures)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def get(self, name: str) -> ModelSpec:
        """The row called `name`. Raises UnknownModel for one that no pool makes."""
        spec = Catalog(self.models).get(name)
        if spec.name not in self.names:
            hint = f"It makes {', '.join(self.names)}."
            raise UnknownModel.of("model", "not_served", f"this cluster does not make {spec.name}.", hint)
        return spec


def settings_of(plan: Plan) -> Settings:
    """This machine's settings with those of the cluster over them. Raises SettingsError."""
    catalog = Catalog(tuple(load_settings(**plan.settings).catalog()))
    return load_settings(**{**defaults_for(plan, catalog), **plan.settings})


class Ingress:
    """One replica."""

    def __init__(self, plan: Plan, door: Door) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._app = _build(plan, door)

    def __serve_build_asgi_app__(self) -> HttpApp:
        return self._app


def _build(plan: Plan, door: Door) -> HttpApp:
    from wanreel.frontends.http.app import create_app
    from wanreel.frontends.http.keys import KeyRing
    from wanreel.frontends.ui.facts import Facts
    from wanreel.wiring import build_runtime, build_service

    settings = settings_of(plan)
    given = (settings.http.api_key.get_secret_value(),) if settings.http.api_key else ()
    runtime = build_runtime(settings)
    runtime.catalog = Served.of(runtime.catalog, plan.models)
    # The weights lie on the workers' machines.
    runtime.shelf = replace(runtime.shelf, elsewhere=frozenset(plan.models))
    app = create_app(
        runtime,
        build_service(runtime),
        door.entrance,
        KeyRing(settings.data.keys, given),
        submits_per_minute=door.submits_per_minute,
        # The page runs apart.
        make_page=lambda house, _intake: Facts(house, lambda: settings, runtime.pictures.open),
    )
    app.house.on_demand = True
    if plan.replicas > 1:
        app.house.replica = serve.get_replica_context().replica_id.unique_id
        app.house.rates.sharers = plan.replicas
    return app


def deploy(plan: Plan, door: Door, options: Mapping[str, Any]) -> None:
    """Start the replicas or, where there are some already, replace them one by one; `options`: where they may run."""
    wrapped: Any = serve.ingress()(Ingress)
    deployment: Any = serve.deployment(
        wrapped,
        name="api",
        num_replicas=plan.replicas,
        ray_actor_options={"num_cpus": 0, **options},
        max_ongoing_requests=_AT_A_TIME,
        graceful_shutdown_timeout_s=_LAST_WORDS,
    )
    serve.run(deployment.bind(plan, door), name=APP, route_prefix="/")
