"""`wanreel extend`: a video that goes on from another one, made here or lying anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Resolution
from wanreel.frontends.cli.answer import find_id, json_option
from wanreel.frontends.cli.knobs import asked_values, knob_options
from wanreel.frontends.cli.output import Output, resolution_json
from wanreel.frontends.cli.session import open_service
from wanreel.media.last_frame import MAX_BYTES, ending_of
from wanreel.service import Service, Terms
from wanreel.service.extending import Extension, Wish, extend
from wanreel.wiring import Runtime, build_worker

_ID = re.compile(r"[0-9a-f]{4,32}")


@click.command("extend")
@click.argument("source", metavar="VIDEO|JOB")
@click.argument("prompt")
@knob_options
@click.option(
    "--overlap", type=click.IntRange(0), default=0, help="Frames that both have, over which they are blended."
)
@click.option(
    "--colour-match",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="How far it is brought back to the first clip's colours.",
)
@click.option("--here", is_flag=True, help="Make it in this process, without a worker beside.")
@json_option
def extend_(
    source: str, prompt: str, overlap: int, colour_match: float, here: bool, json_: bool, **options: Any
) -> int:
    """Queue a video that starts from the last frame of another: a JOB's, joined to it, or an MP4 file's."""
    output = Output.open(json_)
    values = dict(asked_values(options)) | {"prompt": prompt}
    with open_service(download=False if options.get("no_download") else None) as (runtime, service):
        job, resolution = _handed_in(runtime, service, source, values, (overlap, colour_match))
        output.plan(resolution)
        output.say(f"[green]✓[/green] queued as [bold]{job.id}[/bold]")
        if here:
            build_worker(runtime).run(once=True)
            job = service.get(job.id)
            _tell(service, job, output)
        output.result({"id": job.id, "status": str(job.status), **_files(service, job)} | resolution_json(resolution))
    return 0


def _handed_in(
    runtime: Runtime, service: Service, source: str, values: dict[str, object], more: tuple[int, float]
) -> tuple[Job, Resolution]:
    path = Path(source)
    if not path.is_file():
        if not _ID.fullmatch(source):
            raise InvalidRequest.of("video", "missing", f"{source} is neither a file nor the id of a job.")
        return extend(service, service.get(find_id(service, source)), Wish(values, *more), Terms())
    if any(more):
        raise InvalidRequest.of("overlap", "unsupported", "takes a job's video: of a file only the last frame is read.")
    with path.open("rb") as file:
        picture = runtime.take_picture(ending_of(file.read(MAX_BYTES + 1)).png)
    resolution = runtime.resolve(VideoRequest.from_mapping({**values, "image": picture}))
    return service.enqueue(resolution, Terms()), resolution


def _files(service: Service, job: Job) -> dict[str, object]:
    return {"files": {kind: str(service.results / file.name) for kind, file in service.files(job.id).items()}}


def _tell(service: Service, job: Job, output: Output) -> None:
    files = service.files(job.id)
    shown = files.get("whole") or files.get("video")
    extension = Extension.of(service, job)
    if shown is None:
        why = f": {job.error.message}" if job.error else ""
        output.say(f"[red]{job.status.replace('_', ' ')}[/red]{why}")
        return
    count = f", {len(extension.chain.links)} clips" if extension else ""
    output.say(f"[green]✓[/green] [bold]{service.results / shown.name}[/bold]{count}")
    for note in job.notes:
        output.say(f"  [dim]• {note}[/dim]")
