"""`wanreel loras`: the shelf of LoRAs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights
from wanreel.core.lora import SUFFIX
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.session import open_runtime
from wanreel.models.lora.file import check_values, read_lora
from wanreel.models.lora.report import fit_row, report_of
from wanreel.wiring import Runtime, specs_with_state


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def loras(ctx: click.Context, json_: bool) -> int:
    """List the LoRAs, add, inspect and remove them."""
    return _list(None, json_) if ctx.invoked_subcommand is None else 0


@loras.command("list")
@click.option("--model", "-m", help="Whether they fit this model; by default all that are installed.")
@json_option
def list_command(model: str | None, json_: bool) -> int:
    """List the LoRAs and the models that each fits."""
    return _list(model, json_)


@loras.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="What requests call it; the file's own name by default.")
@click.option("--keep", is_flag=True, help="Use the file where it lies instead of copying it.")
@json_option
def add(file: Path, name: str | None, keep: bool, json_: bool) -> int:
    """Check a .safetensors FILE and put it on the shelf."""
    with open_runtime() as runtime:
        shelved = runtime.loras.add(file, name, keep=keep)
        return _show(runtime.lora_desk.report(shelved, _specs(runtime, None)), json_)


@loras.command("inspect")
@click.argument("name_or_file")
@click.option("--model", "-m", help="How it fits this model; by default all that are installed.")
@json_option
def inspect(name_or_file: str, model: str | None, json_: bool) -> int:
    """Show what a LoRA holds: format, rank, scale, base, and how much of it each model takes."""
    path = Path(name_or_file)
    with open_runtime() as runtime:
        if path.suffix.lower() != SUFFIX or not path.is_file():
            shelved = runtime.loras.get(name_or_file)
            return _show(runtime.lora_desk.report(shelved, _specs(runtime, model)), json_)
        file = read_lora(path)
        check_values(path)
        fits = [fit_row(runtime.lora_desk.judge(file, spec)) for spec in _specs(runtime, model)]
        return _show(report_of(path.name, file) | {"fits": fits}, json_)


@loras.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Take a LoRA off the shelf. A file that is used where it lies stays there."""
    with open_runtime() as runtime:
        runtime.loras.remove(name)
    click.echo(f"Removed {name}.")


def _specs(runtime: Runtime, model: str | None) -> list[ModelSpec]:
    if model is not None:
        return [runtime.catalog.get(model)]
    return [spec for spec, installed in specs_with_state(runtime) if installed]


def _list(model: str | None, json_: bool) -> int:
    with open_runtime() as runtime:
        specs = _specs(runtime, model)
        rows = [runtime.lora_desk.report(shelved, specs) for shelved in runtime.loras.list()]
    if json_:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("LoRA", "expert", "made for", "rank", "size", "fits"):
        table.add_column(heading)
    for row in rows:
        table.add_row(*_cells(row))
    console = Console(highlight=False)
    console.print(table)
    console.print("\n[dim]`wanreel loras add FILE` adds one; `wanreel generate --lora NAME` uses it.[/dim]")
    return 0


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["fault"]:
        return row["name"], "", "", "", "", f"[red]{escape(row['fault'])}[/red]"
    fitting = [fit["model"] for fit in row["fits"] if fit["ok"]]
    size = f"{row['size_bytes'] / 1e6:.1f} MB"
    return row["name"], row["target"], row["base"], _span(row["rank"]), size, ", ".join(fitting) or "–"


def _show(report: Mapping[str, Any], json_: bool) -> int:
    if json_:
        click.echo(json.dumps(report, ensure_ascii=False))
        return 0
    if report["fault"]:
        raise BrokenWeights(report["fault"])
    console = Console(highlight=False)
    partner = f", its partner is {report['partner']}" if report["partner"] else ""
    expert = "both experts" if report["target"] == "both" else f"the {report['target']}-noise expert"
    console.print(
        f"[bold]{escape(report['name'])}[/bold]  {report['size_bytes'] / 1e6:.1f} MB, {', '.join(report['dtypes'])}"
    )
    console.print(f"  made for {report['base']}, for {expert} by its name{partner}")
    console.print(
        f"  {report['layers']} layers named as {report['format']} does, rank {_span(report['rank'])}, "
        f"scale {_span(report['scale'])}"
    )
    for key, value in report["about"].items():
        console.print(f"  [dim]{escape(key)}: {escape(value)}[/dim]")
    for fit in report["fits"]:
        if fit["ok"]:
            rest = (
                f", {fit['unmatched']} tensors not used ({escape(', '.join(fit['examples']))})"
                if fit["unmatched"]
                else ""
            )
            console.print(f"  [green]✓[/green] {fit['model']}: {fit['matched']} layers{rest}")
        else:
            console.print(f"  [red]✗[/red] {fit['model']}: {escape(fit['fault'])}")
    return 0


def _span(ends: list[float]) -> str:
    low, high = (f"{end:.4g}" for end in ends)
    return low if low == high else f"{low} to {high}"
