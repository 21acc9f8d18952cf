"""`wanreel storyboard`: scenes that become one video. Only translates; what it means is in `service.storyboards`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import yaml

from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.storyboard import Storyboard, parse_storyboard
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.session import open_service
from wanreel.frontends.storyboard_file import read_storyboard_file
from wanreel.service import Terms, request_of
from wanreel.service.storyboards import Storyboards, StoryboardView
from wanreel.wiring import Runtime, build_worker

P = ParamSpec("P")
R = TypeVar("R")

_LOOK = 0.5  # seconds between looks at a storyboard that is watched
_FAILED = 5  # exit code of one that failed
_ENDED = ("completed", "failed", "cancelled")


@click.group()
def storyboard() -> None:
    """Scenes that become one video: each a job of its own that can be made again alone."""


def _waiting(command: Callable[P, R]) -> Callable[P, R]:
    watch = click.option("--watch", is_flag=True, help="Follow it until it has ended.")
    here = click.option("--here", is_flag=True, help="Make it in this process, without a worker beside.")
    return watch(here(command))


@storyboard.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--owner", default="", help="Whose it is; owners take turns.")
@click.option("--priority", type=int, default=0, help="Higher goes first.")
@click.option(
    "--key", "idempotency_key", help="Handing in the same file with the same key again is the same storyboard."
)
@click.option("--check", is_flag=True, help="Say what is wrong with the file, and stop.")
@_waiting
@json_option
def render(file: Path, check: bool, json_: bool, watch: bool, here: bool, **terms: Any) -> int:
    """Queue every scene of FILE, YAML or JSON, and join them as they come. Pictures are paths beside the file."""
    with _open() as (runtime, boards, output):
        board = board_of(runtime, file)
        if check:
            boards.check(board)
            output(json_).say(f"[green]✓[/green] {len(board.scenes)} scenes")
            return 0
        view = boards.create(board, Terms(terms["owner"], terms["priority"], terms["idempotency_key"]))
        return _follow(runtime, boards, view, output(json_), watch=watch, here=here)


@storyboard.command("list")
@json_option
def list_(json_: bool) -> int:
    """List the storyboards, newest first."""
    with _open() as (_, boards, output):
        for view in boards.list(owner=None, limit=100):
            if json_:
                say(_row(boards, view))
            else:
                done = sum(job.status == "completed" for job in view.jobs)
                output(json_).say(f"{view.group.id}  {view.status:<11} {done}/{len(view.jobs)}  {view.group.title}")
    return 0


@storyboard.command()
@click.argument("storyboard_id")
@json_option
def show(storyboard_id: str, json_: bool) -> int:
    """Show a storyboard and its scenes."""
    with _open() as (_, boards, output):
        _tell(boards, boards.get(_full(boards, storyboard_id)), output(json_))
    return 0


@storyboard.command()
@click.argument("storyboard_id")
@_waiting
@json_option
def watch(storyboard_id: str, json_: bool, watch: bool, here: bool) -> int:
    """Follow a storyboard until it has ended."""
    with _open() as (runtime, boards, output):
        view = boards.get(_full(boards, storyboard_id))
        return _follow(runtime, boards, view, output(json_), watch=True, here=here)


@storyboard.command()
@click.argument("storyboard_id")
@click.option("--scene", type=click.IntRange(min=1), required=True, help="Which, from 1.")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="A field or knob of it; another seed by default."
)
@_waiting
@json_option
def redo(storyboard_id: str, scene: int, changes: tuple[str, ...], json_: bool, watch: bool, here: bool) -> int:
    """Make a scene again, and those that depend on it."""
    with _open() as (runtime, boards, output):
        found = boards.get(_full(boards, storyboard_id))
        view = boards.redo(found.group.id, scene - 1, _changes(runtime, changes))
        kept = {job.id for job in found.jobs} & {job.id for job in view.jobs}
        output(json_).say(f"  [dim]• {len(view.jobs) - len(kept)} scenes are made again, {len(kept)} stay[/dim]")
        return _follow(runtime, boards, view, output(json_), watch=watch, here=here)


@storyboard.command()
@click.argument("storyboard_id")
@click.argument("file", type=click.Path(path_type=Path))
@_waiting
@json_option
def update(storyboard_id: str, file: Path, json_: bool, watch: bool, here: bool) -> int:
    """Take FILE in a storyboard's place: only what is not as it was is made again."""
    with _open() as (runtime, boards, output):
        view = boards.replace(_full(boards, storyboard_id), board_of(runtime, file))
        return _follow(runtime, boards, view, output(json_), watch=watch, here=here)


def _simple(name: str, text: str) -> None:
    @click.argument("storyboard_id")
    @json_option
    def command(storyboard_id: str, json_: bool) -> int:
        with _open() as (_, boards, output):
            act: Callable[[str], StoryboardView | None] = getattr(boards, name)
            view = act(_full(boards, storyboard_id))
            if view is not None:
                _tell(boards, view, output(json_))
        return 0

    storyboard.command(name, help=text)(command)


_simple("cancel", "Stop every scene that has not ended.")
_simple("retry", "Queue every scene again that failed or was cancelled.")
_simple("delete", "Forget a storyboard with its clips and the film.")


@contextmanager
def _open() -> Generator[tuple[Runtime, Storyboards, Callable[[bool], Output]]]:
    with open_service() as (runtime, service):
        yield runtime, Storyboards(service), functools.cache(Output.open)


def board_of(runtime: Runtime, file: Path) -> Storyboard:
    """The storyboard in a file. Raises InvalidRequest by scene and line."""
    read = read_storyboard_file(file)

    def take(value: object, name: str) -> PictureRef:
        if not isinstance(value, str):
            raise InvalidRequest.of(name, "wrong_type", "the path of a picture was expected.")
        return runtime.take_picture_file(file.parent / value, "image")

    return parse_storyboard(read.values, take, read.lines)


def _changes(runtime: Runtime, given: tuple[str, ...]) -> dict[str, object] | None:
    """NAME=VALUE pairs. Values are YAML, so numbers are numbers; an empty one takes the field away."""
    found: dict[str, object] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--set {pair!r}: NAME=VALUE was expected.")
        value: object = yaml.safe_load(text) if text and name not in ("prompt", "name", "edit_prompt") else text or None
        if name in ("keyframe", "end_keyframe") and isinstance(value, str):
            value = runtime.take_picture_file(Path(value), "image")
        found[name] = value
    return found or None


def _full(boards: Storyboards, given: str) -> str:
    """The id that begins so, if only one does."""
    if len(given) >= 32:
        return given
    found = [view.group.id for view in boards.list(owner=None, limit=1000) if view.group.id.startswith(given)]
    return found[0] if len(found) == 1 else given


def _follow(
    runtime: Runtime, boards: Storyboards, view: StoryboardView, output: Output, *, watch: bool, here: bool
) -> int:
    output.say(f"[green]✓[/green] storyboard [bold]{view.group.id}[/bold], {len(view.jobs)} scenes")
    if here:
        build_worker(runtime).run(once=True)
    elif watch:
        view = _watched(boards, view, output)
    elif not boards.service.store.workers():
        output.say("  [dim]• no worker runs yet: start one with `wanreel worker`[/dim]")
    view = boards.get(view.group.id)
    _tell(boards, view, output)
    return _FAILED if view.status in ("failed", "cancelled") and (here or watch) else 0


def _watched(boards: Storyboards, view: StoryboardView, output: Output) -> StoryboardView:
    told: dict[str, str] = {}
    while view.status not in _ENDED:
        for place, job in enumerate(view.jobs):
            if told.get(job.id) != job.status:
                told[job.id] = job.status
                output.say(f"  scene {place + 1}: {job.status.replace('_', ' ')}")
        time.sleep(_LOOK)
        view = boards.get(view.group.id)
    return view


def _tell(boards: Storyboards, view: StoryboardView, output: Output) -> None:
    row = _row(boards, view)
    output.result(row)
    clips = {clip["job"]: clip for clip in view.film["clips"]} if view.film else {}
    for job in view.jobs:
        place = job.cell or 0
        drift = f", drift {clips[job.id]['shown_drift']:.1f} ΔE" if job.id in clips else ""
        why = f": {job.error.message}" if job.error else ""
        name = view.board.scenes[place].name or view.board.scenes[place].prompt[:60]
        output.say(f"  {place + 1:>2} {job.status.replace('_', ' '):<11} {name}{drift}{why}")
    path = boards.path(view)
    if path is not None and view.film is not None:
        how = "copied" if view.film["copied"] else f"written again ({view.film['why']})"
        seconds = view.film["num_frames"] / view.film["fps"]
        mark = "[green]✓[/green]" if view.whole else "…"
        output.say(f"{mark} [bold]{path}[/bold] ({seconds:.1f} s, {len(clips)} scenes, {how})")
    if view.group.error is not None:
        output.say(f"[red]{view.group.error[1]}[/red]")


def _row(boards: Storyboards, view: StoryboardView) -> dict[str, Any]:
    path = boards.path(view)
    return {
        "id": view.group.id,
        "title": view.group.title,
        "status": view.status,
        "scenes": [
            {"video": job.id, "status": str(job.status), "seed": request_of(job).seed, "prompt": request_of(job).prompt}
            for job in view.jobs
        ],
        "film": None if view.film is None else {**view.film, "path": str(path) if path else None, "whole": view.whole},
    }
