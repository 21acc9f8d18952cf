"""`wanreel generate`: one video, or a batch, made right here without the queue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import InvalidRequest, WanreelError
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Resolution
from wanreel.core.video import Video
from wanreel.frontends.cli import batch
from wanreel.frontends.cli.failure import as_json, exit_code, explain
from wanreel.frontends.cli.knobs import asked_values, knob_options
from wanreel.frontends.cli.output import Output, resolution_json, video_json
from wanreel.frontends.cli.progress import show_progress
from wanreel.frontends.cli.session import interruptible, open_runtime
from wanreel.wiring import Runtime

SOME_FAILED = 6  #: exit code of a batch of which some items failed


@dataclass(frozen=True, slots=True)
class Task:
    """One video to make, before its pictures are read."""

    name: str  #: for people: a file name or a line number
    values: dict[str, object]
    image: Path | None = None
    last_image: Path | None = None


@click.command()
@click.argument("inputs", nargs=-1, metavar="[IMAGE|FOLDER|TASKS.jsonl] [PROMPT]")
@click.option("--last-image", type=click.Path(path_type=Path), help="The last frame, for models that take one.")
@knob_options
@click.option("--from", "from_video", type=click.Path(path_type=Path), help="Start from the recipe inside this video.")
@click.option("--out", "-o", type=click.Path(path_type=Path), help="Folder for the results; the data directory's outputs/ by default.")
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object (JSON lines for a batch) and nothing else.")
def generate(
    inputs: tuple[str, ...],
    last_image: Path | None,
    from_video: Path | None,
    out: Path | None,
    device: str | None,
    dry_run: bool,
    json_: bool,
    **options: object,
) -> int:
    """Make a video from a PROMPT, or from a picture and a PROMPT.

    A folder of pictures makes one video each; a .jsonl file makes one for each line, an object with the knobs as keys
    and pictures as paths beside the file.
    """
    output = Output(json_)
    values = asked_values(options)
    with open_runtime(out=out, device=device) as runtime, interruptible() as cancel:
        if from_video is not None:
            values = runtime.recipe_values(from_video) | values
        tasks = _tasks(inputs, last_image, values)
        if len(tasks) == 1 and not _is_batch(inputs):
            return _one(runtime, tasks[0], output, cancel, dry_run=dry_run)
        return _batch(runtime, tasks, output, cancel, dry_run=dry_run)


def _is_batch(inputs: tuple[str, ...]) -> bool:
    return bool(inputs) and (Path(inputs[0]).is_dir() or inputs[0].lower().endswith(".jsonl"))


def _tasks(inputs: tuple[str, ...], last_image: Path | None, values: dict[str, object]) -> list[Task]:
    """What the positional words mean: PROMPT, IMAGE PROMPT, FOLDER PROMPT, or TASKS.jsonl."""
    if _is_batch(inputs):
        first = Path(inputs[0])
        prompt = {"prompt": " ".join(inputs[1:])} if inputs[1:] else {}
        rows = batch.folder(first) if first.is_dir() else batch.jsonl(first)
        return [
            Task(row.name, values | prompt | row.values, row.image, row.last_image or last_image)
            for row in rows
        ]
    match inputs:
        case ():
            return [Task("the request", values, None, last_image)]
        case (only,) if _looks_like_picture(only):
            return [Task(only, values, Path(only), last_image)]
        case (only,):
            return [Task("the request", values | {"prompt": only}, None, last_image)]
        case (image, prompt):
            return [Task(image, values | {"prompt": prompt}, Path(image), last_image)]
        case _:
            raise click.UsageError(f"At most a picture and a prompt are expected, got {len(inputs)} words. Put the prompt in quotes.")


def _looks_like_picture(word: str) -> bool:
    return Path(word).suffix.lower() in batch.PICTURE_SUFFIXES and Path(word).is_file()


def _resolve(runtime: Runtime, task: Task) -> Resolution:
    """Reads the pictures and resolves, naming every problem of both at once."""
    problems = []
    values = dict(task.values)
    for field, path in (("image", task.image), ("last_image", task.last_image)):
        if path is not None:
            try:
                values[field] = runtime.take_picture_file(path, field)
            except InvalidRequest as error:
                problems.extend(error.problems)
    try:
        request = VideoRequest.from_mapping(values)
        if not problems:
            return runtime.resolve(request)
        problems = [*request.problems(), *problems]
    except InvalidRequest as error:
        problems = [*error.problems, *problems]
    raise InvalidRequest(*problems)


def _one(runtime: Runtime, task: Task, output: Output, cancel: CancelToken, *, dry_run: bool) -> int:
    try:
        resolution = _resolve(runtime, task)
        output.plan(resolution)
        if dry_run:
            output.result(resolution_json(resolution))
            return 0
        video = _make(runtime, resolution, output, cancel)
    except WanreelError as error:
        if not output.json:
            raise
        output.result(as_json(error))
        return exit_code(error)
    output.result(resolution_json(resolution) | {"video": video_json(video)})
    output.made(video)
    return 0


def _make(runtime: Runtime, resolution: Resolution, output: Output, cancel: CancelToken) -> Video:
    return show_progress(runtime.generate(resolution, cancel), output.console, runtime.settings.data.previews, quiet=output.json)


def _batch(runtime: Runtime, tasks: list[Task], output: Output, cancel: CancelToken, *, dry_run: bool) -> int:
    """Every item by itself: a bad one is reported and the rest goes on."""
    failed = 0
    for number, task in enumerate(tasks, 1):
        cancel.check()
        output.say(f"[bold]{number}/{len(tasks)}[/bold] {task.name}")
        try:
            resolution = _resolve(runtime, task)
            video = None if dry_run else _make(runtime, resolution, output, cancel)
        except WanreelError as error:
            if cancel.cancelled:
                raise
            failed += 1
            output.result({"item": task.name, "ok": False} | as_json(error))
            output.warn(explain(error))
            continue
        row = {"item": task.name, "ok": True} | resolution_json(resolution)
        output.result(row | ({"video": video_json(video)} if video else {}))
        if video:
            output.made(video)
    output.say(f"{len(tasks) - failed} of {len(tasks)} done" + (f", [red]{failed} failed[/red]" if failed else ""))
    return SOME_FAILED if failed else 0
