"""Grouped: jobs that front doors see as one thing, found, stopped, queued again and forgotten together. Imports no torch.

Knows nothing of what the jobs are to each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from wanreel.core.errors import GroupNotFound
from wanreel.core.group import Group
from wanreel.core.job import Job, JobStatus
from wanreel.service.bell import ring
from wanreel.service.service import Service, Terms

#: How a job that did not come to its result ended, and what its group is then.
OVER = {JobStatus.FAILED: "failed", JobStatus.CANCELLED: "cancelled"}


class GroupView(Protocol):
    """A group as it stands."""

    @property
    def group(self) -> Group: ...
    @property
    def jobs(self) -> tuple[Job, ...]: ...
    @property
    def status(self) -> str: ...


View = TypeVar("View", bound=GroupView)


@dataclass(frozen=True)
class Grouped(ABC, Generic[View]):
    """Groups of one kind, over one service."""

    service: Service
    kind: ClassVar[str]

    @abstractmethod
    def view(self, group: Group) -> View:
        """The group as it stands."""

    @abstractmethod
    def paths(self, view: View) -> Iterable[Path]:
        """The files that were made of all its jobs together."""

    def told(self, terms: Terms) -> str:
        """Who is told when the result is there. The jobs themselves tell nobody."""
        return terms.webhook_url or self.service.webhook_url

    def get(self, group_id: str) -> View:
        """Raises GroupNotFound."""
        group = self.service.store.groups.get(group_id)
        if group.kind != self.kind:
            raise GroupNotFound(f"{group_id} is no {self.kind}.")
        return self.view(group)

    def list(self, *, owner: str | None, after: str | None = None, limit: int = 20) -> tuple[View, ...]:
        """Newest first."""
        found = self.service.store.groups.list(owner=owner, kind=self.kind, after=after, limit=limit)
        return tuple(self.view(group) for group in found)

    def cancel(self, group_id: str) -> View:
        """Stop every job that has not ended. `retry` goes on from there."""
        self.get(group_id)
        self.service.store.groups.cancel(group_id)
        ring(self.service.data.workers)  # there may be something to make of those that are there
        return self.get(group_id)

    def retry(self, group_id: str) -> View:
        """Queue every job again that failed or was cancelled, from its last step."""
        for job in self.get(group_id).jobs:
            # One that failed for another's sake is queued again with that one.
            if self.service.store.get(job.id).status in OVER:
                self.service.store.retry(job.id)
        self.service.store.groups.touch(group_id)
        ring(self.service.data.workers)
        return self.get(group_id)

    def delete(self, group_id: str) -> None:
        """Forget a group with its jobs and all files. Raises IllegalTransition while one of them runs."""
        paths = tuple(self.paths(self.get(group_id)))
        for job_id, files in self.service.store.groups.delete(group_id):
            self.service.forget_files(job_id, files)
        for path in paths:
            path.unlink(missing_ok=True)

    def there(self, file: Mapping[str, Any] | None) -> Path | None:
        """Where a file lies that the record names; None while there is none."""
        path = self.service.results / Path(str(file["name"])).name if file else None
        return path if path is not None and path.is_file() else None
