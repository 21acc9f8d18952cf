"""Retention: deletes what ended jobs no longer need. Knows nothing of results, which are the user's."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.errors import JobNotFound
from wanreel.core.job import Job
from wanreel.jobs import JobStore
from wanreel.service import remove_tree

_EVERY = 600.0  # seconds between looks
_DAY = 86_400.0  # seconds


@dataclass
class Retention:
    """Saved latents and states of ended jobs, by how long ago their job ended.

    The wall clock decides: one that jumps costs a re-export at most, never a video.
    """

    store: JobStore
    checkpoints: Path
    keep_days: float  #: 0 keeps them
    _next: float = field(default=0.0, repr=False)

    def apply(self) -> None:
        """Delete what is due, looking every ten minutes at most."""
        now = time.monotonic()
        if now < self._next or not self.checkpoints.is_dir():
            return
        self._next = now + _EVERY
        for folder in self.checkpoints.iterdir():
            if folder.is_dir() and self._is_due(folder.name):
                remove_tree(folder)

    def _is_due(self, job_id: str) -> bool:
        try:
            job = self.store.get(job_id)
        except JobNotFound:
            return True
        return job.ended and self.keep_days > 0 and self._age(job) > self.keep_days * _DAY

    def _age(self, job: Job) -> float:
        return time.time() - (job.ended_at or job.created_at)
