"""Recovery: the jobs of dead workers go back in line. Knows nothing of who asks: a worker, or whoever watches over some."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from wanreel.jobs import JobStore, Liveness
from wanreel.worker.attempt import discard_attempt

if TYPE_CHECKING:
    from wanreel.storage.shared import SharedStates

_log = logging.getLogger(__name__)


def take_back(store: JobStore, liveness: Liveness, results: Path, states: SharedStates | None) -> None:
    """Queue the jobs of workers that died, or fail those that were tried too often; clear up what they left here."""
    dead = liveness.dead(store.leases)
    for job in store.leases.held_by(dead):
        # First: should this process die too, the next one still finds the job in progress.
        discard_attempt(store, results, job)
    for job in store.leases.take_back(dead):
        _log.warning("job %s: its worker died; it is %s now", job.id, job.status.replace("_", " "))
        if job.ended and states is not None:
            states.forget(job.id)
