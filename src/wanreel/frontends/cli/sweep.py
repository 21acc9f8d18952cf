"""`wanreel sweep` and `wanreel sweeps`: one request made many times, side by side. Only translates."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from wanreel.core.errors import InvalidRequest
from wanreel.core.sweep import Sweep, parse_sweep
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.groups import HERE, WATCH, GroupCommands
from wanreel.frontends.cli.sweep_words import asked_sweep, sweep_options
from wanreel.service import Terms
from wanreel.service.sweeps import FILES, Sweeps, SweepView
from wanreel.wiring import Runtime


@click.command()
@sweep_options
@click.option("--owner", default="", help="Whose it is; owners take turns.")
@click.option("--priority", type=int, default=0, help="Higher goes first.")
@click.option("--key", "idempotency_key", help="The same sweep with the same key again is the same one.")
@click.option("--check", is_flag=True, help="Say what would be made, and stop.")
@WATCH
@HERE
@json_option
def sweep(inputs: tuple[str, ...], json_: bool, check: bool, watch: bool, here: bool, **options: Any) -> int:
    """Compare seeds, guidance, steps, prompts or LoRA strengths: every combination as a video, then a contact sheet, a
    video of all side by side and tables."""
    with _COMMANDS.open() as (runtime, sweeps, output):
        asked = _asked(runtime, *asked_sweep(inputs, options))
        if check:
            planned, resolutions = sweeps.plan(asked)
            for cell in planned.cells():
                output(json_).say(f"  {', '.join(cell.labels)}")
            output(json_).say(f"[green]✓[/green] {len(resolutions)} cells")
            return 0
        terms = Terms(options["owner"], options["priority"], options["idempotency_key"])
        view, adjustments = sweeps.create(asked, terms)
        for adjustment in adjustments:
            output(json_).say(f"  [dim]• {adjustment}[/dim]")
        return _COMMANDS.follow(runtime, sweeps, view, output(json_), watch=watch, here=here)


@click.group("sweeps")
def sweeps_() -> None:
    """Look after sweeps: list, show, stop and save them."""


@sweeps_.command()
@click.argument("sweep_id")
@HERE
@json_option
def watch(sweep_id: str, json_: bool, here: bool) -> int:
    """Follow a sweep until it has ended."""
    with _COMMANDS.open() as (runtime, sweeps, output):
        view = _COMMANDS.found(sweeps, sweep_id)
        return _COMMANDS.follow(runtime, sweeps, view, output(json_), here=here)


@sweeps_.command()
@click.argument("sweep_id")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path(), help="Folder for the files.")
@json_option
def save(sweep_id: str, json_: bool, out: Path) -> int:
    """Copy a sweep's sheet, video and tables to a folder."""
    with _COMMANDS.open() as (_, sweeps, output):
        view = _COMMANDS.found(sweeps, sweep_id)
        found = {kind: path for kind in FILES if (path := sweeps.path(view, kind)) is not None}
        if not found:
            raise InvalidRequest.of("sweep", "not_ready", "nothing was made of it yet.", "Follow it with --watch.")
        try:
            out.mkdir(parents=True, exist_ok=True)
            copies = {kind: shutil.copy(path, out) for kind, path in found.items()}
        except OSError as exc:
            raise InvalidRequest.of("out", "unreadable", f"{out} can't be written: {exc.strerror}.") from exc
        output(json_).result({kind: str(path) for kind, path in copies.items()})
        for path in copies.values():
            output(json_).say(f"[green]✓[/green] {path}")
    return 0


def _asked(runtime: Runtime, values: Mapping[str, Any], files: Mapping[str, Path]) -> Sweep:
    """Raises InvalidRequest."""
    taken = {
        name: runtime.take_sound_file(path) if name == "audio" else runtime.take_picture_file(path, name)
        for name, path in files.items()
    }
    return parse_sweep({**values, **taken})


def _labels(view: SweepView) -> Iterator[str]:
    return (", ".join(cell.labels) for cell in view.cells)


def _lines(sweeps: Sweeps, view: SweepView) -> Iterator[str]:
    for place, (label, job) in enumerate(zip(_labels(view), view.jobs, strict=True)):
        why = f": {job.error.message}" if job.error else ""
        yield f"  {place + 1:>2} {job.status.replace('_', ' '):<11} {label}{why}"
    yield from (f"[green]✓[/green] [bold]{path}[/bold]" for path in sweeps.paths(view))


def _row(sweeps: Sweeps, view: SweepView) -> dict[str, Any]:
    paths = {kind: sweeps.path(view, kind) for kind in FILES}
    return {
        "id": view.group.id,
        "title": view.group.title,
        "status": view.status,
        "cells": [
            {"labels": list(cell.labels), "video": job.id, "status": str(job.status)}
            for cell, job in zip(view.cells, view.jobs, strict=True)
        ],
        "files": {kind: str(path) for kind, path in paths.items() if path is not None},
    }


_COMMANDS = GroupCommands[Sweeps, SweepView]("sweep", "cells", Sweeps, _labels, _row, _lines)
_COMMANDS.add_to(
    sweeps_,
    {
        "list": "List the sweeps, newest first.",
        "show": "Show a sweep and its cells.",
        "cancel": "Stop every cell that has not ended.",
        "retry": "Queue every cell again that failed or was cancelled.",
        "delete": "Forget a sweep with its videos and files.",
    },
)
