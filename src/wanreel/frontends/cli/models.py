"""`wanreel models` and `wanreel presets`: the catalogue as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from wanreel.core.catalog import Mode, ModelSpec, Size
from wanreel.core.picture_models import PictureSpec
from wanreel.core.presets import preset_steps
from wanreel.core.request import PresetName, ResolutionName
from wanreel.core.work import AnySpec
from wanreel.frontends.cli.adopt import add, scan
from wanreel.frontends.cli.qualify import qualify
from wanreel.frontends.cli.session import open_runtime
from wanreel.frontends.cli.weights import path, pull, remove, verify
from wanreel.models.registry import Pin
from wanreel.wiring import picture_specs_with_state, specs_with_state


@click.group(invoke_without_command=True)
@click.option("--json", "json_", is_flag=True, help="One JSON array with every fact.")
@click.pass_context
def models(ctx: click.Context, json_: bool) -> None:
    """List the models, or look after them."""
    if ctx.invoked_subcommand is None:
        list_models(json_)


for command in (pull, verify, remove, add, scan, path, qualify):
    models.add_command(command)


@models.command("list")
@click.option("--json", "json_", is_flag=True, help="One JSON array with every fact.")
def list_command(json_: bool) -> None:
    """List the models, what they need and what is here."""
    list_models(json_)


def list_models(json_: bool) -> None:
    with open_runtime() as runtime:
        rows, pins = specs_with_state(runtime), runtime.supply.registry.pins.all()
        where, pictures = runtime.shelf.root, picture_specs_with_state(runtime)
    if json_:
        facts = [
            asdict(spec) | {"installed": installed, "size_bytes": pins[spec.name].size if spec.name in pins else None}
            for spec, installed in (*rows, *pictures)
        ]
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "makes video from", "size", "length", "steps", "weights"):
        table.add_column(heading, no_wrap=True)
    for spec, installed in rows:
        table.add_row(*_cells(spec, pins.get(spec.name), installed=installed))
    qualified = ", ".join(spec.name for spec, _ in rows if spec.qualified) or "none yet"
    licences = {spec.licence: [other.name for other, _ in rows if other.licence == spec.licence] for spec, _ in rows}
    told = "; ".join(f"{licence}: {', '.join(names)}" for licence, names in licences.items())
    console = Console()
    console.print(table)
    console.print(_pictures_table(pictures, pins))
    if len(licences) == 1:
        told = f"{next(iter(licences))}, all of them"
    console.print(
        f"\n[dim]Licence: {told}.\nQualified on the published weights: {qualified}. Weights lie in {where}.\n"
        "`wanreel models pull MODEL` downloads one. tiny:NAME tries any of these pipelines with random weights.[/dim]",
        highlight=False,
    )


def _pictures_table(rows: list[tuple[PictureSpec, bool]], pins: Mapping[str, Pin]) -> Table:
    """The models that make still pictures."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("\nmodel", "\nmakes pictures from", "\nsize", "\nsteps", "\nlicence", "\nweights"):
        table.add_column(heading, no_wrap=True)
    for spec, installed in rows:
        name = f"[bold]{spec.name}[/bold]" if installed else spec.name
        state = _state(spec, pins.get(spec.name), installed=installed)
        size = f"{spec.width}×{spec.height}"
        table.add_row(name, ", ".join(spec.modes), size, str(spec.steps), spec.licence, state)
    return table


_MAKES: Mapping[Mode, str] = {"text": "text", "picture": "picture", "first_last": "first, last"}


def _cells(spec: ModelSpec, pin: Pin | None, *, installed: bool) -> tuple[str, ...]:
    size = spec.sizes[spec.default_resolution]
    return (
        f"[bold]{spec.name}[/bold]" if installed else spec.name,
        ", ".join(_MAKES[mode] for mode in spec.modes),
        f"{size.width}×{size.height}",
        f"{spec.num_frames} at {spec.fps:g}/s",
        str(spec.steps),
        _state(spec, pin, installed=installed),
    )


def _state(spec: AnySpec, pin: Pin | None, *, installed: bool) -> str:
    amount = f" {pin.size / 1e9:.1f} GB" if pin is not None else ""
    if installed:
        return "[green]built in[/green]" if spec.builtin else f"[green]installed[/green]{amount}"
    return f"[yellow]partly[/yellow]{amount}" if pin is not None else "[dim]–[/dim]"


@click.command()
@click.option("--json", "json_", is_flag=True, help="One JSON object.")
@click.option("--model", "-m", help="Only this model.")
def presets(json_: bool, model: str | None) -> None:
    """List presets and resolutions: the steps and the shift of each."""
    with open_runtime() as runtime:
        specs = [runtime.catalog.get(model)] if model else list(runtime.catalog)
    if json_:
        click.echo(json.dumps({spec.name: _preset_facts(spec) for spec in specs}))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", *get_args(PresetName), *get_args(ResolutionName)):
        table.add_column(heading, no_wrap=True)
    for spec in specs:
        steps = [str(preset_steps(spec, name) or "–") for name in get_args(PresetName)]
        table.add_row(spec.name, *steps, *(f"{size.flow_shift:g}{_star(size)}" for size in spec.sizes.values()))
    console = Console()
    console.print(table)
    if len(specs) == 1:
        sizes = ", ".join(f"{name} {size.width}×{size.height}" for name, size in specs[0].sizes.items())
        console.print(f"\n{sizes}", highlight=False)
    console.print("\n[dim]Steps of each preset, then the shift at each resolution. * not trained for it.[/dim]")


def _star(size: Size) -> str:
    return "" if size.trained else "*"


def _preset_facts(spec: ModelSpec) -> dict[str, dict[str, object]]:
    steps: dict[str, object] = {name: preset_steps(spec, name) for name in get_args(PresetName)}
    return {"steps": steps, "sizes": {name: asdict(size) for name, size in spec.sizes.items()}}
