"""`wanreel jobs`, `show`, `watch`, `cancel`, `retry`, `reduce`, `edit` and `move`: looking after what was handed in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from wanreel.core.job import JobStatus
from wanreel.frontends.cli.answer import (
    event_row,
    find_id,
    job_row,
    json_option,
    progress_text,
    queue_row,
    say,
    status_text,
)
from wanreel.frontends.cli.job_words import asked_changes, check_place, edit_options, move_options
from wanreel.frontends.cli.output import Output, resolution_json
from wanreel.frontends.cli.session import open_service

_SHORT = 8  # digits of an id that people are shown


@click.command()
@click.option("--status", type=click.Choice([str(status) for status in JobStatus]), help="Only these.")
@click.option("--owner", help="Only this owner's.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most so many.")
@json_option
def jobs(status: str | None, owner: str | None, limit: int, json_: bool) -> int:
    """List jobs, newest first, and the state of the queue."""
    with open_service() as (_, service):
        found = service.list(status=JobStatus(status) if status else None, owner=owner, limit=limit)
        state = service.queue()
        if json_:
            say({"queue": queue_row(state), "jobs": [job_row(service, job) for job in found]})
            return 0
        for job in found:
            prompt = " ".join(json.loads(job.request).get("prompt", "").split())
            click.echo(
                f"{job.id[:_SHORT]}  {status_text(job):<20} {progress_text(job):<16} {job.model:<16} {prompt[:50]}"
            )
    paused = f"; paused: {state.reason}" if state.paused else ""
    click.echo(f"{state.queued} queued (of {state.capacity}), {state.in_progress} in progress{paused}", err=True)
    return 0


@click.command()
@click.argument("job")
@json_option
def show(job: str, json_: bool) -> int:
    """Show everything about a JOB. The beginning of its id is enough."""
    with open_service() as (_, service):
        row = job_row(service, service.get(find_id(service, job)))
    if json_:
        say(row)
        return 0
    shown = {**row, **(row["result"] or {}), "prompt": row["request"].get("prompt")}
    for name, value in shown.items():
        if name not in ("request", "result", "files") and value not in (None, "", []):
            click.echo(f"{click.style(f'{name:>16}', dim=True)}  {_in_words(name, value)}")
    return 0


def _in_words(name: str, value: Any) -> str:
    """One fact of a job as a person reads it."""
    if name.endswith("_at"):
        return datetime.fromtimestamp(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if name in ("time_limit", "starts_in"):
        return f"{value:.0f} s"
    if name == "attempts":
        return "; ".join(_attempt_in_words(attempt) for attempt in value)
    if name == "error":
        return f"{value['message']} {value['hint']} ({value['code']})"
    return "; ".join(value) if isinstance(value, list) else str(value)


def _attempt_in_words(attempt: Mapping[str, Any]) -> str:
    took = f" after {attempt['seconds']:.1f} s" if attempt["seconds"] is not None else ""
    return f"{attempt['number']}: {attempt['outcome']}{took}"


@click.command()
@click.argument("job")
@click.option("--after", type=click.IntRange(0), default=0, help="Only events after this number.")
@json_option
def watch(job: str, after: int, json_: bool) -> int:
    """Show a JOB's events, those that were and those to come, until it has ended. Exits with 5 when it failed."""
    with open_service() as (_, service):
        job_id = find_id(service, job)
        for event in service.watch(job_id, after=after):
            if json_:
                say(event_row(event))
            else:
                facts = ", ".join(f"{name} {value}" for name, value in event.data.items() if value != "")
                click.echo(f"{click.style(f'{event.seq:>5}', dim=True)}  {event.kind.replace('_', ' '):<16} {facts}")
        return 0 if service.get(job_id).status is JobStatus.COMPLETED else 5


@click.command()
@click.argument("job")
@json_option
def cancel(job: str, json_: bool) -> int:
    """Stop a JOB: a queued one at once, a running one within a step."""
    with open_service() as (_, service):
        _tell(job_row(service, service.cancel(find_id(service, job))), json_)
    return 0


@click.command()
@click.argument("job")
@json_option
def retry(job: str, json_: bool) -> int:
    """Queue a failed or cancelled JOB again. It goes on from its last checkpoint if there is one."""
    with open_service() as (_, service):
        _tell(job_row(service, service.retry(find_id(service, job))), json_)
    return 0


@click.command()
@click.argument("job")
@json_option
def reduce(job: str, json_: bool) -> int:
    """Queue a smaller job in the place of a JOB that ran out of memory, and say what differs."""
    with open_service() as (_, service):
        made, changes = service.reduce(find_id(service, job))
        row = job_row(service, made)
    _tell(row, json_)
    for change in changes if not json_ else ():
        click.echo(f"  {change}")
    return 0


@click.command()
@edit_options
@json_option
def edit(job: str, prompt: str | None, json_: bool, **options: Any) -> int:
    """Change knobs of a queued JOB, which keeps its place in line."""
    changes = asked_changes(prompt, options)
    output = Output.open(json_)
    with open_service() as (_, service):
        job_id = find_id(service, job)
        resolution = service.edit(job_id, changes)
    output.plan(resolution)
    output.result({"id": job_id} | resolution_json(resolution))
    return 0


@click.command()
@move_options
@json_option
def move(job: str, before: str | None, last: bool, priority: int | None, json_: bool) -> int:
    """Give a queued JOB another place in line."""
    check_place(before, last, priority)
    with open_service() as (_, service):
        other = find_id(service, before) if before is not None else None
        moved = service.move(find_id(service, job), before=other, priority=priority)
        _tell(job_row(service, moved), json_)
    return 0


def _tell(row: dict[str, Any], json_: bool) -> None:
    """What became of a job by a command."""
    if json_:
        say(row)
        return
    asked = " (it stops within a step)" if row["cancel_requested"] and row["status"] == "in_progress" else ""
    place = f", number {row['position']} in line" if row["position"] else ""
    click.echo(f"{row['id'][:_SHORT]} is {row['status'].replace('_', ' ')}{place}{asked}")
