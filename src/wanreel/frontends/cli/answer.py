"""How the commands about jobs answer: rows for programs, lines for people, errors as either."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, ParamSpec

import click

from wanreel.core.errors import JobNotFound, WanreelError
from wanreel.core.job import ArtifactRef, Attempt, Job, JobEvent, QueueState
from wanreel.frontends.cli.failure import as_json, exit_code
from wanreel.service import Service

P = ParamSpec("P")

_ID_LENGTH = 32  # hexadecimal digits
_LOOKED_AT = 10_000  # jobs among which the beginning of an id is looked for
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "in_progress": "cyan"}


def json_option(command: Callable[P, int]) -> Callable[P, int]:
    """Adds `--json`, under which errors are JSON too."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except WanreelError as error:
            if not kwargs.get("json_"):
                raise
            say(as_json(error))
            return exit_code(error)

    return click.option("--json", "json_", is_flag=True, help="JSON and nothing else.")(run)


def say(row: Any) -> None:
    """One JSON value on one line."""
    click.echo(json.dumps(row, ensure_ascii=False))


def find_id(service: Service, given: str) -> str:
    """The full id for one, or for the beginning of one that no other job shares. Raises JobNotFound."""
    if len(given) >= _ID_LENGTH or not given:
        return given
    found = [job.id for job in service.list(limit=_LOOKED_AT) if job.id.startswith(given)]
    if len(found) > 1:
        raise JobNotFound(f"{given!r} is the beginning of {len(found)} jobs' ids.", hint="Give more of it.")
    return found[0] if found else given


def _copied(service: Service, job: Job) -> dict[str, Any]:
    """How the copy in object storage fares, where there is to be one."""
    report = service.store.uploads.reports([job.id]).get(job.id)
    if report is None:
        return {"upload": None}
    said = {"upload_outcome": report.outcome} if report.outcome else {}
    return {"upload": str(report.state), "storage": report.storage or "the request's own"} | said


def job_row(service: Service, job: Job) -> dict[str, Any]:
    """Everything a program may want to know of a job."""
    standing = service.standing(job.id) if not job.ended else None
    files = service.files(job.id)
    cost = service.cost_of(job)
    return (
        ({} if cost is None else {"cost": cost})
        | _copied(service, job)
        | {
            "id": job.id,
            "status": str(job.status),
            "stage": job.progress.stage,
            "step": job.progress.step,
            "total_steps": job.progress.total_steps,
            "position": standing.position if standing else None,
            "starts_in": standing.starts_in if standing else None,
            "model": job.model,
            "owner": job.owner,
            "priority": job.priority,
            "parent_id": job.parent_id,
            "time_limit": job.time_limit,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "ended_at": job.ended_at,
            "cancel_requested": job.cancel_requested,
            "attempts": [attempt_row(attempt) for attempt in service.attempts(job.id)],
            "notes": list(job.notes),
            "error": error_row(job),
            "result": _result(service, job, files),
            "request": json.loads(job.request),
        }
    )


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    error = attempt.error
    return {
        "number": attempt.number,
        "worker": attempt.worker,
        "outcome": str(attempt.outcome),
        "seconds": attempt.seconds,
        "error": {"code": error.code, "message": error.message, "hint": error.hint} if error else None,
    }


def error_row(job: Job) -> dict[str, str] | None:
    if job.error is None:
        return None
    return {"code": job.error.code, "message": job.error.message, "hint": job.error.hint}


def event_row(event: JobEvent) -> dict[str, Any]:
    return {"seq": event.seq, "kind": event.kind, "at": event.at, "data": dict(event.data)}


def queue_row(state: QueueState) -> dict[str, Any]:
    return {
        "paused": state.paused,
        "reason": state.reason,
        "automatic": state.automatic,
        "queued": state.queued,
        "in_progress": state.in_progress,
        "capacity": state.capacity,
    }


def status_text(job: Job) -> str:
    """The status in its colour."""
    return click.style(str(job.status).replace("_", " "), fg=_COLOURS.get(job.status))


def progress_text(job: Job) -> str:
    done = job.progress
    return f"{done.stage} {done.step}/{done.total_steps}" if done.total_steps and not job.ended else ""


def _result(service: Service, job: Job, files: dict[str, ArtifactRef]) -> dict[str, Any] | None:
    main = files.get("video") or files.get("picture")
    if main is None:
        return None
    return {
        "sha256": job.result_sha256,
        "path": str(service.results / main.name),
        "size_bytes": main.size,
        "media_type": main.media_type,
        "files": {kind: str(service.results / file.name) for kind, file in files.items()},
    }
