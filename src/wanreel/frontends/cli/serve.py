"""`wanreel serve`: the web page and the HTTP API, and the workers that make the videos."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wanreel.core.errors import SettingsError, WanreelError
from wanreel.core.parallel import parse_parallel
from wanreel.core.settings import Settings, load_settings
from wanreel.core.settings_groups import HttpSettings
from wanreel.frontends.cli.gpus import choice_of, gpu_options, gpu_settings
from wanreel.frontends.cli.session import traced
from wanreel.frontends.cli.sharing import GradioTunnel, Sharing, Tunnel
from wanreel.frontends.cli.welcome import Greeter
from wanreel.frontends.http.entrance import Entrance, Shared, entrance_for
from wanreel.frontends.http.keys import SCOPES, KeyRing
from wanreel.host import stop_signals
from wanreel.wiring import Runtime, build_runtime, build_service, look_at_queue
from wanreel.wiring.ranks import devices_of
from wanreel.worker.arrangement import GpuChoice
from wanreel.worker.supervisor import Supervisor, rearranging, worker_commands

if TYPE_CHECKING:
    from wanreel.frontends.http.app import HttpApp
    from wanreel.frontends.http.doorway import MakePage
    from wanreel.frontends.http.server import Server
    from wanreel.frontends.telemetry import Tracing

_LOOK = 0.5  # seconds
_BACKLOG = 1024  #: connections that the kernel holds before they are taken
_PORTS_TRIED = 20
_LAST_PORT = 65_535
_KEY_NAME = "launcher"


@dataclass(frozen=True)
class Choices:
    """What the command line chose beside settings."""

    device: str
    gpus: GpuChoice
    workers: int | None  #: None: one for each GPU
    worker_options: tuple[str, ...]
    page: bool
    share: bool
    create_key: bool
    open: bool
    json_log: bool
    quiet: bool


@click.command()
@click.option("--host", "--server_name", "host", help="Address to listen on; 127.0.0.1 by default. Others need a key.")
@click.option("--localhost", is_flag=True, help="Listen on 127.0.0.1, whatever the settings say.")
@click.option(
    "--port", "--server_port", "port", type=click.IntRange(0, _LAST_PORT), help="7860 by default; 0 takes a free one."
)
@click.option("--share", is_flag=True, help="Also make it reachable from everywhere, through Gradio's tunnel.")
@click.option("--create-key/--no-create-key", default=None, help="Make an API key where one is needed and none is.")
@click.option("--public-url", help="Where users find it behind a proxy, as https://name/path. Needs a key.")
@click.option("--allow-host", "allowed_hosts", multiple=True, help="A further name it may be called by.")
@click.option("--trusted-proxy", "trusted_proxies", multiple=True, help="Proxy whose X-Forwarded headers are believed.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that make videos; one for each GPU by default.")
@click.option("--device", help="Of the workers: auto (every GPU, or the CPU), cpu, cuda, cuda:1, …")
@click.option("--api-only", is_flag=True, help="Start no worker; run `wanreel worker` yourself.")
@click.option("--models-dir", "--cache_dir", "models_dir", type=click.Path(path_type=Path), help="Folder of weights.")
@click.option(
    "--auto-load",
    "--auto_load_model",
    "auto_load",
    is_flag=False,
    flag_value="default",
    metavar="[MODEL]",
    help="Load a model as the workers start; without a name the default one.",
)
@click.option("--no-auto-load", is_flag=True, help="Load no model before it is needed.")
@gpu_options
@click.option("--page/--no-page", default=True, help="With the web page, or the API alone.")
@click.option("--open/--no-open", "open_", default=False, help="Open the page in a browser where there is a desktop.")
@click.option("--json-log", is_flag=True, help="Log lines as JSON.")
@click.option("--no-color", is_flag=True, help="No colours.")
@click.option("--quiet", is_flag=True, help="Only warnings.")
def serve(**given: Any) -> int:
    """Serve the web page and the HTTP API, and make the videos that are asked for, until stopped.

    Ctrl-C or SIGTERM answers what was asked, saves the running step and exits; jobs go on at the next start.
    """
    settings, http, choices = _chosen(given)
    _log(http, as_json=choices.json_log, quiet=choices.quiet)
    if settings.multi_gpu and choices.workers != 0:
        devices_of(settings)  # before anything else has begun
    greeter = Greeter(quiet=choices.quiet, no_color=given["no_color"], logged=choices.json_log)
    with _listening(http, greeter, shared=choices.share) as (entrance, listener):
        key = _create_key(settings, http, entrance, wanted=choices.create_key)
        with (
            traced(settings, "wanreel-api") as tracing,
            _built(settings, http, entrance, tracing, page=choices.page) as (app, server),
        ):
            greeter.welcome(settings, entrance, _devices(choices))
            click.echo(f"Wanreel listens on {entrance.url} ({_key_rule(settings, http, entrance)}).")
            _tell_key(app, entrance, key)
            with _around(app, server, entrance, choices, GradioTunnel(settings.data.root / "share")):
                return _run(server, listener, lambda: _supervisor(settings, choices))


def _chosen(given: dict[str, Any]) -> tuple[Settings, HttpSettings, Choices]:
    """Settings with what the command line says. Raises SettingsError."""
    over: dict[str, Any] = {}
    if given["models_dir"] is not None:
        over["models_dir"] = given["models_dir"].expanduser().resolve()
    if given["no_auto_load"]:
        over["auto_load"] = ""
    elif given["auto_load"] is not None:
        over["auto_load"] = given["auto_load"]
    if given["device"] is not None:
        over["device"] = given["device"]
    settings = load_settings(**over, **gpu_settings(given))
    named = {name: given[name] for name in HttpSettings.model_fields if given.get(name) not in (None, ())}
    http = settings.http.model_copy(update=named | ({"host": "127.0.0.1"} if given["localhost"] else {}))
    options = ["--quiet"]
    if "models_dir" in over:
        options += ["--models-dir", str(over["models_dir"])]
    if "auto_load" in over:
        options += ["--auto-load", over["auto_load"]]
    terminal = sys.stdout.isatty()
    choices = Choices(
        device=settings.device,
        gpus=choice_of(settings),
        workers=0 if given["api_only"] else given["workers"],
        worker_options=tuple(options),
        page=given["page"],
        share=given["share"],
        create_key=terminal if given["create_key"] is None else given["create_key"],
        open=given["open_"],
        json_log=given["json_log"],
        quiet=given["quiet"],
    )
    return settings, http, choices


def _log(http: HttpSettings, *, as_json: bool, quiet: bool) -> None:
    from wanreel.frontends.http.logs import Scrubber, log_to_stderr

    level = logging.WARNING if quiet else logging.INFO
    log_to_stderr(Scrubber(_given_keys(http)), as_json=as_json, level=level)


@contextlib.contextmanager
def _listening(http: HttpSettings, greeter: Greeter, *, shared: bool) -> Generator[tuple[Entrance, socket.socket]]:
    """A socket, and how it is reached. Raises SettingsError before anything else has begun."""
    # Checked before anybody can connect.
    wanted = entrance_for(http.host, http.port, http.public_url, http.allowed_hosts)
    wanted = replace(wanted, shared=Shared() if shared else None)
    with bound(wanted) as listener:
        port = listener.getsockname()[1]
        if http.port not in (0, port):
            greeter.note(f"Port {http.port} is taken by another program; using {port} instead. Choose with --port.")
        yield replace(wanted, port=port), listener


def bound(wanted: Entrance) -> socket.socket:
    """A listening socket on the port wanted or, where that is taken, on the next one that is free."""
    family = socket.AF_INET6 if ":" in wanted.host else socket.AF_INET
    # A proxy expects one port.
    tried = 1 if wanted.public_url or not wanted.port else _PORTS_TRIED
    for port in range(wanted.port, min(wanted.port + tried, _LAST_PORT + 1)):
        try:
            return socket.create_server((wanted.host, port), family=family, backlog=_BACKLOG)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE and tried > 1:
                continue
            where = replace(wanted, public_url="").url
            raise SettingsError(
                f"{where} can't be listened on: {exc.strerror}.", hint="Choose another --port, or stop what uses it."
            ) from exc
    raise SettingsError(
        f"The ports {wanted.port} to {wanted.port + tried - 1} are all taken.", hint="Choose another --port."
    )


def _create_key(settings: Settings, http: HttpSettings, entrance: Entrance, *, wanted: bool) -> str | None:
    """A new key where one is needed and there is none; None otherwise."""
    ring = KeyRing(settings.data.keys, _given_keys(http))
    if not entrance.needs_key or ring or not wanted:
        return None
    settings.data.root.mkdir(parents=True, exist_ok=True)
    return ring.create(_KEY_NAME, SCOPES, owner="")


@contextlib.contextmanager
def _built(
    settings: Settings, http: HttpSettings, entrance: Entrance, tracing: Tracing | None, *, page: bool
) -> Generator[tuple[HttpApp, Server]]:
    """The server over the queue of the data directory."""
    from wanreel.frontends.http.app import create_app
    from wanreel.frontends.http.server import build_server

    ring = KeyRing(settings.data.keys, _given_keys(http))
    entrance.require_key(have=bool(ring))
    runtime = build_runtime(settings)
    service = build_service(runtime)
    try:
        app = create_app(
            runtime,
            service,
            entrance,
            ring,
            submits_per_minute=http.submits_per_minute,
            make_page=_page_maker(runtime) if page else _facts_maker(runtime),
            tracing=tracing,
        )
        yield app, build_server(app, app.begin_to_stop, http.trusted_proxies)
    finally:
        service.close()
        runtime.close()


def _page_maker(runtime: Runtime) -> MakePage:
    from wanreel.frontends.ui.studio import Studio

    return lambda house, intake: Studio(house, intake, lambda: runtime.settings, runtime.pictures.open)


def _facts_maker(runtime: Runtime) -> MakePage:
    """For a page that runs elsewhere."""
    from wanreel.frontends.ui.facts import Facts

    return lambda house, _intake: Facts(house, lambda: runtime.settings, runtime.pictures.open)


def _given_keys(http: HttpSettings) -> tuple[str, ...]:
    return (http.api_key.get_secret_value(),) if http.api_key else ()


def _key_rule(settings: Settings, http: HttpSettings, entrance: Entrance) -> str:
    if entrance.needs_key or KeyRing(settings.data.keys, _given_keys(http)):
        return "every request needs an API key"
    return "for this machine only, without a key"


def _tell_key(app: HttpApp, entrance: Entrance, key: str | None) -> None:
    """A new key, and a link that signs in without one. On stdout alone: logs must not hold them."""
    if key is not None:
        click.echo(f"A new API key, shown this once: {key}")
    if key is not None or entrance.shared is not None:
        click.echo(f"Sign in: {entrance.url}{app.links.create(key)} (works once, for 15 minutes)")


@contextlib.contextmanager
def _around(app: HttpApp, server: Server, entrance: Entrance, choices: Choices, tunnel: Tunnel) -> Generator[None]:
    """What goes on beside the server: a tunnel, a browser."""

    def opened(url: str) -> None:
        click.echo(f"Public address: {url}")
        click.echo(f"Sign in from elsewhere: {url}{app.links.create()} (works once, for 15 minutes)")

    def failed(error: WanreelError) -> None:
        click.echo(f"Not shared: {error} It goes on at {entrance.url}.", err=True)

    with contextlib.ExitStack() as stack:
        if entrance.shared is not None:
            stack.enter_context(Sharing(tunnel, entrance.port, entrance.shared, opened, failed))
        if choices.open and choices.page:
            from wanreel.frontends.cli.browser import Opener

            stack.enter_context(Opener(lambda: server.started, lambda: _page_of(app, entrance)))
        yield


def _page_of(app: HttpApp, entrance: Entrance) -> str:
    """Where the browser of this machine's user goes: to a link of his own where he would have to sign in."""
    try:
        return entrance.url + app.links.create()
    except SettingsError:
        return f"{entrance.url}/"


def _devices(choices: Choices) -> str:
    """The workers in words."""
    if choices.workers == 0:
        return "none here (`wanreel worker` starts some)"
    if choices.gpus.multi_gpu and parse_parallel(choices.gpus.parallel).spread != "each":
        return f"one for all of the GPUs ({choices.gpus.parallel})"
    if choices.workers is None:
        return "one for each GPU, or one on the CPU" if choices.device == "auto" else f"one on {choices.device}"
    return f"{choices.workers} on {choices.device}"


def _supervisor(settings: Settings, choices: Choices) -> Supervisor | None:
    """Raises SettingsError for more workers than there are GPUs."""
    if choices.workers == 0:
        return None
    device, options = choices.device, choices.worker_options
    return Supervisor(
        worker_commands(device, options, choices.workers, choices.gpus),
        rearrange=rearranging(lambda: look_at_queue(settings), device, options, choices.gpus),
    )


def _run(server: Server, listener: socket.socket, make: Callable[[], Supervisor | None]) -> int:
    """Serve and supervise until stopped. The exit code."""
    supervisor: Supervisor | None = None

    def stop(signal_name: str = "") -> None:
        server.stop(signal_name)
        if supervisor is not None:
            supervisor.stop(signal_name)

    def answer() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            if not server.should_exit:
                stop()

    with stop_signals(stop):
        answering = threading.Thread(target=answer, name="http")
        answering.start()
        code = 0
        try:
            # Counting GPUs takes seconds, in which the server answers already.
            supervisor = make()
            if supervisor is not None and not server.should_exit:
                code = supervisor.run()
        finally:
            if supervisor is not None or code:
                server.leave()
        while answering.is_alive():
            answering.join(_LOOK)  # without a time, Windows would hear no Ctrl-C
        return code
