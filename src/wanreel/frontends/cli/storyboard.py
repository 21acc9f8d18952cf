"""`wanreel storyboard`: scenes that become one video. Only translates; what it means is in `service.storyboards`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import yaml

from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.storyboard import Storyboard, parse_storyboard
from wanreel.frontends.cli.answer import json_option
from wanreel.frontends.cli.groups import HERE, WATCH, GroupCommands
from wanreel.frontends.storyboard_file import read_storyboard_file
from wanreel.service import Terms, request_of
from wanreel.service.storyboards import Storyboards, StoryboardView
from wanreel.wiring import Runtime

P = ParamSpec("P")
R = TypeVar("R")


@click.group()
def storyboard() -> None:
    """Scenes that become one video: each a job of its own that can be made again alone."""


def _waiting(command: Callable[P, R]) -> Callable[P, R]:
    return WATCH(HERE(command))


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
    with _COMMANDS.open() as (runtime, boards, output):
        board = board_of(runtime, file)
        if check:
            boards.check(board)
            output(json_).say(f"[green]✓[/green] {len(board.scenes)} scenes")
            return 0
        view = boards.create(board, Terms(terms["owner"], terms["priority"], terms["idempotency_key"]))
        return _COMMANDS.follow(runtime, boards, view, output(json_), watch=watch, here=here)


@storyboard.command()
@click.argument("storyboard_id")
@_waiting
@json_option
def watch(storyboard_id: str, json_: bool, watch: bool, here: bool) -> int:
    """Follow a storyboard until it has ended."""
    with _COMMANDS.open() as (runtime, boards, output):
        view = _COMMANDS.found(boards, storyboard_id)
        return _COMMANDS.follow(runtime, boards, view, output(json_), here=here)


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
    with _COMMANDS.open() as (runtime, boards, output):
        found = _COMMANDS.found(boards, storyboard_id)
        view = boards.redo(found.group.id, scene - 1, _changes(runtime, changes))
        kept = {job.id for job in found.jobs} & {job.id for job in view.jobs}
        output(json_).say(f"  [dim]• {len(view.jobs) - len(kept)} scenes are made again, {len(kept)} stay[/dim]")
        return _COMMANDS.follow(runtime, boards, view, output(json_), watch=watch, here=here)


@storyboard.command()
@click.argument("storyboard_id")
@click.argument("file", type=click.Path(path_type=Path))
@_waiting
@json_option
def update(storyboard_id: str, file: Path, json_: bool, watch: bool, here: bool) -> int:
    """Take FILE in a storyboard's place: only what is not as it was is made again."""
    with _COMMANDS.open() as (runtime, boards, output):
        view = boards.replace(_COMMANDS.full(boards, storyboard_id), board_of(runtime, file))
        return _COMMANDS.follow(runtime, boards, view, output(json_), watch=watch, here=here)


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


def _labels(view: StoryboardView) -> Iterator[str]:
    return (f"scene {place + 1}" for place, _ in enumerate(view.jobs))


def _lines(boards: Storyboards, view: StoryboardView) -> Iterator[str]:
    clips = {clip["job"]: clip for clip in view.film["clips"]} if view.film else {}
    for job in view.jobs:
        place = job.cell or 0
        drift = f", drift {clips[job.id]['shown_drift']:.1f} ΔE" if job.id in clips else ""
        why = f": {job.error.message}" if job.error else ""
        name = view.board.scenes[place].name or view.board.scenes[place].prompt[:60]
        yield f"  {place + 1:>2} {job.status.replace('_', ' '):<11} {name}{drift}{why}"
    path = boards.path(view)
    if path is not None and view.film is not None:
        how = "copied" if view.film["copied"] else f"written again ({view.film['why']})"
        seconds = view.film["num_frames"] / view.film["fps"]
        mark = "[green]✓[/green]" if view.whole else "…"
        yield f"{mark} [bold]{path}[/bold] ({seconds:.1f} s, {len(clips)} scenes, {how})"


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


_COMMANDS = GroupCommands[Storyboards, StoryboardView]("storyboard", "scenes", Storyboards, _labels, _row, _lines)
_COMMANDS.add_to(
    storyboard,
    {
        "list": "List the storyboards, newest first.",
        "show": "Show a storyboard and its scenes.",
        "cancel": "Stop every scene that has not ended.",
        "retry": "Queue every scene again that failed or was cancelled.",
        "delete": "Forget a storyboard with its clips and the film.",
    },
)
