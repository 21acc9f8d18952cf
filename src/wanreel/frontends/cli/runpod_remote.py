"""`wanreel --server runpod[:ENDPOINT_ID] …`: the verbs that an endpoint on RunPod takes. Same words and flags as at home."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from wanreel.core.errors import SettingsError
from wanreel.core.settings import load_settings
from wanreel.core.settings_groups import RunPodAccount
from wanreel.frontends.cli.answer import json_option, say
from wanreel.frontends.cli.destination import Destination, far_out_option
from wanreel.frontends.cli.far import show_far
from wanreel.frontends.cli.output import Output
from wanreel.frontends.cli.remote import asked_of, each_task
from wanreel.frontends.cli.tasks import Task, is_batch, request_options
from wanreel.frontends.runpod_client import RunPodClient, RunPodJob

_SHORT = 8  # characters of an id in a file's name
_LARGE = frozenset({"video_base64", "last_frame_base64"})


def _with_client(command: Callable[..., int]) -> Callable[..., int]:
    """Gives the command a client of the endpoint that the group was told, or the account names."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        account = RunPodAccount()
        server: str = click.get_current_context().find_root().params["server"]
        endpoint = server.partition(":")[2] or account.endpoint_id
        hint = "It comes from the environment, or from .env in this folder."
        if account.api_key is None:
            raise SettingsError("RUNPOD_API_KEY is not set.", hint=hint)
        if not endpoint:
            raise SettingsError("RUNPOD_WAN_I2V_ENDPOINT_ID is not set.", hint=f"{hint} Or say --server runpod:ID.")
        url = load_settings().remote.runpod_url
        with RunPodClient(endpoint, account.api_key.get_secret_value(), url=url) as client:
            return command(client, *args, **kwargs)

    return run


@click.command()
@request_options
@far_out_option
@json_option
@_with_client
def generate(client: RunPodClient, inputs: tuple[str, ...], json_: bool, **options: Any) -> int:
    """Make a video on RunPod, wait for it, and save it here."""
    destination = Destination.of(options["out"], many=is_batch(inputs))

    def make(task: Task, output: Output) -> dict[str, Any]:
        job = client.submit(**asked_of(task))
        show_far(client.follow(job.id), output, lambda: client.cancel(job.id))
        done = client.wait(job.id)
        path = client.save(done, _target(destination, done))
        output.say(f"[green]✓[/green] [bold]{path}[/bold] ({path.stat().st_size / 1e6:.2f} MB)")
        return {**_shown(done), "path": str(path)}

    return each_task(inputs, options, Output.open(json_), make, destination)


@click.command()
@request_options
@json_option
@_with_client
def submit(client: RunPodClient, inputs: tuple[str, ...], json_: bool, **options: Any) -> int:
    """Queue a video, or a batch of them, on RunPod and return at once."""

    def make(task: Task, output: Output) -> dict[str, Any]:
        job = client.submit(**asked_of(task))
        output.say(f"[green]✓[/green] queued as [bold]{job.id}[/bold]")
        return _shown(job)

    return each_task(inputs, options, Output.open(json_), make)


@click.command()
@click.argument("job")
@json_option
@_with_client
def show(client: RunPodClient, job: str, json_: bool) -> int:
    """Show how a JOB stands. RunPod forgets it half an hour after its end."""
    return _tell(client.get(job), json_)


@click.command()
@click.argument("job")
@json_option
@_with_client
def watch(client: RunPodClient, job: str, json_: bool) -> int:
    """Follow a JOB until it has ended. Exits with 5 when it failed."""
    last: RunPodJob | None = None
    for last in client.follow(job):
        _tell(last, json_)
    return 0 if last is not None and last.status == "completed" else 5


@click.command()
@click.argument("job")
@json_option
@_with_client
def cancel(client: RunPodClient, job: str, json_: bool) -> int:
    """Stop a JOB."""
    return _tell(client.cancel(job), json_)


@click.command()
@click.argument("job")
@json_option
@_with_client
def retry(client: RunPodClient, job: str, json_: bool) -> int:
    """Queue a failed JOB again. It goes on from what the endpoint's volume keeps."""
    return _tell(client.retry(job), json_)


@click.command()
@click.argument("job")
@far_out_option
@json_option
@_with_client
def download(client: RunPodClient, job: str, out: Path, json_: bool) -> int:
    """Save a completed JOB's video here."""
    done = client.get(job)
    path = client.save(done, _target(Destination.of(out, many=False), done))
    say({"path": str(path)}) if json_ else click.echo(path)
    return 0


#: The verbs that work on RunPod.
COMMANDS: Mapping[str, click.Command] = {
    command.name: command for command in (generate, submit, show, watch, cancel, retry, download) if command.name
}


def _target(destination: Destination, job: RunPodJob) -> Path:
    """Where a video is saved. Unless it was named, never over another file, as its name holds its id."""
    key = str(job.output.get("video_r2_key", ""))
    return destination.path(f"wanreel_{job.id[:_SHORT]}{Path(key).suffix or '.mp4'}")


def _shown(job: RunPodJob) -> dict[str, Any]:
    """What is told of a job: everything but the files in it."""
    output = {name: value for name, value in job.output.items() if name not in _LARGE}
    facts = {"id": job.id, "status": job.status, "progress": job.progress, "stage": job.stage}
    return facts | ({"error": str(job.error)} if job.error else {}) | output


def _tell(job: RunPodJob, json_: bool) -> int:
    if json_:
        say(_shown(job))
        return 0
    step = f", step {job.step} of {job.total_steps}" if job.total_steps else ""
    reason = f": {job.error}" if job.error and job.status == "failed" else ""
    stage = f", {job.stage}" if job.stage else ""
    click.echo(f"{job.id} is {job.status.replace('_', ' ')}{stage}{step}{reason}")
    return 0
