"""Tasks: what the words and flags of `generate` and `submit` ask for. Knows nothing of what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from wanreel.core.errors import BrokenWeights, InvalidRequest, Problem
from wanreel.core.lora import SUFFIX
from wanreel.core.request import KNOBS, VideoRequest
from wanreel.core.resolved import Resolution
from wanreel.frontends.cli import batch
from wanreel.frontends.cli.knobs import knob_options
from wanreel.wiring import Runtime

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Task:
    """One video to make, before its pictures are read."""

    name: str  #: for people: a file name or a line number
    values: dict[str, object]
    image: Path | None = None
    last_image: Path | None = None
    audio: Path | None = None


def request_options(command: Command) -> Command:
    """Adds the words and flags that say what is to be made."""
    decorators = (
        click.argument("inputs", nargs=-1, metavar="[IMAGE|FOLDER|TASKS.jsonl] [PROMPT]"),
        click.option("--last-image", type=click.Path(path_type=Path), help="The last frame, for models that take one."),
        click.option("--audio", type=click.Path(path_type=Path), help=KNOBS["audio"].help),
        knob_options,
        click.option(
            "--from", "from_video", type=click.Path(path_type=Path), help="Start from the recipe inside this video."
        ),
        click.option("--no-download", is_flag=True, help="Refuse when the model's weights are not here."),
    )
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def is_batch(inputs: tuple[str, ...]) -> bool:
    return bool(inputs) and inputs[0] != "" and (Path(inputs[0]).is_dir() or inputs[0].lower().endswith(".jsonl"))


def tasks_of(inputs: tuple[str, ...], options: Mapping[str, Any], values: dict[str, object]) -> list[Task]:
    """What the positional words mean: PROMPT, IMAGE PROMPT, FOLDER PROMPT, or TASKS.jsonl."""
    last_image: Path | None = options["last_image"]
    audio: Path | None = options["audio"]
    if is_batch(inputs):
        first = Path(inputs[0])
        prompt = {"prompt": " ".join(inputs[1:])} if inputs[1:] else {}
        rows = batch.folder(first) if first.is_dir() else batch.jsonl(first)
        return [
            Task(row.name, values | prompt | row.values, row.image, row.last_image or last_image, row.audio or audio)
            for row in rows
        ]
    match inputs:
        case ():
            return [Task("the request", values, None, last_image, audio)]
        case (only,) if _looks_like_picture(only):
            return [Task(only, values, Path(only), last_image, audio)]
        case (only,):
            return [Task("the request", values | {"prompt": only}, None, last_image, audio)]
        case (image, prompt):
            return [Task(image, values | {"prompt": prompt}, Path(image), last_image, audio)]
        case _:
            raise click.UsageError(
                f"At most a picture and a prompt are expected, got {len(inputs)} words. Put the prompt in quotes."
            )


def _looks_like_picture(word: str) -> bool:
    return Path(word).suffix.lower() in batch.PICTURE_SUFFIXES and Path(word).is_file()


def ask_task(runtime: Runtime, task: Task) -> tuple[VideoRequest, Resolution]:
    """Reads the pictures and resolves, naming every problem of both at once."""
    problems: list[Problem] = []
    values = dict(task.values)
    for field, path in (("image", task.image), ("last_image", task.last_image)):
        if path is not None:
            try:
                values[field] = runtime.take_picture_file(path, field)
            except InvalidRequest as error:
                problems.extend(error.problems)
    if task.audio is not None:
        try:
            values["audio"] = runtime.take_sound_file(task.audio)
        except InvalidRequest as error:
            problems.extend(error.problems)
    problems.extend(_take_loras(runtime, values))
    try:
        request = VideoRequest.from_mapping(values)
        if not problems:
            return request, runtime.resolve(request)
        problems = [*request.problems(), *problems]
    except InvalidRequest as error:
        problems = [*error.problems, *problems]
    raise InvalidRequest(*problems)


def _take_loras(runtime: Runtime, values: dict[str, object]) -> Iterator[Problem]:
    """Puts LoRAs that were named by their files on the shelf, and their names in the files' places."""
    given = values.get("loras")
    if not isinstance(given, list):
        return
    taken: list[object] = []
    for item in cast("list[object]", given):
        path = lora_path(item)
        if path is None:
            taken.append(item)
            continue
        try:
            taken.append(cast("dict[str, object]", item) | {"name": runtime.take_lora_file(path).name})
        except InvalidRequest as error:
            yield from error.problems
        except BrokenWeights as error:
            yield Problem("loras", "broken_lora", error.message, error.hint)
    values["loras"] = taken


def lora_path(item: object) -> Path | None:
    """The file that a --lora names, if it is a file."""
    name = cast("dict[str, object]", item).get("name") if isinstance(item, dict) else None
    if not isinstance(name, str) or not name.lower().endswith(SUFFIX):
        return None
    path = Path(name).expanduser()
    return path if path.is_file() else None


def resolve_task(runtime: Runtime, task: Task) -> Resolution:
    """The same without what was asked."""
    return ask_task(runtime, task)[1]
