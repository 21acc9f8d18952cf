"""`wanreel submit` and `wanreel reexport`: hand in work and go, as it will be done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import click

from wanreel.core.errors import WanreelError
from wanreel.core.job import Job
from wanreel.frontends.cli.answer import find_id, json_option, say
from wanreel.frontends.cli.failure import as_json, explain
from wanreel.frontends.cli.generate import SOME_FAILED
from wanreel.frontends.cli.knobs import asked_values, export_options
from wanreel.frontends.cli.output import Output, resolution_json
from wanreel.frontends.cli.session import open_service
from wanreel.frontends.cli.tasks import Task, ask_task, is_batch, request_options, tasks_of
from wanreel.service import Service, Terms
from wanreel.wiring import Runtime


@dataclass(frozen=True)
class _Desk:
    """Where requests are handed in."""

    runtime: Runtime
    service: Service
    terms: Terms
    reuse: bool
    output: Output

    def hand_in(self, task: Task) -> Job:
        """Resolve, show and queue one request. Raises InvalidRequest, ModelError, QueueFull, IdempotencyConflict."""
        request, resolution = ask_task(self.runtime, task)
        equal = self.service.equal_job(resolution)
        job = equal if equal is not None and self.reuse else None
        if job is None:
            body = json.dumps(asdict(request), sort_keys=True, ensure_ascii=False)
            job = self.service.enqueue(resolution, self.terms, body=body)
            self.output.plan(resolution)
        row: dict[str, Any] = {"id": job.id, "status": str(job.status), "reused": job is equal}
        self.output.result(row | {"equal_job": equal.id if equal else None} | resolution_json(resolution))
        self._explain(job, equal)
        return job

    def _explain(self, job: Job, equal: Job | None) -> None:
        if job is equal:
            self.output.say(f"[green]✓[/green] made before as [bold]{job.id}[/bold]")
            return
        if equal is not None:
            self.output.say(f"  [dim]• {equal.id} is the same and done; --reuse answers with it[/dim]")
        standing = self.service.standing(job.id)
        place = f", number {standing.position} in line" if standing else ""
        self.output.say(f"[green]✓[/green] queued as [bold]{job.id}[/bold]{place}")
        if not self.service.store.workers():
            self.output.say("  [dim]• no worker runs yet: start one with `wanreel worker`[/dim]")


@click.command()
@request_options
@click.option("--owner", default="", help="Whose job it is; owners take turns.")
@click.option("--priority", type=int, default=0, help="Higher goes first.")
@click.option("--key", "idempotency_key", help="Handing in the same request with the same key again is the same job.")
@click.option("--time-limit", type=float, help="Seconds that one attempt may run.")
@click.option("--reuse", is_flag=True, help="Answer with an equal job that completed, if there is one.")
@json_option
def submit(inputs: tuple[str, ...], json_: bool, **options: Any) -> int:
    """Queue a video, or a batch of them, and return at once. A worker makes it: `wanreel worker`.

    Takes the words and flags of `wanreel generate`. What was queued survives a crash or a power cut.
    """
    terms = Terms(options["owner"], options["priority"], options["idempotency_key"], options["time_limit"])
    with open_service(download=False if options["no_download"] else None) as (runtime, service):
        values = asked_values(options)
        if options["from_video"] is not None:
            values = runtime.recipe_values(options["from_video"]) | values
        tasks = tasks_of(inputs, options, values)
        desk = _Desk(runtime, service, terms, options["reuse"], Output.open(json_))
        if is_batch(inputs):
            return _batch(desk, tasks)
        desk.hand_in(tasks[0])
    return 0


def _batch(desk: _Desk, tasks: list[Task]) -> int:
    """Every item by itself: a bad one is reported and the rest goes on."""
    if desk.terms.idempotency_key is not None:
        raise click.UsageError("--key stands for one job and can't be used with a batch.")
    failed = 0
    for number, task in enumerate(tasks, 1):
        desk.output.say(f"[bold]{number}/{len(tasks)}[/bold] {task.name}")
        try:
            desk.hand_in(task)
        except WanreelError as error:
            failed += 1
            desk.output.result({"item": task.name, "ok": False} | as_json(error))
            desk.output.warn(explain(error))
    return SOME_FAILED if failed else 0


@click.command()
@click.argument("job")
@export_options
@json_option
def reexport(job: str, json_: bool, **options: Any) -> int:
    """Queue another export of a finished JOB, in another format or finished otherwise, without denoising again."""
    with open_service() as (runtime, service):
        changes = asked_values(options)
        if options["audio"] is not None:
            changes["audio"] = runtime.take_sound_file(options["audio"])
        made = service.reexport(find_id(service, job), changes)
    if json_:
        say({"id": made.id, "status": str(made.status), "parent_id": made.parent_id})
    else:
        click.echo(f"queued as {made.id}")
    return 0
