"""`wanreel sweep` and `wanreel sweeps`: one request made many times, side by side. Only translates."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from wanreel.core.errors import InvalidRequest
from wanreel.core.sweep import Sweep, parse_sweep
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import open_service
from wanreel.frontends.cli.sweep_words import asked_sweep, sweep_options
from wanreel.service import Terms
from wanreel.service.sweeps import FILES, Sweeps, SweepView
from wanreel.wiring import Runtime, build_worker

_LOOK = 0.5  # seconds between looks at a sweep that is watched
_FAILED = 5  # exit code of one that failed
_ENDED = ("completed", "failed", "cancelled")


@click.command()
@sweep_options
@click.option("--owner", default="", help="Whose it is; owners take turns.")
@click.option("--priority", type=int, default=0, help="Higher goes first.")
@click.option("--key", "idempotency_key", help="The same sweep with the same key again is the same one.")
@click.option("--check", is_flag=True, help="Say what would be made, and stop.")
@click.option("--watch", is_flag=True, help="Follow it until it has ended.")
@click.option("--here", is_flag=True, help="Make it in this process, without a worker beside.")
@json_option
def sweep(inputs: tuple[str, ...], json_: bool, check: bool, watch: bool, here: bool, **options: Any) -> int:
    """Compare seeds, guidance, steps, prompts or LoRA strengths: every combination as a video, then a contact sheet, a
    video of all side by side and tables."""
    with _open() as (runtime, sweeps, output):
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
        return _follow(runtime, sweeps, view, output(json_), watch=watch, here=here)


@click.group("sweeps")
def sweeps_() -> None:
    """Look after sweeps: list, show, stop and save them."""


@sweeps_.command("list")
@json_option
def list_(json_: bool) -> int:
    """List the sweeps, newest first."""
    with _open() as (_, sweeps, output):
        for view in sweeps.list(owner=None, limit=100):
            if json_:
                say(_row(sweeps, view))
            else:
                done = sum(job.status == "completed" for job in view.jobs)
                output(json_).say(f"{view.group.id}  {view.status:<11} {done}/{len(view.jobs)}  {view.group.title}")
    return 0


@sweeps_.command()
@click.argument("sweep_id")
@json_option
def show(sweep_id: str, json_: bool) -> int:
    """Show a sweep and its cells."""
    with _open() as (_, sweeps, output):
        _tell(sweeps, sweeps.get(_full(sweeps, sweep_id)), output(json_))
    return 0


@sweeps_.command()
@click.argument("sweep_id")
@click.option("--here", is_flag=True, help="Make it in this process, without a worker beside.")
@json_option
def watch(sweep_id: str, json_: bool, here: bool) -> int:
    """Follow a sweep until it has ended."""
    with _open() as (runtime, sweeps, output):
        view = sweeps.get(_full(sweeps, sweep_id))
        return _follow(runtime, sweeps, view, output(json_), watch=True, here=here)


@sweeps_.command()
@click.argument("sweep_id")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path(), help="Folder for the files.")
@json_option
def save(sweep_id: str, json_: bool, out: Path) -> int:
    """Copy a sweep's sheet, video and tables to a folder."""
    with _open() as (_, sweeps, output):
        view = sweeps.get(_full(sweeps, sweep_id))
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


def _simple(name: str, text: str) -> None:
    @click.argument("sweep_id")
    @json_option
    def command(sweep_id: str, json_: bool) -> int:
        with _open() as (_, sweeps, output):
            act: Callable[[str], SweepView | None] = getattr(sweeps, name)
            view = act(_full(sweeps, sweep_id))
            if view is not None:
                _tell(sweeps, view, output(json_))
        return 0

    sweeps_.command(name, help=text)(command)


_simple("cancel", "Stop every cell that has not ended.")
_simple("retry", "Queue every cell again that failed or was cancelled.")
_simple("delete", "Forget a sweep with its videos and files.")


@contextmanager
def _open() -> Generator[tuple[Runtime, Sweeps, Callable[[bool], Output]]]:
    with open_service() as (runtime, service):
        yield runtime, Sweeps(service), functools.cache(Output.open)


def _asked(runtime: Runtime, values: Mapping[str, Any], files: Mapping[str, Path]) -> Sweep:
    """Raises InvalidRequest."""
    taken = {
        name: runtime.take_sound_file(path) if name == "audio" else runtime.take_picture_file(path, name)
        for name, path in files.items()
    }
    return parse_sweep({**values, **taken})


def _full(sweeps: Sweeps, given: str) -> str:
    """The id that begins so, if only one does."""
    if len(given) >= 32:
        return given
    found = [view.group.id for view in sweeps.list(owner=None, limit=1000) if view.group.id.startswith(given)]
    return found[0] if len(found) == 1 else given


def _follow(runtime: Runtime, sweeps: Sweeps, view: SweepView, output: Output, *, watch: bool, here: bool) -> int:
    output.say(f"[green]✓[/green] sweep [bold]{view.group.id}[/bold], {len(view.jobs)} cells")
    if here:
        build_worker(runtime).run(once=True)
    elif watch:
        _watch(sweeps, view, output)
    elif not sweeps.service.store.workers():
        output.say("  [dim]• no worker runs yet: start one with `wanreel worker`[/dim]")
    view = sweeps.get(view.group.id)
    _tell(sweeps, view, output)
    return _FAILED if view.status in ("failed", "cancelled") and (here or watch) else 0


def _watch(sweeps: Sweeps, view: SweepView, output: Output) -> None:
    told: dict[str, str] = {}
    while view.status not in _ENDED:
        for cell, job in zip(view.cells, view.jobs, strict=True):
            if told.get(job.id) != job.status:
                told[job.id] = job.status
                output.say(f"  {', '.join(cell.labels)}: {job.status.replace('_', ' ')}")
        time.sleep(_LOOK)
        view = sweeps.get(view.group.id)


def _tell(sweeps: Sweeps, view: SweepView, output: Output) -> None:
    output.result(_row(sweeps, view))
    for place, (cell, job) in enumerate(zip(view.cells, view.jobs, strict=True)):
        why = f": {job.error.message}" if job.error else ""
        output.say(f"  {place + 1:>2} {job.status.replace('_', ' '):<11} {', '.join(cell.labels)}{why}")
    for kind in FILES:
        path = sweeps.path(view, kind)
        if path is not None:
            output.say(f"[green]✓[/green] [bold]{path}[/bold]")
    if view.group.error is not None:
        output.say(f"[red]{view.group.error[1]}[/red]")


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
