"""`wanreel models` and `wanreel presets`: the catalogue as tables."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import get_args

import click
from rich.console import Console
from rich.table import Table

from wanreel.core.catalog import ModelSpec, preset_steps
from wanreel.core.request import PresetName, ResolutionName
from wanreel.frontends.cli.qualify import qualify
from wanreel.frontends.cli.session import open_runtime
from wanreel.wiring import specs_with_state


@click.group(invoke_without_command=True)
@click.option("--json", "json_", is_flag=True, help="One JSON array with every fact.")
@click.pass_context
def models(ctx: click.Context, json_: bool) -> None:
    """List the models, or look after them."""
    if ctx.invoked_subcommand is None:
        list_models(json_)


models.add_command(qualify)


def list_models(json_: bool) -> None:
    with open_runtime() as runtime:
        rows = specs_with_state(runtime)
        where = runtime.shelf.root
    if json_:
        click.echo(
            json.dumps([asdict(spec) | {"installed": installed} for spec, installed in rows], ensure_ascii=False)
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "", "makes", "size", "frames", "steps", "guidance", "installed", "qualified"):
        table.add_column(heading, no_wrap=heading in ("model", "size"))
    for spec, installed in rows:
        table.add_row(*_cells(spec, installed))
    console = Console()
    console.print(table)
    console.print(f"\n[dim]Weights lie in {where}. tiny:NAME tries any of these pipelines with random weights.[/dim]")


def _cells(spec: ModelSpec, installed: bool) -> tuple[str, ...]:
    size = spec.sizes[spec.default_resolution]
    guidance = f"{spec.guidance_high:g}" + (f"/{spec.guidance_low:g}" if spec.two_experts else "")
    return (
        f"[bold]{spec.name}[/bold]" if installed else spec.name,
        spec.parameters,
        {"text": "text", "picture": "picture", "first_last": "first + last"}[spec.modes[0]]
        + (" or picture" if len(spec.modes) > 1 else ""),
        f"{size.width}×{size.height}",
        f"{spec.num_frames} @ {spec.fps:g}",
        str(spec.steps),
        guidance,
        "[green]yes[/green]" if installed else "[dim]no[/dim]",
        "built in" if spec.builtin else ("yes" if spec.qualified else "[dim]no[/dim]"),
    )


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
        table.add_column(heading)
    for spec in specs:
        facts = _preset_facts(spec)
        steps = [str(count or "–") for count in facts["steps"].values()]
        sizes = [
            f"{size.width}×{size.height} shift {size.flow_shift:g}{'' if size.trained else ' *'}"
            for size in spec.sizes.values()
        ]
        table.add_row(spec.name, *steps, *sizes)
    console = Console()
    console.print(table)
    console.print("\n[dim]Steps of each preset, then size and shift of each resolution. * not trained for it.[/dim]")


def _preset_facts(spec: ModelSpec) -> dict[str, dict[str, object]]:
    steps: dict[str, object] = {name: preset_steps(spec, name) for name in get_args(PresetName)}
    return {"steps": steps, "sizes": {name: asdict(size) for name, size in spec.sizes.items()}}
