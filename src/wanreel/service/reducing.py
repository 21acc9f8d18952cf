"""Reducing without being asked again: what a worker does for a job that no plan of memory carried, where it says so."""

from __future__ import annotations

import logging

from wanreel.core.errors import InvalidRequest, WanreelError
from wanreel.core.job import Job
from wanreel.service.service import Service
from wanreel.service.stored import request_of

_log = logging.getLogger(__name__)


def wants_less(job: Job) -> bool:
    """Whether its request asks for a smaller video where memory does not suffice."""
    try:
        return request_of(job).on_oom == "reduce"
    except InvalidRequest:
        return False


def make_less(service: Service, job_id: str) -> None:
    """Queue a smaller job for one that ran out of memory; where that can't be, the log says why."""
    try:
        job, _ = service.reduce(job_id)
    except WanreelError as error:
        _log.warning("job %s: nothing smaller is made: %s", job_id, error)
    else:
        _log.info("job %s: made smaller as job %s", job_id, job.id)
