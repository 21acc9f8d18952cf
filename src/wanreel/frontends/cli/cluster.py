"""`wanreel cluster`: many machines as one, on Ray."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wanreel.core.catalog import Catalog
from wanreel.core.errors import SettingsError, WanreelError
from wanreel.core.settings import Settings, load_settings
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.ray import node
from wanreel.frontends.ray.plan import I2V_MODEL, T2V_MODEL, Pace, Plan, Pool, dual
from wanreel.host import stop_signals

if TYPE_CHECKING:
    from wanreel.frontends.ray.cluster import Cluster, Sign
    from wanreel.frontends.ray.ingress import Door

_PATIENCE = 120.0  # seconds for running jobs to save their state
_LOOK = 2.0  # seconds
_UNANSWERED = 30  # looks
_SIGN = "cluster.json"
_PORT = click.IntRange(0, 65_535)
_PORT_OF_API = 8000  # Ray Serve's own


def _plan_options(command: Any) -> Any:
    """What a cluster consists of."""
    options = (
        click.option("--t2v_model_path", "--t2v-model", "t2v", help=f"Makes videos from text; {T2V_MODEL} by default."),
        click.option(
            "--i2v_model_path", "--i2v-model", "i2v", help=f"Makes them from pictures; {I2V_MODEL} by default."
        ),
        click.option(
            "--pool",
            "pools",
            multiple=True,
            metavar="'NAME=MODEL[,…] [gpus=N] [cpus=N] [workers=A-B]'",
            help="A pool of workers; any number of them, in the place of the two by default.",
        ),
        click.option("--gpus", type=float, help="GPUs of each worker, also a part of one. One where there are any."),
        click.option("--workers", metavar="A-B", help="Fewest and most workers of each pool; 0-64 by default."),
        click.option("--replicas", type=click.IntRange(1, 64), default=1, help="Processes of the HTTP API."),
        click.option("--output_path", "--out", "out", type=click.Path(path_type=Path), help="Folder of results."),
        click.option("--models-dir", type=click.Path(path_type=Path), help="Folder of weights, on every machine."),
        click.option("--target", type=click.FloatRange(1.0), help="Seconds in which what waits is to be done."),
        click.option("--idle", type=click.FloatRange(0.0), help="Seconds after which a worker without work leaves."),
        click.option("--turn", type=click.FloatRange(0.0), help="Seconds before a worker makes room for another pool."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_ADDRESS = click.option(
    "--address", metavar="HOST:PORT", default="", help="Ray that runs already; `auto` finds it here."
)


@click.group()
def cluster() -> None:
    """Many machines as one: the API under Ray Serve, workers as Ray actors, on the queue that all share."""


@cluster.command()
@_ADDRESS
@click.option("--host", help="Address that the API listens on; 127.0.0.1 by default. Others need a key.")
@click.option("--port", type=_PORT, help="Of the API; 8000 by default.")
@click.option("--public-url", help="Where users find it behind a proxy. Needs a key.")
@click.option("--allow-host", "allowed_hosts", multiple=True, help="A further name it may be called by.")
@click.option("--with-ui", is_flag=True, help="Also serve the page, from a process of its own.")
@click.option("--ui-port", type=_PORT, default=7860, help="Of the page; 7860 by default.")
@click.option("--backend_url", "--backend-url", "backend_url", help="The API as the page finds it, if not here.")
@click.option("--ray-ip", default="127.0.0.1", help="This machine's address for the cluster's other machines.")
@click.option("--ray-port", type=_PORT, default=0, help="Of Ray's first machine; a free one by default.")
@click.option("--ray-cpus", type=click.IntRange(0), help="Cores that Ray counts here; 0 leaves workers to others.")
@click.option("--ray-gpus", type=click.IntRange(0), help="GPUs that Ray counts here.")
@click.option(
    "--ray-network-is-private", is_flag=True, help="Nobody else reaches Ray's ports: a firewall sees to that."
)
@click.option("--quiet", is_flag=True, help="Only addresses and warnings.")
@_plan_options
def up(**given: Any) -> int:
    """Bring up the API and pools of workers, and serve until stopped.

    Without --address Ray is started on this machine; others join with `wanreel cluster join`. Ctrl-C saves the state of
    running jobs and ends everything.
    """
    settings = load_settings()
    door = _door(settings, given)
    plan = _plan(settings, given)
    with contextlib.ExitStack() as stack:
        address, pid = _ray(stack, settings, given)
        opened = stack.enter_context(_connected(address, door, quiet=given["quiet"]))
        _refuse_public(given)
        stopping = threading.Event()
        stack.enter_context(stop_signals(lambda _name="": stopping.set()))
        sign = settings.data.root / _SIGN
        stack.callback(_end, opened, sign)
        opened.up(plan)
        _sign(door, address, pid).write(sign)
        url = door.entrance.url
        click.echo(f"Wanreel's API listens on {url} ({_key_rule(settings, door)}).")
        for pool in plan.pools:
            click.echo(f"Pool {pool.name}: {', '.join(pool.models)}, {pool.least} to {pool.most} workers.")
        click.echo(f"Ray: {address}. The cluster is up; Ctrl-C ends it.")
        if given["with_ui"]:
            page = stack.enter_context(_page(given["backend_url"] or door.local, door, given["ui_port"]))
            click.echo(f"The page is at {page}.")
        _serve(stopping, opened)
    return 0


@cluster.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--ray-ip", required=True, help="This machine's address for the cluster's other machines.")
@click.option("--cpus", type=click.IntRange(0), help="Cores that Ray counts here.")
@click.option("--gpus", type=click.IntRange(0), help="GPUs that Ray counts here.")
@click.option(
    "--ray-network-is-private", is_flag=True, help="Nobody else reaches Ray's ports: a firewall sees to that."
)
def join(address: str, ray_ip: str, cpus: int | None, gpus: int | None, ray_network_is_private: bool) -> int:
    """Add this machine to the cluster whose Ray is at HOST:PORT, until stopped.

    The machine brings its own settings: the same WANREEL_DATABASE_URL and storage as the others, and ray.token from the
    first machine's data directory.
    """
    settings = load_settings()
    node.need_ray()
    node.guard(settings.data.root, make=False)
    node.refuse_public(node.own_addresses(), private=ray_network_is_private)
    stopping = threading.Event()
    log = settings.data.root / "logs" / f"ray-{os.getpid()}.log"
    with (
        stop_signals(lambda _name="": stopping.set()),
        node.running(log, address, ip=ray_ip, cpus=cpus, gpus=gpus) as here,
    ):
        click.echo(f"This machine has joined {address}. Ctrl-C takes it out.")
        while not stopping.wait(_LOOK):
            here.check()
    return 0


@cluster.command()
@_ADDRESS
@_plan_options
def update(address: str, **given: Any) -> int:
    """Have another plan, or the same with a newer program: everything is replaced, and no job is lost.

    New workers start first; old ones leave when their job is done. The API's processes are replaced one by one.
    """
    settings = load_settings()
    plan = _plan(settings, given)
    with _found(settings, address) as (opened, _):
        new = opened.update(plan)
    click.echo(f"Generation {new.generation} is on its way; `wanreel cluster status` shows how far.")
    return 0


@cluster.command()
@_ADDRESS
@json_option
def status(address: str, json_: bool) -> int:
    """Show machines, pools, workers and what they do."""
    with _found(load_settings(), address) as (opened, _):
        told = opened.status()
    if json_:
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        _tell(told)
    return 0


@cluster.command()
@_ADDRESS
@click.option("--seconds", type=click.FloatRange(0.0), default=_PATIENCE, help="For running jobs to save their state.")
def down(address: str, seconds: float) -> int:
    """End the cluster. Running jobs save their state and go back in line."""
    settings = load_settings()
    with _found(settings, address) as (opened, sign):
        ended = opened.down(seconds)
    if sign is not None:
        (settings.data.root / _SIGN).unlink(missing_ok=True)
        # The process that brought it up sees that it is gone, and ends Ray; where that was killed, Ray is left over.
        node.end_orphan(sign.pid, sign.ray_pid)
    click.echo(
        "The cluster is down." if ended else "The cluster is down. Some workers had to be ended; their jobs go on."
    )
    return 0


# What was asked for


def _plan(settings: Settings, given: dict[str, Any]) -> Plan:
    """Raises SettingsError."""
    catalog = Catalog(tuple(settings.catalog()))
    if given["pools"]:
        if given["t2v"] or given["i2v"]:
            raise SettingsError("--pool stands in the place of --t2v_model_path and --i2v_model_path.")
        pools = tuple(Pool.parse(text, catalog) for text in given["pools"])
    else:
        pools = dual(given["t2v"] or T2V_MODEL, given["i2v"] or I2V_MODEL, catalog)
    for key, value in (("gpus", given["gpus"]), ("workers", given["workers"])):
        if value is not None:
            pools = tuple(pool.with_word(f"{key}={value}") for pool in pools)
    over = {
        name: str(folder.expanduser().resolve())
        for name, folder in (("outputs_dir", given["out"]), ("models_dir", given["models_dir"]))
        if folder is not None
    }
    times = {name: given[name] for name in ("target", "idle", "turn") if given[name] is not None}
    return Plan(pools, Pace(**times), given["replicas"], over)


def _door(settings: Settings, given: dict[str, Any]) -> Door:
    """Raises SettingsError where others could come in without a key, before anything has begun."""
    from wanreel.frontends.cli.serve import bound
    from wanreel.frontends.http.entrance import entrance_for

    node.need_ray()
    node.guard(settings.data.root, make=True)
    from wanreel.frontends.ray.ingress import Door

    http = settings.http
    wanted = _PORT_OF_API if given["port"] is None else given["port"]
    names = given["allowed_hosts"] or http.allowed_hosts
    entrance = entrance_for(given["host"] or http.host, wanted, given["public_url"] or http.public_url, names)
    entrance.require_key(have=_has_key(settings))
    with bound(entrance) as listener:
        port = listener.getsockname()[1]
    if wanted not in (0, port):
        click.echo(f"Port {wanted} is taken by another program; using {port} instead. Choose with --port.", err=True)
    return Door(entrance.host, port, entrance.public_url, entrance.allowed_hosts, http.submits_per_minute)


def _has_key(settings: Settings) -> bool:
    from wanreel.frontends.http.keys import KeyRing

    return settings.http.api_key is not None or bool(KeyRing(settings.data.keys))


def _key_rule(settings: Settings, door: Door) -> str:
    needed = door.entrance.needs_key or _has_key(settings)
    return "every request needs an API key" if needed else "for this machine only, without a key"


# Ray


def _ray(stack: contextlib.ExitStack, settings: Settings, given: dict[str, Any]) -> tuple[str, int]:
    """The address of the Ray that runs, or that is started here while `stack` is open, and its process; 0 for another's."""
    node.refuse_public(node.own_addresses(), private=given["ray_network_is_private"])
    if given["address"]:
        return given["address"], 0
    log = settings.data.root / "logs" / "ray.log"
    amounts = {"cpus": given["ray_cpus"], "gpus": given["ray_gpus"]}
    here = stack.enter_context(node.running(log, ip=given["ray_ip"], port=given["ray_port"], **amounts))
    if not given["quiet"]:
        click.echo(
            f"Ray listens for other machines on {', '.join(here.listeners())}: keep that network private.", err=True
        )
    return here.address, here.process.pid


def _refuse_public(given: dict[str, Any]) -> None:
    from wanreel.frontends.ray.cluster import node_addresses

    node.refuse_public(node_addresses(), private=given["ray_network_is_private"])


@contextlib.contextmanager
def _connected(address: str, door: Door, *, quiet: bool) -> Generator[Cluster]:
    from wanreel.frontends.ray.cluster import Cluster, connected

    with connected(address, quiet=quiet):
        yield Cluster(door)


@contextlib.contextmanager
def _found(settings: Settings, address: str) -> Generator[tuple[Cluster, Sign | None]]:
    """The cluster at `address`, or the one that this data directory tells of. Raises SettingsError."""
    node.need_ray()
    node.guard(settings.data.root, make=False)
    from wanreel.frontends.ray.cluster import Sign
    from wanreel.frontends.ray.ingress import Door

    sign = Sign.read(settings.data.root / _SIGN)
    if sign is None and not address:
        raise SettingsError("No cluster was brought up from this data directory.", hint="Name one with --address.")
    door = Door(settings.http.host, _PORT_OF_API)
    if sign is not None:
        row: dict[str, Any] = {**sign.door, "allowed_hosts": frozenset(sign.door["allowed_hosts"])}
        door = Door(**row)
    with _connected(address or (sign.address if sign else ""), door, quiet=True) as opened:
        yield opened, sign


def _sign(door: Door, address: str, ray_pid: int) -> Sign:
    from dataclasses import asdict

    from wanreel.frontends.ray.cluster import Sign

    values = asdict(door) | {"allowed_hosts": sorted(door.allowed_hosts)}
    return Sign(address, door.entrance.url, os.getpid(), ray_pid, values)


def _serve(stopping: threading.Event, opened: Cluster) -> None:
    """Until asked to stop, or until somebody ended the cluster. Raises WanreelError when nobody answers any more."""
    unanswered = 0
    while not stopping.wait(_LOOK):
        try:
            opened.check()
            unanswered = 0
        except SettingsError:
            click.echo("The cluster was ended from elsewhere.", err=True)
            return
        except WanreelError:
            # The controller is started anew where its machine died, which takes a while.
            unanswered += 1
            if unanswered > _UNANSWERED:
                raise


def _end(opened: Cluster, sign: Path) -> None:
    click.echo("Ending the cluster: running jobs save their state.", err=True)
    sign.unlink(missing_ok=True)
    try:
        opened.down(_PATIENCE)
    except WanreelError as error:
        logging.getLogger(__name__).warning("%s", error)


@contextlib.contextmanager
def _page(backend: str, door: Door, port: int) -> Generator[str]:
    from wanreel.frontends.cli.ui import started

    with started(backend, door.host, port, door.allowed_hosts) as url:
        yield url


def _tell(told: dict[str, Any]) -> None:
    """The status for people."""
    alive = [row for row in told["machines"] if row["alive"]]
    click.echo(f"machines  {len(alive)}: {', '.join(sorted({row['address'] for row in alive}))}")
    replicas = ", ".join(f"{count} {state.lower()}" for state, count in told["api"]["replicas"].items())
    click.echo(
        f"API       {told['api']['status'].lower()} ({replicas or 'no process'}), generation {told['generation']}"
    )
    for pool in told["pools"]:
        line = f"{pool['queued']} queued"
        if pool["predicted_seconds"]:
            line += f", {pool['predicted_seconds']:.0f} s of work"
        click.echo(
            f"pool      {pool['name']}: {', '.join(pool['models'])}; {line}; {pool['least']}-{pool['most']} workers"
        )
        for row in pool["workers"]:
            at = f" on {row['machine']}" if row["machine"] else ""
            job = f", job {row['job']}" if row["job"] else ""
            click.echo(f"          {row['name']}: {row['state']}{at}, generation {row['generation']}{job}")
        for fault in pool["faults"][-1:]:
            click.echo(f"          last fault: {fault}")
    if told["unserved"]:
        click.echo(f"unserved  {told['unserved']} queued jobs ask for models that no pool makes.")
    if told["fault"]:
        click.echo(f"fault     {told['fault']}")
