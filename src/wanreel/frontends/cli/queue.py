"""`wanreel pause`, `resume` and `queue`: the line as a whole."""

from __future__ import annotations

from pathlib import Path

import click

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import QueueState
from wanreel.frontends.cli.answer import json_option, queue_row, say
from wanreel.frontends.cli.session import open_service
from wanreel.service.queue_file import export_queue, import_queue


@click.command()
@click.option("--reason", default="paused by hand", help="Why, for others to read.")
@json_option
def pause(reason: str, json_: bool) -> int:
    """Let no worker take another job. Running ones go on, and new ones are accepted."""
    with open_service() as (_, service):
        _tell(service.pause(reason), json_)
    return 0


@click.command()
@json_option
def resume(json_: bool) -> int:
    """Let workers take jobs again."""
    with open_service() as (_, service):
        _tell(service.resume(), json_)
    return 0


@click.group()
def queue() -> None:
    """The line as a file."""


@queue.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def export(file: Path, json_: bool) -> int:
    """Write the queued jobs and their pictures into FILE. They stay in the queue."""
    with open_service() as (runtime, service):
        text = export_queue(service, runtime.pictures)
        count = service.queue().queued
    temporary = file.with_name(f".{file.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
    if json_:
        say({"path": str(file), "jobs": count})
    else:
        click.echo(f"{count} jobs in {file}")
    return 0


@queue.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def import_(file: Path, json_: bool) -> int:
    """Queue the jobs of FILE. Doing it twice queues them once."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest.of("file", "unreadable", f"{file} can't be read: {exc}.") from exc
    with open_service() as (runtime, service):
        taken = import_queue(service, text, runtime.take_picture, runtime.take_sound)
    if json_:
        say({"ids": [job.id for job in taken]})
    else:
        click.echo(f"{len(taken)} jobs queued")
    return 0


def _tell(state: QueueState, json_: bool) -> None:
    if json_:
        say(queue_row(state))
    else:
        click.echo(f"paused: {state.reason}" if state.paused else f"running, {state.queued} queued")
