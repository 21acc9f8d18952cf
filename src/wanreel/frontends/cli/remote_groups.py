"""`wanreel --server URL sweep`, `sweeps` and `storyboard`: as at home, but made there and saved here. Only translates."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import yaml

from wanreel.core.adjustment import Adjustment
from wanreel.core.errors import GroupNotFound, InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.storyboard import parse_storyboard
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.server_link import with_client
from wanreel.frontends.cli.sweep_words import asked_sweep, sweep_options
from wanreel.frontends.client import Client
from wanreel.frontends.client_groups import RemoteGroups
from wanreel.frontends.storyboard_file import read_storyboard_file

_LOOK = 1.0  # seconds between looks at one that is watched
_FAILED = 5  # exit code of one that failed
_ENDED = ("completed", "failed", "cancelled")
_ID_LENGTH = 32
_LOOKED_AT = 100  # among which the beginning of an id is looked for
_PICTURES = ("keyframe", "end_keyframe")  # fields of a scene
_WORDS = ("prompt", "motion_prompt", "name", "edit_prompt")  # fields whose value is text, whatever it looks like
#: Stands for a picture while a file is looked through, before any picture is sent.
_ANY = PictureRef("0" * 64, 1, 1)


@dataclass(frozen=True)
class _Noun:
    """What the two kinds differ in."""

    one: str
    members: str
    groups: Callable[[Client], RemoteGroups]
    label: Callable[[Mapping[str, Any]], str]  #: of a member
    files: Callable[[Mapping[str, Any]], Mapping[str, str]]  #: file names by variant


def _cell(cell: Mapping[str, Any]) -> str:
    return ", ".join(cell["labels"])


def _scene(scene: Mapping[str, Any]) -> str:
    drift = "" if scene["shown_drift"] is None else f", drift {scene['shown_drift']:.1f} ΔE"
    return (scene["scene"].get("name") or scene["scene"]["prompt"][:60]) + drift


def _sweep_files(row: Mapping[str, Any]) -> Mapping[str, str]:
    return {kind: Path(file["name"]).name for kind, file in row["files"].items()}


def _film(row: Mapping[str, Any]) -> Mapping[str, str]:
    suffix = row["settings"].get("output_format") or "mp4"
    return {"": f"wanreel_{row['id'][:8]}.{suffix}"} if row["film"] else {}


_SWEEP = _Noun("sweep", "cells", lambda client: client.sweeps, _cell, _sweep_files)
_STORYBOARD = _Noun("storyboard", "scenes", lambda client: client.storyboards, _scene, _film)


def _waiting(command: Callable[..., int]) -> Callable[..., int]:
    watch = click.option("--watch", is_flag=True, help="Follow it until it has ended.")
    out = click.option("--out", "-o", type=click.Path(path_type=Path), help="Follow it, and save what comes out here.")
    return watch(out(command))


_KEY = click.option("--key", "idempotency_key", help="The same again with the same key is the same one.")


@click.command()
@sweep_options
@_KEY
@_waiting
@json_option
@with_client
def sweep(client: Client, inputs: tuple[str, ...], json_: bool, watch: bool, out: Path | None, **options: Any) -> int:
    """Compare seeds, guidance, steps, prompts or LoRA strengths on the server."""
    values, files = asked_sweep(inputs, options)
    values |= {name: client.upload(path, name) for name, path in files.items()}
    row = client.sweeps.create(values, idempotency_key=options["idempotency_key"])
    output = Output.open(json_)
    for adjustment in row["adjustments"]:
        output.say(f"  [dim]• {Adjustment(**adjustment)}[/dim]")
    return _follow(client, _SWEEP, row, output, watch=watch, out=out)


@click.group("sweeps")
def sweeps() -> None:
    """Look after your sweeps on the server: list, show, stop and save them."""


@click.group()
def storyboard() -> None:
    """Scenes that become one video, on the server."""


@storyboard.command()
@click.argument("file", type=click.Path(path_type=Path))
@_KEY
@_waiting
@json_option
@with_client
def render(client: Client, file: Path, idempotency_key: str | None, json_: bool, watch: bool, out: Path | None) -> int:
    """Queue every scene of FILE, YAML or JSON, and join them as they come. Pictures are paths beside the file."""
    row = client.storyboards.create(_board(client, file), idempotency_key=idempotency_key)
    return _follow(client, _STORYBOARD, row, Output.open(json_), watch=watch, out=out)


@storyboard.command()
@click.argument("given", metavar="ID")
@click.argument("file", type=click.Path(path_type=Path))
@_waiting
@json_option
@with_client
def update(client: Client, given: str, file: Path, json_: bool, watch: bool, out: Path | None) -> int:
    """Take FILE in a storyboard's place: only what is not as it was is made again."""
    row = client.storyboards.replace(_full(client.storyboards, given), _board(client, file))
    return _follow(client, _STORYBOARD, row, Output.open(json_), watch=watch, out=out)


@storyboard.command()
@click.argument("given", metavar="ID")
@click.option("--scene", type=click.IntRange(min=1), required=True, help="Which, from 1.")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="A field or knob of it; another seed by default."
)
@_waiting
@json_option
@with_client
def redo(client: Client, given: str, scene: int, changes: tuple[str, ...], json_: bool, **waiting: Any) -> int:
    """Make a scene again, and those that depend on it."""
    row = client.storyboards.redo(_full(client.storyboards, given), scene, _changes(client, changes))
    return _follow(client, _STORYBOARD, row, Output.open(json_), **waiting)


def _add_verbs(group: click.Group, noun: _Noun) -> None:
    """The verbs that both kinds have."""
    at = click.argument("given", metavar="ID")

    @json_option
    @with_client
    def list_(client: Client, json_: bool) -> int:
        for row in noun.groups(client).list(limit=_LOOKED_AT):
            if json_:
                say(row)
                continue
            done = sum(member["status"] == "completed" for member in row[noun.members])
            count = f"{done}/{len(row[noun.members])}"
            Output.open(json_).say(f"{row['id']}  {row['status']:<11} {count}  {row['title']}")
        return 0

    @at
    @json_option
    @with_client
    def show(client: Client, given: str, json_: bool) -> int:
        groups = noun.groups(client)
        _tell(noun, groups.get(_full(groups, given)), Output.open(json_))
        return 0

    @at
    @click.option("--out", "-o", type=click.Path(path_type=Path), help="Save what comes out in this folder.")
    @json_option
    @with_client
    def watch(client: Client, given: str, json_: bool, out: Path | None) -> int:
        groups = noun.groups(client)
        row = groups.get(_full(groups, given))
        return _follow(client, noun, row, Output.open(json_), watch=True, out=out)

    @at
    @click.option("--out", "-o", type=click.Path(path_type=Path), default=Path(), help="Folder for the files.")
    @json_option
    @with_client
    def save(client: Client, given: str, json_: bool, out: Path) -> int:
        groups = noun.groups(client)
        row = groups.get(_full(groups, given))
        if not noun.files(row):
            raise InvalidRequest.of(noun.one, "not_ready", "nothing was made of it yet.", "Follow it with watch.")
        saved = _save(groups, noun, row, out, Output.open(json_))
        if json_:
            say(saved)
        return 0

    group.command("list", help=f"List your {noun.one}s on the server, newest first.")(list_)
    group.command("show", help=f"Show a {noun.one} and its {noun.members}.")(show)
    group.command("watch", help=f"Follow a {noun.one} until it has ended.")(watch)
    group.command("save", help=f"Save here what was made of a {noun.one}.")(save)
    for name, text in (
        ("cancel", f"Stop a {noun.one}: every one of its {noun.members} that has not ended."),
        ("retry", f"Queue {noun.members} again that failed or were cancelled."),
        ("delete", f"Forget a {noun.one} with its videos and files."),
    ):
        group.command(name, help=text)(_simple(noun, name))


def _simple(noun: _Noun, name: str) -> Callable[..., int]:
    @click.argument("given", metavar="ID")
    @json_option
    @with_client
    def command(client: Client, given: str, json_: bool) -> int:
        groups = noun.groups(client)
        row = cast("Mapping[str, Any]", getattr(groups, name)(_full(groups, given)))
        if name != "delete":
            _tell(noun, row, Output.open(json_))
        elif json_:
            say(row)
        return 0

    return command


_add_verbs(sweeps, _SWEEP)
_add_verbs(storyboard, _STORYBOARD)

COMMANDS: dict[str, click.Command] = {"sweep": sweep, "sweeps": sweeps, "storyboard": storyboard}


def _board(client: Client, file: Path) -> dict[str, Any]:
    """A storyboard's file with its pictures sent. Raises InvalidRequest by scene and line, before any is."""
    read = read_storyboard_file(file)

    def look(value: object, name: str) -> PictureRef:
        if not isinstance(value, str):
            raise InvalidRequest.of(name, "wrong_type", "the path of a picture was expected.")
        return _ANY

    parse_storyboard(read.values, look, read.lines)
    scenes = [
        {name: _sent(client, file, name, value) for name, value in scene.items()} for scene in read.values["scenes"]
    ]
    return {**read.values, "scenes": scenes}


def _sent(client: Client, file: Path, name: str, value: Any) -> Any:
    return client.upload(file.parent / value) if name in _PICTURES and value is not None else value


def _changes(client: Client, given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs. Values are YAML, so numbers are numbers; an empty one takes the field away."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--set {pair!r}: NAME=VALUE was expected.")
        value: Any = yaml.safe_load(text) if text and name not in _WORDS else text or None
        found[name] = _sent(client, Path(), name, value)
    return found


def _full(groups: RemoteGroups, given: str) -> str:
    """The id that begins so. Raises GroupNotFound where that is none or several of the newest."""
    if len(given) >= _ID_LENGTH or not given:
        return given
    found = [row["id"] for row in groups.list(limit=_LOOKED_AT) if row["id"].startswith(given)]
    if len(found) == 1:
        return found[0]
    text = f"is the beginning of {len(found)} ids." if found else "begins none of your newest ids."
    raise GroupNotFound(f"{given!r} {text}", hint="Give more of it.")


def _follow(
    client: Client, noun: _Noun, row: Mapping[str, Any], output: Output, *, watch: bool, out: Path | None
) -> int:
    groups = noun.groups(client)
    output.say(f"[green]✓[/green] {noun.one} [bold]{row['id']}[/bold], {len(row[noun.members])} {noun.members}")
    watched = watch or out is not None
    if watched:
        row = _watched(groups, noun, row, output)
    saved = _save(groups, noun, row, out, output) if out is not None else {}
    _tell(noun, {**row, "saved": saved} if saved else row, output)
    return _FAILED if row["status"] in ("failed", "cancelled") and watched else 0


def _watched(groups: RemoteGroups, noun: _Noun, row: Mapping[str, Any], output: Output) -> Mapping[str, Any]:
    """As it is when it has ended. Ctrl-C leaves it running on the server."""
    told: dict[int, str] = {}
    while row["status"] not in _ENDED:
        for member in row[noun.members]:
            if told.get(member["number"]) != member["status"]:
                told[member["number"]] = member["status"]
                output.say(f"  {member['number']:>2} {noun.label(member)}: {member['status'].replace('_', ' ')}")
        time.sleep(_LOOK)
        row = groups.get(row["id"])
    return row


def _save(groups: RemoteGroups, noun: _Noun, row: Mapping[str, Any], folder: Path, output: Output) -> Mapping[str, str]:
    """Paths of what was saved, by kind."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        saved = {kind: groups.download(row["id"], folder / name, kind) for kind, name in noun.files(row).items()}
    except OSError as exc:
        raise InvalidRequest.of("out", "unreadable", f"{folder} can't be written: {exc.strerror}.") from exc
    for path in saved.values():
        output.say(f"[green]✓[/green] [bold]{path}[/bold]")
    return {kind or "film": str(path) for kind, path in saved.items()}


def _tell(noun: _Noun, row: Mapping[str, Any], output: Output) -> None:
    output.result(row)
    for member in row[noun.members]:
        why = f": {member['error']}" if member["error"] else ""
        output.say(f"  {member['number']:>2} {member['status'].replace('_', ' '):<11} {noun.label(member)}{why}")
    if row["error"]:
        output.say(f"[red]{row['error']}[/red]")
