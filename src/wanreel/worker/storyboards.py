"""Storyboards' results: the scenes that are there, as one film that grows. A finisher for `Gatherer`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from wanreel.core.cancel import CancelToken
from wanreel.core.chain import chain_of
from wanreel.core.errors import GenerationError
from wanreel.core.group import Group
from wanreel.core.job import Job
from wanreel.core.media_types import media_type_of
from wanreel.core.storyboard import parse_storyboard
from wanreel.jobs import JobStore
from wanreel.storage.outputs import slug
from wanreel.worker.assembly import assemble
from wanreel.worker.extending import clip_of

KIND = "storyboard"


@dataclass(frozen=True)
class Films:
    """For one worker."""

    store: JobStore
    results: Path

    def finish(self, group: Group, jobs: Sequence[Job], cancel: CancelToken) -> str:
        """Joins the scenes that these jobs made. Raises what joining raises."""
        board = parse_storyboard(json.loads(group.spec)["board"])
        jobs = [job for place, job in enumerate(jobs) if job.cell == place]  # up to one whose clip was deleted
        if not jobs:
            raise GenerationError("The clip of scene 1 was deleted.", hint="Redo it.")
        clips = [clip_of(self.store, self.results, job.id) for job in jobs]
        title = board.title or board.scenes[0].prompt
        path = self.results / f"{self._stem(group, title, jobs)}{clips[0].path.suffix}"
        whole = assemble(chain_of(board, [job.id for job in jobs]), clips, path, title, cancel)
        return json.dumps(whole.to_dict() | {"media_type": media_type_of(path)}, ensure_ascii=False)

    def sweep(self, result: str) -> None:
        """Deletes a film that another one has taken the place of."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            (self.results / Path(cast("str", json.loads(result)["name"])).name).unlink()

    def _stem(self, group: Group, title: str, jobs: Sequence[Job]) -> str:
        """Of this film alone: what it is made of is in its name, as an older one is deleted after it."""
        when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(group.created_at))
        made_of = hashlib.sha256(" ".join(job.id for job in jobs).encode() + group.spec.encode()).hexdigest()[:8]
        return "_".join(part for part in (when, slug(title), f"{group.id[:8]}-{made_of}") if part)
