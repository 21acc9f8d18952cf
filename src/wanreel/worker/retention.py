"""Retention: deletes what ended jobs no longer need: saved states, and results that lie safely in storage."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.errors import JobNotFound
from wanreel.core.job import Job, JobStatus
from wanreel.jobs import JobStore
from wanreel.service import remove_tree
from wanreel.worker.files import keep_latents

_EVERY = 600.0  # seconds between looks
_DAY = 86_400.0  # seconds


@dataclass
class Retention:
    """Saved latents and states of ended jobs, and local copies of uploaded results, by how long ago their job ended.

    The wall clock decides: one that jumps costs a re-export or a download at most, never a video.
    """

    store: JobStore
    checkpoints: Path
    keep_days: float  #: 0 keeps them
    results: Path
    keep_uploaded_days: float = 0.0  #: 0 keeps them
    _next: float = field(default=0.0, repr=False)

    def apply(self) -> None:
        """Delete what is due, looking every ten minutes at most."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        if self.keep_uploaded_days > 0:
            self._delete_copies()
        if not self.checkpoints.is_dir():
            return
        for folder in self.checkpoints.iterdir():
            if folder.is_dir():
                self._tidy(folder)

    def _delete_copies(self) -> None:
        uploads = self.store.uploads
        while found := uploads.safe_copies(time.time() - self.keep_uploaded_days * _DAY):
            for job_id, kind, name in found:
                (self.results / name).unlink(missing_ok=True)
                uploads.gone_here(job_id, kind)

    def _tidy(self, folder: Path) -> None:
        try:
            job = self.store.get(folder.name)
        except JobNotFound:
            remove_tree(folder)
            return
        if job.status is JobStatus.CANCELLED or (job.ended and self._is_old(job)):
            remove_tree(folder)
        elif job.status is JobStatus.COMPLETED:
            # Its worker may have died between the record and this.
            keep_latents(folder)

    def _is_old(self, job: Job) -> bool:
        age = time.time() - (job.ended_at or job.created_at)
        return self.keep_days > 0 and age > self.keep_days * _DAY
