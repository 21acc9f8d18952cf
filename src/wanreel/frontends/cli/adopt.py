"""`wanreel models add` and `scan`: weights that people already have, used where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wanreel.core.errors import WanreelError
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import open_runtime
from wanreel.models.formats.adopt import Adopter, Proposal, Seen, look_through
from wanreel.wiring import Runtime

_PARTS = ("transformer", "transformer_2", "vae", "text_encoder", "image_encoder", "tokenizer")
_PLACE = click.Path(exists=True, path_type=Path)


def _part_options(command: Any) -> Any:
    for part in reversed(_PARTS):
        flag = f"--{part.replace('_', '-')}"
        command = click.option(flag, part, type=_PLACE, help=f"File or folder of the {part.replace('_', ' ')}.")(
            command
        )
    return command


@click.command()
@click.argument("name")
@click.option("--base", "-b", help="The model whose architecture it has; NAME itself by default.")
@click.option("--folder", type=_PLACE, help="A repository as its authors publish it.")
@_part_options
@json_option
def add(name: str, base: str | None, folder: Path | None, json_: bool, **places: Path | None) -> int:
    """Add the model NAME from files that you have: safetensors or GGUF, the authors' names or Diffusers'.

    Nothing is copied. Each file is judged by its header; parts that you don't name (text encoder, VAE, tokenizer) are
    taken from models that are installed.
    """
    output = Output.open(json_)
    with open_runtime() as runtime:
        row = runtime.catalog.get(base or name)
        parts = {part: path for part, path in places.items() if path is not None}
        assembly = adopter_of(runtime).adopt(name, row, parts, folder)
    output.result({"model": name, "base": row.name, "parts": {part: str(at) for part, at in assembly.parts.items()}})
    output.say(f"[green]✓[/green] [bold]{name}[/bold], a {row.title}")
    for part, place in assembly.parts.items():
        output.say(f"  {part:<14} {place}")
    return 0


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Report only; adopt nothing.")
@json_option
def scan(folder: Path, dry_run: bool, json_: bool) -> int:
    """Look through FOLDER, of ComfyUI or Wan2GP say, and adopt the models and LoRAs in it where they lie."""
    output = Output.open(json_)
    with open_runtime() as runtime:
        adopter = adopter_of(runtime)
        seen = list(look_through(folder.expanduser().resolve()))
        proposals = adopter.proposals(seen)
        loras = [it for it in seen if it.found is not None and it.found.part == "lora"]
        for proposal in proposals:
            if not proposal.missing and not dry_run:
                adopter.save(proposal)
        added = [] if dry_run else [_add_lora(runtime, it.path) for it in loras]
    for it in seen:
        output.say(f"  {it.path.relative_to(folder.expanduser().resolve())}\n    [dim]{_what(it)}[/dim]")
    for proposal in proposals:
        output.say(_told(proposal, dry_run=dry_run))
    for it, problem in zip(loras, added):
        output.say(
            f"[red]✗[/red] LoRA {it.path.name}: {problem}" if problem else f"[green]✓[/green] LoRA {it.path.stem}"
        )
    if not proposals and not loras:
        output.say("Nothing in it fits a model of Wanreel.")
    output.result(
        {
            "files": [{"path": str(it.path), "is": _what(it)} for it in seen],
            "models": [
                {
                    "name": it.name,
                    "base": it.base.name,
                    "missing": it.missing,
                    "parts": {part: str(place) for part, place in it.parts.items()},
                    "adopted": not it.missing and not dry_run,
                }
                for it in proposals
            ],
        }
    )
    return 0


def adopter_of(runtime: Runtime) -> Adopter:
    """An adopter over the models' folder."""
    specs = {spec.name: spec for spec in runtime.catalog}

    def taken(name: str) -> bool:
        return name in specs and runtime.shelf.has(specs[name])

    return Adopter(runtime.shelf.root, tuple(runtime.catalog), taken)


def _add_lora(runtime: Runtime, path: Path) -> str:
    """What is wrong with it; empty when it was taken in."""
    try:
        runtime.loras.add(path, keep=True)
    except WanreelError as error:
        return str(error)
    return ""


def _what(it: Seen) -> str:
    return str(it.found) if it.found is not None else it.problem


def _told(proposal: Proposal, *, dry_run: bool) -> str:
    if proposal.missing:
        flags = " ".join(f"--component {part}" for part in proposal.missing)
        return (
            f"[yellow]·[/yellow] [bold]{proposal.name}[/bold], a {proposal.base.title}, lacks "
            f"{', '.join(proposal.missing)}: `wanreel models pull {proposal.base.name} {flags}`, then scan again"
        )
    done = "would be adopted" if dry_run else "adopted"
    return f"[green]✓[/green] [bold]{proposal.name}[/bold], a {proposal.base.title}: {done}"
