"""`wanreel generate`: one video, or a batch, made right here without the queue."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import WanreelError
from wanreel.core.resolved import Resolution
from wanreel.core.video import Video
from wanreel.frontends.cli.destination import Destination, out_option
from wanreel.frontends.cli.failure import as_json, exit_code, explain
from wanreel.frontends.cli.gpus import gpu_options, gpu_settings
from wanreel.frontends.cli.knobs import asked_values
from wanreel.frontends.cli.output import Output, resolution_json, video_json
from wanreel.frontends.cli.progress import show_progress
from wanreel.frontends.cli.session import interruptible, open_runtime
from wanreel.frontends.cli.tasks import Task, is_batch, request_options, resolve_task, tasks_of
from wanreel.frontends.copying import Copy, copy_video
from wanreel.wiring import Runtime

SOME_FAILED = 6  #: exit code of a batch of which some items failed


@click.command()
@request_options
@out_option
@click.option("--device", help="auto, cpu, cuda, cuda:1, …")
@gpu_options
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@click.option("--json", "json_", is_flag=True, help="Print one JSON object (JSON lines for a batch) and nothing else.")
def generate(inputs: tuple[str, ...], from_video: Path | None, dry_run: bool, json_: bool, **options: Any) -> int:
    """Make a video from a PROMPT, or from a picture and a PROMPT.

    A folder of pictures makes one video each; a .jsonl file makes one for each line, an object with the knobs as keys
    and pictures as paths beside the file.
    """
    output = Output.open(json_)
    destination = Destination.of(options["out"], many=is_batch(inputs))
    values = destination.settle(asked_values(options))
    may_download = False if options["no_download"] else None
    with (
        open_runtime(
            out=destination.folder, device=options["device"], download=may_download, **gpu_settings(options)
        ) as runtime,
        interruptible() as cancel,
    ):
        if from_video is not None:
            values = runtime.recipe_values(from_video) | values
        tasks = tasks_of(inputs, options, values)
        if len(tasks) == 1 and not is_batch(inputs):
            return _one(runtime, tasks[0], output, cancel, destination, dry_run=dry_run)
        return _batch(runtime, tasks, output, cancel, dry_run=dry_run)


def _one(
    runtime: Runtime, task: Task, output: Output, cancel: CancelToken, destination: Destination, *, dry_run: bool
) -> int:
    try:
        resolution = resolve_task(runtime, task)
        output.plan(resolution)
        if dry_run:
            output.result(resolution_json(resolution))
            return 0
        made = _make(runtime, resolution, output, cancel, destination)
    except WanreelError as error:
        if not output.json:
            raise
        output.result(as_json(error))
        return exit_code(error)
    output.result(resolution_json(resolution) | made.row())
    made.tell(output)
    return 0


@dataclass(frozen=True)
class _Made:
    """A video, and its copies in storage."""

    video: Video
    copies: tuple[Copy, ...]

    def row(self) -> dict[str, object]:
        row: dict[str, object] = {"video": video_json(self.video)}
        if self.copies:
            row["storage"] = [asdict(copy) for copy in self.copies]
        return row

    def tell(self, output: Output) -> None:
        output.made(self.video)
        for copy in self.copies:
            output.say(f"  [dim]• {copy.kind.replace('_', ' ')} copied to storage as {copy.key}[/dim]")


def _make(
    runtime: Runtime, resolution: Resolution, output: Output, cancel: CancelToken, destination: Destination
) -> _Made:
    settings = runtime.settings
    made = show_progress(runtime.generate(resolution, cancel), output.console, settings.data.previews)
    video = destination.take(made)
    return _Made(video, copy_video(settings, resolution.storage, video, cancel) if resolution.storage else ())


def _batch(runtime: Runtime, tasks: list[Task], output: Output, cancel: CancelToken, *, dry_run: bool) -> int:
    """Every item by itself: a bad one is reported and the rest goes on."""
    failed = 0
    for number, task in enumerate(tasks, 1):
        cancel.check()
        output.say(f"[bold]{number}/{len(tasks)}[/bold] {task.name}")
        try:
            resolution = resolve_task(runtime, task)
            made = None if dry_run else _make(runtime, resolution, output, cancel, Destination(None))
        except WanreelError as error:
            if cancel.cancelled:
                raise
            failed += 1
            output.result({"item": task.name, "ok": False} | as_json(error))
            output.warn(explain(error))
            continue
        row = {"item": task.name, "ok": True} | resolution_json(resolution)
        output.result(row | (made.row() if made else {}))
        if made:
            made.tell(output)
    output.say(f"{len(tasks) - failed} of {len(tasks)} done" + (f", [red]{failed} failed[/red]" if failed else ""))
    return SOME_FAILED if failed else 0
