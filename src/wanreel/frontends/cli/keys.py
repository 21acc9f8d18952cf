"""`wanreel keys`: API keys of `wanreel serve`."""

from __future__ import annotations

import json
import time

import click

from wanreel.core.settings import load_settings
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.http.keys import SCOPES, KeyRing


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys of `wanreel serve`."""


@keys.command("create")
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="read and submit by default.")
@click.option("--owner", help="Keys of one owner see each other's jobs; the key's name by default.")
@click.option("--per-minute", type=click.IntRange(min=1), help="Submissions allowed a minute.")
def create(name: str, scopes: tuple[str, ...], owner: str | None, per_minute: int | None) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept."""
    key = _ring().create(name, scopes or ("read", "submit"), owner=owner, submits_per_minute=per_minute)
    click.echo(key)


@keys.command("list")
@json_option
def list_keys(json_: bool) -> int:
    """List the keys, without what is secret."""
    rows = [
        {
            "name": key.name,
            "owner": key.owner,
            "scopes": list(key.scopes),
            "created_at": int(key.created_at),
            "submits_per_minute": key.submits_per_minute,
        }
        for key in _ring().list()
    ]
    if json_:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return 0
    if not rows:
        click.echo("There are no keys. `wanreel keys create NAME` makes one.")
    for key in _ring().list():
        when = time.strftime("%Y-%m-%d", time.localtime(key.created_at))
        limit = f", {key.submits_per_minute} a minute" if key.submits_per_minute else ""
        click.echo(f"{key.name}  owner {key.owner}, {'+'.join(key.scopes)}{limit}, since {when}")
    return 0


@keys.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a key. A running server turns it away at once."""
    _ring().revoke(name)
    click.echo(f"Revoked {name}.")


def _ring() -> KeyRing:
    return KeyRing(load_settings().data.keys)
