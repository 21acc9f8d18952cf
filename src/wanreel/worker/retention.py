"""Retention: deletes what ended jobs no longer need: saved states, and results that lie safely in storage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wanreel.core.errors import JobNotFound
from wanreel.core.job import Job, JobStatus
from wanreel.jobs import JobStore
from wanreel.service import remove_tree
from wanreel.worker.files import keep_latents

_EVERY = 600.0  # seconds between looks
_DAY = 86_400.0  # seconds
_log = logging.getLogger(__name__)


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
    clock: Callable[[], float] = time.time
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
        uploads, before, left = self.store.uploads, self.clock() - self.keep_uploaded_days * _DAY, 0
        while found := uploads.safe_copies(before, skip=left):
            for job_id, kind, name in found:
                if self._delete_copy(self.results / name):
                    uploads.gone_here(job_id, kind)
                else:
                    left += 1

    def _delete_copy(self, path: Path) -> bool:
        """Whether the file is gone from where it was made."""
        if self.store.shared and not path.is_file():
            return False  # it may lie on another machine, whose worker sees to it
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s lies in storage and can't be deleted here: %s", path.name, error.strerror)
            return False
        return True

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
        age = self.clock() - (job.ended_at or job.created_at)
        return self.keep_days > 0 and age > self.keep_days * _DAY
