"""`wanreel ui`: the page by itself, before a server elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Iterable
from typing import Any

import click

from wanreel.core.errors import MissingDependency, RemoteError, SettingsError
from wanreel.core.settings import Settings, load_settings
from wanreel.frontends.cli.serve import bound
from wanreel.frontends.http.entrance import Entrance, entrance_for
from wanreel.frontends.http.keys import SCOPES, KeyRing
from wanreel.host import ask_to_stop, start_piped, stop_signals

_STDIN = "-"
_STOP = 20.0  # seconds
_KEY_NAME = "page"


@click.command()
@click.option("--backend-url", "--backend_url", "backend_url", required=True, help="The API, as http://name:8000.")
@click.option(
    "--api-key",
    help="What the API is asked with, kept here; `-` reads it from the input. WANREEL_REMOTE__API_KEY does not show up in "
    "lists of processes. Without one visitors sign in with keys of the API.",
)
@click.option("--host", help="Address to listen on; 127.0.0.1 by default.")
@click.option("--port", type=click.IntRange(0, 65_535), help="7860 by default; 0 takes a free one.")
@click.option("--public-url", help="Where users find it behind a proxy. Needs a key.")
@click.option("--allow-host", "allowed_hosts", multiple=True, help="A further name it may be called by.")
@click.option("--create-key/--no-create-key", default=None, help="Make a key for visitors where one is needed.")
@click.option("--t2v_model_path", "t2v", hidden=True, help="For reference: the API's models are shown.")
@click.option("--i2v_model_path", "i2v", hidden=True, help="For reference: the API's models are shown.")
def ui(**given: Any) -> int:
    """Serve the page from a process of its own; the work is done by the server at --backend-url.

    Calls and event streams pass through this process, and the API's key stays in it: browsers never see it.
    """
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise MissingDependency("The page takes Gradio, which is not installed.", hint="pip install 'wanreel[ui]'")
    from wanreel.frontends.http.server import build_server
    from wanreel.frontends.ui.apart import Apart, check_backend

    settings = load_settings()
    backend, key = given["backend_url"].rstrip("/"), _key(settings, given["api_key"])
    http = settings.http
    wanted = entrance_for(
        given["host"] or http.host,
        http.port if given["port"] is None else given["port"],
        given["public_url"] or http.public_url,
        given["allowed_hosts"] or http.allowed_hosts,
    )
    listener = bound(wanted)
    with listener:
        entrance = Entrance(wanted.host, listener.getsockname()[1], wanted.public_url, wanted.allowed_hosts)
        ring = KeyRing(settings.data.keys)
        made = _made_key(settings, ring, entrance, given["create_key"]) if key else None
        check_backend(backend, key, entrance, have_keys=bool(ring))
        app = Apart(backend, key, entrance, settings, ring)
        server = build_server(app, lambda: None, http.trusted_proxies)
        click.echo(f"Wanreel's page listens on {entrance.url} and asks {backend}.")
        if made is not None:
            click.echo(f"A new key for visitors, shown this once: {made}")
            click.echo(f"Sign in: {entrance.url}{app.links.create(made)} (works once, for 15 minutes)")
        with stop_signals(server.stop):
            server.run(sockets=[listener])
    return 0


def _key(settings: Settings, given: str | None) -> str:
    """The key for the API. Raises SettingsError for one that no header can carry."""
    if given == _STDIN:
        given = sys.stdin.readline().strip()
    kept = settings.remote.api_key
    key = given if given is not None else kept.get_secret_value() if kept is not None else ""
    if not key.isascii() or (key and not key.isprintable()):
        raise SettingsError("--api-key: this is no key.", hint="Copy it whole, as `wanreel keys create` showed it.")
    return key


def _made_key(settings: Settings, ring: KeyRing, entrance: Entrance, wanted: bool | None) -> str | None:
    """A new key where visitors need one and there is none."""
    if not entrance.needs_key or ring or not (sys.stdout.isatty() if wanted is None else wanted):
        return None
    settings.data.root.mkdir(parents=True, exist_ok=True)
    return ring.create(_KEY_NAME, SCOPES, owner="")


@contextlib.contextmanager
def started(backend: str, host: str, port: int, names: Iterable[str] = ()) -> Generator[str]:
    """The page in a process of its own while it is open; its address. Visitors sign in with keys of the API."""
    command = [sys.executable, "-m", "wanreel", "ui", "--backend-url", backend, "--api-key", _STDIN]
    allowed = [part for name in names for part in ("--allow-host", name)]
    process = start_piped([*command, "--host", host, "--port", str(port), *allowed])
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")  # no key
        process.stdin.close()
        line = process.stdout.readline().decode()
        _, _, rest = line.partition(" listens on ")
        if not rest:
            raise RemoteError("The page does not start.", hint="Try `wanreel ui` by itself.")
        yield rest.split()[0]
    finally:
        ask_to_stop(process)
        try:
            process.wait(_STOP)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
