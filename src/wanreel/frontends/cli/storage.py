"""`wanreel storage`: the profiles of object storage, and whether they work."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import httpx

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import RemoteError, WanreelError
from wanreel.core.settings import load_settings
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.failure import as_json, exit_code, explain
from wanreel.storage.depots import Depot, Depots
from wanreel.storage.objects import Parcel

_PROBE = 1024  # bytes
_TIMEOUT = 30.0  # seconds


@click.group(invoke_without_command=True)
@click.pass_context
def storage(context: click.Context) -> int:
    """List the storage profiles, or check one: `wanreel storage check PROFILE`."""
    if context.invoked_subcommand is not None:
        return 0
    settings = load_settings()
    for name, profile in sorted(settings.storage.items()):
        place = f"{profile.endpoint or 'AWS'}, {profile.bucket}/{profile.prefix}".rstrip("/")
        click.echo(f"{name:<16} {place}{'  (default)' if name == settings.default_storage else ''}")
    if not settings.storage:
        click.echo("There is no storage profile. They stand in config.toml under [storage.NAME]; see docs/storage.md.")
    return 0


@storage.command()
@click.argument("profile")
@json_option
def check(profile: str, json_: bool) -> int:
    """Put a small object into PROFILE's bucket, read it in both ways, delete it, and say what is wrong."""
    done: list[str] = []
    try:
        for step in _steps(Depots(load_settings().destination).get(profile)):
            done.append(step)
            if not json_:
                click.echo(f"{click.style('✓', fg='green')} {step}")
    except WanreelError as error:
        if json_:
            say({"profile": profile, "ok": False, "done": done} | as_json(error))
        else:
            click.echo(explain(error), err=True)
        return exit_code(error)
    if json_:
        say({"profile": profile, "ok": True, "done": done})
    return 0


def _steps(depot: Depot) -> Iterator[str]:
    """What was found to work, one after the other. Raises StorageUnavailable, StorageRefused, StorageDamaged."""
    data, key = secrets.token_bytes(_PROBE), depot.destination.key(f"probe-{secrets.token_hex(8)}")
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "probe"
        path.write_bytes(data)
        parcel = Parcel(path, hashlib.sha256(data).hexdigest(), len(data), "application/octet-stream")
        depot.objects.put(key, parcel, CancelToken())
    try:
        yield "put an object, and found it there"
        if b"".join(depot.objects.open(key)) != data:
            raise RemoteError("What was read is not what was put.")
        yield "read it with the keys"
        _fetch(depot.objects.url(key), data)
        yield "read it by its address, as clients do"
    finally:
        depot.objects.delete(key)
    yield "deleted it"


def _fetch(url: str, expected: bytes) -> None:
    try:
        answer = httpx.get(url, timeout=_TIMEOUT)
    except httpx.HTTPError as exc:
        raise RemoteError(
            "The address that clients are given can't be reached from here.", hint="Check public_url, or endpoint."
        ) from exc
    if answer.status_code != 200 or answer.content != expected:
        raise RemoteError(
            f"The address that clients are given answers with status {answer.status_code}.",
            hint="Check public_url and whether the bucket is public, or leave it out for signed addresses.",
        )
