"""`wanreel serve`: the HTTP API, and the workers that make the videos."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import click

from wanreel.core.errors import SettingsError
from wanreel.core.settings import HttpSettings, Settings, load_settings
from wanreel.frontends.http.entrance import Entrance, entrance_for
from wanreel.frontends.http.keys import KeyRing
from wanreel.host import stop_signals
from wanreel.wiring import build_runtime, build_service
from wanreel.worker.supervisor import Supervisor, worker_commands

if TYPE_CHECKING:
    from wanreel.frontends.http.server import Server

_LOOK = 0.5  # seconds
_BACKLOG = 1024  #: connections that the kernel holds before they are taken


@click.command()
@click.option("--host", help="Address to listen on; 127.0.0.1 by default. Any other needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), help="7860 by default; 0 takes a free one.")
@click.option("--public-url", help="Where users find it behind a proxy, as https://name/path. Needs a key.")
@click.option("--allow-host", "allowed_hosts", multiple=True, help="A further name it may be called by.")
@click.option("--trusted-proxy", "trusted_proxies", multiple=True, help="Proxy whose X-Forwarded headers are believed.")
@click.option("--device", help="Of the workers: auto (every GPU, or the CPU), cpu, cuda, cuda:1, …")
@click.option("--api-only", is_flag=True, help="Start no worker; run `wanreel worker` yourself.")
@click.option("--json-log", is_flag=True, help="Log lines as JSON.")
@click.option("--quiet", is_flag=True, help="Only warnings.")
def serve(device: str | None, api_only: bool, json_log: bool, quiet: bool, **given: Any) -> int:
    """Serve the HTTP API and make the videos that are asked for, until stopped.

    Ctrl-C or SIGTERM answers what was asked, saves the running step and exits; jobs go on at the next start.
    """
    settings = load_settings()
    http = settings.http.model_copy(update={name: value for name, value in given.items() if value not in (None, ())})
    _log(http, as_json=json_log, quiet=quiet)
    supervisor = None if api_only else Supervisor(worker_commands(device or settings.device, ["--quiet"]))
    with _listening(http) as (entrance, listener), _built(settings, http, entrance) as server:
        click.echo(f"Wanreel listens on {entrance.url} ({_key_rule(settings, http)}).")
        return _run(server, listener, supervisor)


def _log(http: HttpSettings, *, as_json: bool, quiet: bool) -> None:
    from wanreel.frontends.http.logs import Scrubber, log_to_stderr

    level = logging.WARNING if quiet else logging.INFO
    log_to_stderr(Scrubber(_given_keys(http)), as_json=as_json, level=level)


@contextlib.contextmanager
def _listening(http: HttpSettings) -> Generator[tuple[Entrance, socket.socket]]:
    """A socket, and how it is reached. Raises SettingsError before anything else has begun."""
    # Checked before anybody can connect.
    wanted = entrance_for(http.host, http.port, http.public_url, http.allowed_hosts)
    try:
        family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
        listener = socket.create_server((http.host, http.port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        raise SettingsError(
            f"{wanted.url} can't be listened on: {exc.strerror}.", hint="Choose another --port, or stop what uses it."
        ) from exc
    with listener:
        yield entrance_for(http.host, listener.getsockname()[1], http.public_url, http.allowed_hosts), listener


@contextlib.contextmanager
def _built(settings: Settings, http: HttpSettings, entrance: Entrance) -> Generator[Server]:
    """The server over the queue of the data directory."""
    from wanreel.frontends.http.app import create_app
    from wanreel.frontends.http.server import build_server
    from wanreel.frontends.ui.studio import Studio

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
            make_page=lambda house, intake: Studio(house, intake, lambda: runtime.settings),
        )
        yield build_server(app, app.begin_to_stop, http.trusted_proxies)
    finally:
        service.close()
        runtime.close()


def _given_keys(http: HttpSettings) -> tuple[str, ...]:
    return (http.api_key.get_secret_value(),) if http.api_key else ()


def _key_rule(settings: Settings, http: HttpSettings) -> str:
    if KeyRing(settings.data.keys, _given_keys(http)):
        return "every request needs an API key"
    return "for this machine only, without a key"


def _run(server: Server, listener: socket.socket, supervisor: Supervisor | None) -> int:
    """Serve and supervise until stopped. The exit code."""

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
        if supervisor is not None:
            code = supervisor.run()
            server.leave()
        while answering.is_alive():
            answering.join(_LOOK)  # without a time, Windows would hear no Ctrl-C
        return code
