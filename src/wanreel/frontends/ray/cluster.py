"""Cluster: brought up, asked, renewed and taken down, over a connection to Ray. Knows nothing of the command line."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import httpx
import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wanreel.core.errors import SettingsError, WanreelError
from wanreel.frontends.ray import controller, ingress
from wanreel.frontends.ray.crew import NAMESPACE, named_actors
from wanreel.frontends.ray.ingress import Door
from wanreel.frontends.ray.plan import Plan
from wanreel.host import replace_durably

_LOOK = 0.2  # seconds
_ANSWER = 60.0  # seconds for the controller to answer
_HEALTHY = 180.0  # seconds for everything to be up
#: The API stays on Ray's first machine, whose data directory has the keys, the uploads and the results.
_HEAD: dict[str, Any] = {"resources": {"node:__internal_head__": 0.001}}


@dataclass(frozen=True, slots=True)
class Sign:
    """What is left in the data directory, so that other commands find the cluster."""

    address: str  #: Ray's, HOST:PORT
    url: str  #: of the API
    pid: int  #: of the process that brought it up
    ray_pid: int  #: of the Ray that it started; 0 where that ran already
    door: dict[str, Any]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        temporary.write_text(json.dumps(asdict(self)), encoding="utf-8")
        replace_durably(temporary, path)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where there is none that can be read."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


@contextlib.contextmanager
def connected(address: str, *, quiet: bool = True) -> Generator[None]:
    """This process as a driver of Ray. Raises WanreelError where Ray can't be reached, or takes another token."""
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=not quiet,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except (ConnectionError, RuntimeError, RayError) as error:
        said = " ".join(str(error).split())[:300]
        raise WanreelError(
            f"Ray at {address} can't be reached: {said}", hint="Is it running, with this token?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def node_addresses() -> list[str]:
    """Of all machines of the cluster."""
    return [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]]


@dataclass
class Cluster:
    """The cluster that this process is connected to."""

    door: Door

    def up(self, plan: Plan) -> None:
        """Bring it up and wait until it is healthy. Raises SettingsError where one is up, WanreelError where it fails."""
        if self._controller() is not None:
            raise SettingsError(
                "A cluster is up there already.",
                hint="`wanreel cluster update` changes it, `wanreel cluster down` ends it.",
            )
        self._start_controller(plan)
        options = {"host": self.door.host, "port": self.door.port, "request_timeout_s": None}
        serve.start(proxy_location="HeadOnly", http_options=options)
        self._deploy(plan)

    def update(self, plan: Plan) -> Plan:
        """Have another plan from now on. Members of the old one finish their jobs. Raises SettingsError where none is up."""
        old = self._controller()
        if old is None:
            raise _not_up()
        before: Plan = self._ask(old, "plan")
        new = replace(plan, generation=before.generation + 1)
        # Members have lives of their own: the new one finds them.
        ray.kill(old, no_restart=True)
        self._start_controller(new)
        self._deploy(new)
        return new

    def status(self) -> dict[str, Any]:
        """How everything stands, JSON-safe. Raises SettingsError where none is up."""
        found = self._controller()
        if found is None:
            raise _not_up()
        machines = [
            {"address": node["NodeManagerAddress"], "name": node["NodeManagerHostname"], "alive": node["Alive"]}
            for node in ray.nodes()
        ]
        status: dict[str, Any] = self._ask(found, "status")
        return status | {"machines": machines, "api": self._api()}

    def check(self) -> None:
        """Raises SettingsError where none is up any more, WanreelError where its controller does not answer."""
        found = self._controller()
        if found is None:
            raise _not_up()
        self._ask(found, "plan")

    def down(self, seconds: float) -> bool:
        """End it: running jobs save their state and go back in line. Whether all members ended in their own time."""
        found, ended = self._controller(), True
        if found is not None:
            self._ask(found, "close")
            until = time.monotonic() + seconds
            while (ended := not self._ask(found, "status")["members"]) is False and time.monotonic() < until:
                time.sleep(_LOOK)
            ray.kill(found, no_restart=True)
        self._kill_members()
        serve.shutdown()
        return ended

    # The API

    def _deploy(self, plan: Plan) -> None:
        try:
            ingress.deploy(plan, self.door, _HEAD)
        except RuntimeError as error:
            raise WanreelError(f"The API does not start: {_last(error)}", hint="See Ray's logs.") from error
        self._wait_for_api()

    def _wait_for_api(self) -> None:
        url = self.door.local
        until = time.monotonic() + _HEALTHY
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/ready", timeout=10.0).status_code in (200, 503):
                    return
            if time.monotonic() > until:
                raise WanreelError(f"The API at {url} does not answer.", hint="See Ray's logs.")
            time.sleep(_LOOK)

    def _api(self) -> dict[str, Any]:
        app = serve.status().applications.get(ingress.APP)
        if app is None:
            return {"status": "NOT_STARTED", "replicas": {}}
        found = app.deployments.get("api")
        replicas = {str(state): count for state, count in found.replica_states.items()} if found is not None else {}
        return {"status": str(app.status.value), "replicas": replicas}

    # The controller

    def _start_controller(self, plan: Plan) -> None:
        head = next(node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"])
        remote: Any = ray.remote(controller.Controller)
        actor = remote.options(
            name=f"{controller.NAME}.{plan.generation}",
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=4,
            num_cpus=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(head, soft=True),
        ).remote(plan)
        until = time.monotonic() + _HEALTHY
        while not (status := self._ask(actor, "status"))["looks"]:
            if time.monotonic() > until:
                break
            time.sleep(_LOOK)
        if status["fault"]:
            ray.kill(actor, no_restart=True)
            raise WanreelError(status["fault"])

    def _controller(self) -> Any:
        """The newest; None where there is none. Each has a name of its own, as Ray remembers whose a name was."""
        names = named_actors(f"{controller.NAME}.")
        for name in sorted(names, key=lambda name: int(name.rpartition(".")[2]), reverse=True):
            with contextlib.suppress(ValueError):  # it ended meanwhile
                return ray.get_actor(name, namespace=NAMESPACE)
        return None

    def _ask(self, actor: Any, what: str) -> Any:
        try:
            return ray.get(getattr(actor, what).remote(), timeout=_ANSWER)
        except RayActorError as error:
            raise WanreelError(f"The controller does not start: {_last(error)}", hint="See Ray's logs.") from error
        except RayError as error:
            raise WanreelError(f"The controller does not answer: {_last(error)}") from error

    def _kill_members(self) -> None:
        from wanreel.frontends.ray.crew import Crew

        crew = Crew()
        crew.find()
        for name in list(crew.hands):
            crew.remove(name)


def _not_up() -> SettingsError:
    return SettingsError("No cluster is up there.", hint="`wanreel cluster up` brings one up.")


def _last(error: Exception) -> str:
    """The last line of what Ray says, which holds the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
