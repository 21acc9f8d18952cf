"""`wanreel --server URL …`: the verbs against a Wanreel somewhere else. Same words, same flags, same rows as at home."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from wanreel.core.errors import Cancelled, InvalidRequest, JobNotFound, WanreelError
from wanreel.core.job import JobStatus
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.destination import Destination, far_out_option
from wanreel.frontends.cli.failure import as_json, explain
from wanreel.frontends.cli.far import show_far
from wanreel.frontends.cli.generate import SOME_FAILED
from wanreel.frontends.cli.job_words import asked_changes, check_place, edit_options, move_options
from wanreel.frontends.cli.knobs import asked_values, export_options
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.remote_groups import COMMANDS as GROUP_COMMANDS
from wanreel.frontends.cli.server_link import with_client
from wanreel.frontends.cli.tasks import Task, is_batch, request_options, tasks_of
from wanreel.frontends.client import Client, RemoteVideo

_SHORT = 8  # digits of an id that people are shown
_ID_LENGTH = 32
_LOOKED_AT = 100  # videos among which the beginning of an id is looked for


@click.command()
@request_options
@far_out_option
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@json_option
@with_client
def generate(client: Client, inputs: tuple[str, ...], dry_run: bool, json_: bool, **options: Any) -> int:
    """Make a video on the server, wait for it, and save it here."""
    destination = Destination.of(options["out"], many=is_batch(inputs))

    def make(task: Task, output: Output) -> dict[str, Any]:
        if dry_run:
            return dict(client.plan("", **asked_of(task)))
        video = client.submit("", **asked_of(task))
        show_far((client.get(video.id) for _ in client.events(video.id)), output, lambda: client.cancel(video.id))
        done = client.wait(video.id)
        path = client.download(done.id, _target(destination, done))
        output.say(f"[green]✓[/green] [bold]{path}[/bold] ({path.stat().st_size / 1e6:.2f} MB)")
        return {**done.facts, "path": str(path)}

    return each_task(inputs, options, Output.open(json_), make, destination)


@click.command()
@request_options
@click.option("--key", "idempotency_key", help="Handing in the same request with the same key again is the same job.")
@json_option
@with_client
def submit(client: Client, inputs: tuple[str, ...], idempotency_key: str | None, json_: bool, **options: Any) -> int:
    """Queue a video, or a batch of them, on the server and return at once."""
    if idempotency_key is not None and is_batch(inputs):
        raise click.UsageError("--key stands for one job and can't be used with a batch.")

    def make(task: Task, output: Output) -> dict[str, Any]:
        video = client.submit("", idempotency_key=idempotency_key, **asked_of(task))
        place = f", number {video.position} in line" if video.position else ""
        output.say(f"[green]✓[/green] queued as [bold]{video.id}[/bold]{place}")
        return dict(video.facts)

    return each_task(inputs, options, Output.open(json_), make)


@click.command()
@click.option("--status", type=click.Choice([str(status) for status in JobStatus]), help="Only these.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many.")
@json_option
@with_client
def jobs(client: Client, status: str | None, limit: int, json_: bool) -> int:
    """List your videos on the server, newest first, and the state of the queue."""
    found, line = client.list(limit=limit, status=status), client.queue()
    if json_:
        say({"queue": line, "jobs": [video.facts for video in found]})
        return 0
    for video in found:
        text = f"{video.status.replace('_', ' '):<12} {video.progress:>3} %  {video.model:<16}"
        click.echo(f"{video.id[:_SHORT]}  {text} {' '.join(video.prompt.split())[:50]}")
    paused = f"; paused: {line['reason']}" if line["paused"] else ""
    click.echo(f"{line['queued']} queued (of {line['capacity']}), {line['in_progress']} in progress{paused}", err=True)
    return 0


@click.command()
@click.argument("job")
@json_option
@with_client
def show(client: Client, job: str, json_: bool) -> int:
    """Show everything about a JOB. The beginning of its id is enough."""
    video = client.get(_find(client, job))
    if json_:
        say(video.facts)
        return 0
    facts = {name: value for name, value in video.facts.items() if name not in ("wanreel", "object")}
    shown = {**facts, **video.facts["wanreel"], **video.facts["wanreel"]["request"]}
    for name, value in shown.items():
        if name not in ("request", "adjustments") and value not in (None, "", []):
            click.echo(f"{click.style(f'{name:>20}', dim=True)}  {value}")
    return 0


@click.command()
@click.argument("job")
@click.option("--after", type=click.IntRange(0), default=0, help="Only events after this number.")
@json_option
@with_client
def watch(client: Client, job: str, after: int, json_: bool) -> int:
    """Show a JOB's events, those that were and those to come, until it has ended. Exits with 5 when it failed."""
    video_id = _find(client, job)
    for event in client.events(video_id, after=after):
        if json_:
            say(event.data)
            continue
        shown = {key: value for key, value in event.data.items() if key not in ("job_id", "seq", "at", "kind")}
        facts = ", ".join(f"{name} {value}" for name, value in shown.items() if value != "")
        click.echo(f"{click.style(f'{event.seq:>5}', dim=True)}  {event.kind.replace('_', ' '):<16} {facts}")
    return 0 if client.get(video_id).status == JobStatus.COMPLETED else 5


@click.command()
@click.argument("job")
@json_option
@with_client
def cancel(client: Client, job: str, json_: bool) -> int:
    """Stop a JOB: a queued one at once, a running one within a step."""
    return _tell(client.cancel(_find(client, job)), json_)


@click.command()
@click.argument("job")
@json_option
@with_client
def retry(client: Client, job: str, json_: bool) -> int:
    """Queue a failed or cancelled JOB again. It goes on from its last checkpoint if there is one."""
    return _tell(client.retry(_find(client, job)), json_)


@click.command()
@click.argument("job")
@json_option
@with_client
def reduce(client: Client, job: str, json_: bool) -> int:
    """Queue a smaller job in the place of a JOB that ran out of memory, and say what differs."""
    made = client.reduce(_find(client, job))
    _tell(made, json_)
    for note in made.facts["wanreel"]["notes"] if not json_ else ():
        click.echo(f"  {note}")
    return 0


@click.command()
@edit_options
@json_option
@with_client
def edit(client: Client, job: str, prompt: str | None, json_: bool, **options: Any) -> int:
    """Change knobs of a queued JOB, which keeps its place in line."""
    changes = asked_changes(prompt, options)
    return _tell(client.edit(_find(client, job), **changes), json_)


@click.command()
@move_options
@json_option
@with_client
def move(client: Client, job: str, before: str | None, last: bool, priority: int | None, json_: bool) -> int:
    """Give a queued JOB another place in line."""
    check_place(before, last, priority)
    other = _find(client, before) if before is not None else None
    return _tell(client.move(_find(client, job), before=other, priority=priority), json_)


@click.command()
@click.argument("job")
@export_options
@json_option
@with_client
def reexport(client: Client, job: str, json_: bool, **options: Any) -> int:
    """Queue another export of a finished JOB, in another format or finished otherwise, without denoising again."""
    given = asked_values(options) | ({"audio": options["audio"]} if options["audio"] is not None else {})
    return _tell(client.export(_find(client, job), **given), json_)


@click.command()
@click.argument("job")
@far_out_option
@json_option
@with_client
def download(client: Client, job: str, out: Path, json_: bool) -> int:
    """Save a finished JOB's video here."""
    video = client.get(_find(client, job))
    path = client.download(video.id, _target(Destination.of(out, many=False), video))
    say({"path": str(path)}) if json_ else click.echo(path)
    return 0


@click.command()
@click.option("--reason", default="paused by hand", help="Why, for others to read.")
@json_option
@with_client
def pause(client: Client, reason: str, json_: bool) -> int:
    """Let no worker of the server take another job."""
    return _tell_line(client.pause(reason), json_)


@click.command()
@json_option
@with_client
def resume(client: Client, json_: bool) -> int:
    """Let the server's workers take jobs again."""
    return _tell_line(client.resume(), json_)


@click.command()
@json_option
@with_client
def models(client: Client, json_: bool) -> int:
    """List the models of the server."""
    rows = client.models()
    if json_:
        say(rows)
        return 0
    for row in rows:
        state = click.style("installed", fg="green") if row["installed"] else "–"
        click.echo(f"{row['id']:<22} {', '.join(row['modes']):<22} {state}")
    return 0


#: The verbs that work against a server.
COMMANDS: Mapping[str, click.Command] = {
    command.name: command
    for command in (
        generate, submit, jobs, show, watch, cancel, retry, reduce, edit, move, reexport, download, pause, resume, models,
    )
    if command.name
} | GROUP_COMMANDS  # fmt: skip


def each_task(
    inputs: tuple[str, ...],
    options: Mapping[str, Any],
    output: Output,
    make: Callable[[Task, Output], dict[str, Any]],
    destination: Destination | None = None,
) -> int:
    """Runs `make` on what the words mean; of a batch a bad item is reported and the rest goes on."""
    if options["from_video"] is not None:
        raise click.UsageError("--from reads a recipe at home; leave out --server.")
    tasks = tasks_of(inputs, options, (destination or Destination(None)).settle(asked_values(options)))
    if not is_batch(inputs):
        output.result(make(tasks[0], output))
        return 0
    failed = 0
    for number, task in enumerate(tasks, 1):
        output.say(f"[bold]{number}/{len(tasks)}[/bold] {task.name}")
        try:
            output.result({"item": task.name, "ok": True} | make(task, output))
        except Cancelled:
            raise
        except WanreelError as error:
            failed += 1
            output.result({"item": task.name, "ok": False} | as_json(error))
            output.warn(explain(error))
    return SOME_FAILED if failed else 0


def asked_of(task: Task) -> dict[str, Any]:
    """A task as arguments of `Client.submit`."""
    if not task.values.get("prompt"):
        raise InvalidRequest.of("prompt", "required", "is empty.", "Describe what happens in the video.")
    return dict(task.values) | {"image": task.image, "last_image": task.last_image, "audio": task.audio}


def _target(destination: Destination, video: RemoteVideo) -> Path:
    """Where a video is saved. Unless it was named, never over another file, as its name holds its id."""
    suffix = video.facts["wanreel"]["request"].get("output_format", "mp4")
    return destination.path(f"wanreel_{video.id[:_SHORT]}.{suffix}")


def _find(client: Client, given: str) -> str:
    """The full id for one, or for the beginning of one that no other video shares. Raises JobNotFound."""
    if len(given) >= _ID_LENGTH or not given:
        return given
    found = [video.id for video in client.list(limit=_LOOKED_AT) if video.id.startswith(given)]
    if len(found) == 1:
        return found[0]
    text = f"is the beginning of {len(found)} videos' ids." if found else "is none of your newest videos."
    raise JobNotFound(f"{given!r} {text}", hint="Give more of it.")


def _tell(video: RemoteVideo, json_: bool) -> int:
    if json_:
        say(video.facts)
        return 0
    asked = " (it stops within a step)" if video.facts["wanreel"]["cancel_requested"] and not video.ended else ""
    place = f", number {video.position} in line" if video.position else ""
    click.echo(f"{video.id[:_SHORT]} is {video.status.replace('_', ' ')}{place}{asked}")
    return 0


def _tell_line(line: Mapping[str, Any], json_: bool) -> int:
    if json_:
        say(line)
    else:
        click.echo(f"paused: {line['reason']}" if line["paused"] else f"running, {line['queued']} queued")
    return 0
