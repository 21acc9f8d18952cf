"""`wanreel upscalers`: the networks that enlarge videos."""

from __future__ import annotations

from pathlib import Path

import click

from wanreel.core.errors import BrokenWeights
from wanreel.core.upscaler import UpscalerRef
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.session import open_runtime


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def upscalers(ctx: click.Context, json_: bool) -> int:
    """List the networks that enlarge videos, add and remove them."""
    return _list(json_) if ctx.invoked_subcommand is None else 0


@upscalers.command("list")
@json_option
def list_command(json_: bool) -> int:
    """List them."""
    return _list(json_)


@upscalers.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="What requests call it; the folder's own name by default.")
@json_option
def add(folder: Path, name: str | None, json_: bool) -> int:
    """Check the network in FOLDER, config.json and model.safetensors, and copy it to the models directory."""
    with open_runtime() as runtime:
        _show(runtime.upscalers.add(folder, name), json_)
    return 0


@upscalers.command()
@click.argument("name")
@json_option
def remove(name: str, json_: bool) -> int:
    """Delete one from the models directory."""
    with open_runtime() as runtime:
        runtime.upscalers.remove(name)
    if json_:
        say({"removed": name})
    return 0


def _list(json_: bool) -> int:
    with open_runtime() as runtime:
        names = runtime.upscalers.names()
        for name in names:
            try:
                _show(runtime.upscalers.get(name), json_)
            except BrokenWeights as error:
                say({"name": name, "error": error.message}) if json_ else click.echo(error.message)
        if not names and not json_:
            click.echo(f"There is none. Put one into {runtime.settings.upscalers_dir}, or `wanreel upscalers add`.")
    return 0


def _show(found: UpscalerRef, json_: bool) -> None:
    if json_:
        say({"name": found.name, "scale": found.scale, "sha256": found.sha256, "config_sha256": found.config_sha256})
    else:
        click.echo(f"{found.name}  {found.scale}×  sha256 {found.sha256}")
