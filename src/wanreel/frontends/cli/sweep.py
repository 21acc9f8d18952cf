"""`wanreel sweep` and `wanreel sweeps`: one request made many times, side by side. Only translates."""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import click

from wanreel.core.errors import InvalidRequest
from wanreel.core.request import KNOBS
from wanreel.core.sweep import AXES, GUIDANCE, LORA, Sweep, parse_sweep
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.knobs import asked_values, options_of
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import open_service
from wanreel.frontends.storyboard_file import parse_text
from wanreel.service import Terms
from wanreel.service.sweeps import FILES, Sweeps, SweepView
from wanreel.wiring import Runtime, build_worker

_LOOK = 0.5  # seconds between looks at a sweep that is watched
_FAILED = 5  # exit code of one that failed
_ENDED = ("completed", "failed", "cancelled")
_LARGEST = 2**20  # bytes of a file
_SUFFIXES = (".yaml", ".yml", ".json")
_FILE_KNOBS = ("image", "last_image", "audio")
#: Axes with a flag of their own, in the place of the knob's flag; their values are separated by commas.
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "seed": ("--seed",),
    GUIDANCE: ("--guidance",),
    "num_inference_steps": ("--steps",),
    "flow_shift": ("--shift",),
    "solver": ("--solver",),
    "preset": ("--preset", "-p"),
}


def _axis_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, flags in reversed(list(_FLAGS.items())):
        what = "pairs high:low" if name == GUIDANCE else KNOBS[name].help
        command = click.option(*flags, f"axis_{name}", metavar="A,B,…", help=f"Values to compare: {what}")(command)
    base = {name: knob for name, knob in KNOBS.items() if name not in _FLAGS}
    return options_of(base)(command)


@click.command()
@click.argument("inputs", nargs=-1, metavar="[SWEEP.yaml | [IMAGE] PROMPT]")
@click.option("--prompt", "prompts", multiple=True, help="A prompt to compare with the others; once for each.")
@click.option(
    "--lora-strength", "strengths", multiple=True, metavar="NAME=A,B,…", help="Strengths of a LoRA; H:L for pairs."
)
@click.option("--axis", "axes", multiple=True, metavar="NAME=A,B,…", help=f"Values of another axis: {', '.join(AXES)}.")
@click.option("--title", help="What stands above the sheet.")
@click.option("--last-image", type=click.Path(path_type=Path), help="The last frame, for models that take one.")
@click.option("--audio", type=click.Path(path_type=Path), help=KNOBS["audio"].help)
@_axis_options
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
        asked = _asked(runtime, inputs, options)
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


def _asked(runtime: Runtime, inputs: tuple[str, ...], options: Mapping[str, Any]) -> Sweep:
    """The file's values, and over them what words and flags say. Raises InvalidRequest."""
    words, values, folder = list(inputs), dict[str, Any](), Path()
    if words and words[0].lower().endswith(_SUFFIXES):
        file = Path(words.pop(0))
        values, folder = _read(file), file.parent
    files = {name: folder / str(values.pop(name)) for name in _FILE_KNOBS if values.get(name)}
    files |= {name: options[name] for name in ("last_image", "audio") if options[name] is not None}
    if len(words) > 2:
        raise click.UsageError(f"At most a picture and a prompt are expected, got {len(words)} words.")
    if len(words) == 2:
        files["image"] = Path(words.pop(0))
    if words:
        values["prompt"] = words[0]
    values |= asked_values(options) | ({"title": options["title"]} if options["title"] else {})
    axes = values.get("axes", {})
    values["axes"] = (dict(axes) | _axes(options)) if isinstance(axes, dict) else axes
    for name, path in files.items():
        values[name] = runtime.take_sound_file(path) if name == "audio" else runtime.take_picture_file(path, name)
    return parse_sweep(values)


def _read(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()[: _LARGEST + 1]
    except OSError as exc:
        raise InvalidRequest.of("sweep", "unreadable", f"{file} can't be read: {exc.strerror}.") from exc
    values = parse_text(data, file.name).values if len(data) <= _LARGEST else None
    if not isinstance(values, dict):
        raise InvalidRequest.of("sweep", "bad_file", f"{file.name} is no list of knobs and axes, YAML or JSON.")
    return cast("dict[str, Any]", values)


def _axes(options: Mapping[str, Any]) -> dict[str, object]:
    axes: dict[str, object] = {"prompt": list(options["prompts"])} if options["prompts"] else {}
    for name in _FLAGS:
        if options[f"axis_{name}"] is not None:
            axes[name] = _values(options[f"axis_{name}"])
    for flag, prefix, pairs in (("--lora-strength", LORA, options["strengths"]), ("--axis", "", options["axes"])):
        for pair in pairs:
            name, equals, text = pair.rpartition("=") if prefix else pair.partition("=")
            if not equals:
                raise click.UsageError(f"{flag} {pair!r}: NAME=A,B was expected.")
            axes[prefix + name] = _values(text)
    return axes


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split(",")]


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
