"""Gathering: what groups of jobs result in, made between two jobs. Knows nothing of how any kind of result looks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled, GenerationError, StoreError, WanreelError
from wanreel.core.group import Group
from wanreel.core.job import Job, JobFailure
from wanreel.jobs import JobStore

_log = logging.getLogger(__name__)

#: Makes a group's result of these jobs, in their order; returns what is recorded, as JSON text. Raises WanreelError, and
#: Cancelled when the token says so. Its files are there under their final names when it returns.
Finisher = Callable[[Group, Sequence[Job], CancelToken], str]
#: Told of what a finisher made before, once the new is recorded: whose files are deleted.
Sweeper = Callable[[str], None]


@dataclass
class Gatherer:
    """For one worker. `stop` may be called from another thread or a signal handler."""

    store: JobStore
    finishers: Mapping[str, Finisher]  #: by the kind of group
    sweepers: Mapping[str, Sweeper] = field(default_factory=dict[str, Sweeper])
    _token: CancelToken = field(default_factory=CancelToken)

    def gather(self, worker: str) -> bool:
        """Make the result of one group, if there is one to be made. Raises StoreError."""
        if not self.finishers or (claimed := self.store.groups.claim(worker, tuple(self.finishers))) is None:
            return False
        group, jobs = claimed
        try:
            result = self.finishers[group.kind](group, jobs, self._token)
        except Cancelled:
            self.store.groups.give_back(group.id, worker)
        except StoreError:
            raise
        except WanreelError as error:
            _log.warning("%s %s: %s", group.kind, group.id, error)
            self.store.groups.fail(group.id, worker, JobFailure.of(error), retryable=error.retryable)
        except Exception as error:  # noqa: BLE001 - one group's fault must not end the worker: it is recorded whole
            _log.exception("%s %s: a fault in Wanreel", group.kind, group.id)
            said = GenerationError(f"{type(error).__name__}: a fault in Wanreel; the worker's log has the details.")
            self.store.groups.fail(group.id, worker, JobFailure.of(said), retryable=False)
        else:
            self._record(group, worker, jobs, result)
        return True

    def stop(self) -> None:
        """Give back what is being made, and make nothing more."""
        self._token.cancel("drain")

    def _record(self, group: Group, worker: str, jobs: Sequence[Job], result: str) -> None:
        recorded = self.store.groups.finish(group.id, worker, [job.id for job in jobs], result)
        # Who was taken for dead leaves nothing behind; else what was made before is no longer needed.
        superseded = group.result if recorded else result
        sweep = self.sweepers.get(group.kind)
        if sweep is not None and superseded and superseded != self.store.groups.get(group.id).result:
            sweep(superseded)
