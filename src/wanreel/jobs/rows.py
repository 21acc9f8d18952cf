"""From rows to records. Knows nothing of how rows are found."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row

from wanreel.core.job import ArtifactRef, Attempt, Job, JobEvent, JobFailure, JobStatus, Outcome, Progress
from wanreel.core.sample import Sample, WorkerRecord
from wanreel.core.upload import UploadState


def job_of(row: Row[Any]) -> Job:
    """A row of `jobs`."""
    return Job(
        id=row.id,
        status=JobStatus(row.status),
        request=row.request,
        model=row.model,
        owner=row.owner,
        priority=row.priority,
        parent_id=row.parent_id,
        time_limit=row.time_limit,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=row.attempt,
        attempts_charged=row.attempts_charged,
        worker=row.worker,
        progress=Progress(row.stage, row.step, row.total_steps, row.stage_share),
        cancel_requested=row.cancel_requested,
        result_sha256=row.result_sha256,
        error=_failure_of(row),
        notes=tuple(json.loads(row.notes)),
        upload=UploadState(row.upload) if row.upload else None,
        favourite=row.favourite,
        group_id=row.group_id,
        cell=row.cell,
        waits=row.waits,
    )


def attempt_of(row: Row[Any]) -> Attempt:
    """A row of `attempts`."""
    return Attempt(
        number=row.number,
        worker=row.worker,
        outcome=Outcome(row.outcome),
        started_at=row.started_at,
        ended_at=row.ended_at,
        seconds=row.seconds,
        error=_failure_of(row),
    )


def event_of(row: Row[Any]) -> JobEvent:
    """A row of `events`."""
    return JobEvent(row.number, row.job_id, row.seq, row.kind, json.loads(row.data), row.at)


def artifact_of(row: Row[Any]) -> ArtifactRef:
    """A row of `artifacts`."""
    return ArtifactRef(row.kind, row.name, row.sha256, row.size, row.media_type)


def worker_of(row: Row[Any]) -> WorkerRecord:
    """A row of `workers`."""
    return WorkerRecord(row.name, row.description, row.started_at, row.drain, Sample.from_json(row.sample))


def failure_columns(failure: JobFailure | None) -> dict[str, str | None]:
    """The three columns in which `jobs` and `attempts` keep an error."""
    if failure is None:
        return {"error_code": None, "error_message": None, "error_hint": None}
    return {"error_code": failure.code, "error_message": failure.message, "error_hint": failure.hint}


def _failure_of(row: Row[Any]) -> JobFailure | None:
    if row.error_code is None:
        return None
    return JobFailure(row.error_code, row.error_message, row.error_hint)
