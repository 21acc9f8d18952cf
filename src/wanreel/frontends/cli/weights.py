"""`wanreel models pull, verify, remove, path`: weights brought from the hub, checked, and taken away."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from wanreel.core.errors import UnknownModel
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import interruptible, open_runtime
from wanreel.models.registry import Progress

Result = TypeVar("Result")
DAMAGED = 3  #: exit code when a file is not what was received


@click.command()
@click.argument("model")
@click.option(
    "--component",
    "components",
    multiple=True,
    help="Only this part: vae, text_encoder, tokenizer, transformer, … More than one may be given.",
)
@json_option
def pull(model: str, components: tuple[str, ...], json_: bool) -> int:
    """Download the weights of MODEL, or go on with it.

    The first pull writes the commit and every file's SHA-256 into models.lock; later ones use that commit. Ctrl-C
    pauses: the same command goes on from there.
    """
    output = Output.open(json_)
    with open_runtime() as runtime, interruptible() as cancel:
        spec = runtime.catalog.weights(model)
        output.say(f"[bold]{spec.title}[/bold] from {spec.hub_id} ({spec.licence})")
        notes = _follow(runtime.supply.registry.pull(spec, cancel, components), output.console)
        pin = runtime.supply.registry.pins.of(spec.name)
    for note in notes:
        output.say(f"  [dim]• {note}[/dim]")
    if pin is not None:
        output.say(f"[green]✓[/green] {pin.size / 1e9:.2f} GB, commit {pin.commit[:12]}")
        output.result(
            {"model": spec.name, "repository": pin.repo, "commit": pin.commit, "bytes": pin.size, "notes": notes}
        )
    return 0


@click.command()
@click.argument("models", nargs=-1)
@json_option
def verify(models: tuple[str, ...], json_: bool) -> int:
    """Read every byte of what was downloaded, and name each file that has changed.

    Without MODELS, all that were downloaded.
    """
    output, found = Output.open(json_), 0
    with open_runtime() as runtime, interruptible() as cancel:
        names = models or tuple(sorted(runtime.supply.registry.pins.all()))
        for name in names:
            spec = runtime.catalog.weights(name)
            faults = _follow(runtime.supply.registry.verify(spec, cancel), output.console)
            found += len(faults)
            output.result({"model": spec.name, "faults": [str(fault) for fault in faults]})
            for fault in faults:
                output.say(f"[red]✗[/red] {fault}")
            if not faults:
                output.say(f"[green]✓[/green] {spec.name}: every file is what was received")
            else:
                output.say(f"  `wanreel models pull {spec.name}` brings those files again.")
    if not names:
        output.say("Nothing was downloaded yet.")
    return DAMAGED if found else 0


@click.command()
@click.argument("model")
@json_option
def remove(model: str, json_: bool) -> int:
    """Delete what was downloaded of MODEL. Weights that lie elsewhere are never touched."""
    output = Output.open(json_)
    with open_runtime() as runtime:
        spec = runtime.catalog.weights(model)
        freed = runtime.supply.registry.remove(spec)
    output.result({"model": spec.name, "freed_bytes": freed})
    output.say(f"[green]✓[/green] {spec.name}: {freed / 1e9:.2f} GB freed")
    return 0


@click.command()
@click.argument("model", required=False)
def path(model: str | None) -> None:
    """Print where the weights of MODEL lie, or without it the folder of all models."""
    with open_runtime() as runtime:
        if model is None:
            click.echo(runtime.shelf.root)
            return
        spec = runtime.catalog.weights(model)
        folder = runtime.weights_folder(spec)
    if folder is None:
        raise UnknownModel.of("model", "made_up", f"{spec.name} is made up on the spot: it has no files.")
    click.echo(folder)


def _follow(work: Generator[Progress, None, Result], console: Console) -> Result:
    """Shows how far it is; returns what the generator returns."""
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[file]}[/dim]"),
    )
    with Bar(*columns, console=console, disable=console.quiet, transient=True) as bar:
        task = bar.add_task("asking", total=None, file="")
        while True:
            try:
                progress = next(work)
            except StopIteration as end:
                return end.value
            bar.update(
                task,
                description=progress.state,
                completed=progress.received_bytes,
                total=progress.total_bytes or None,
                file=progress.file,
            )
