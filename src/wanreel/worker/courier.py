"""Courier: copies a job's saved states to where workers on other machines find them, from a thread beside the attempt.

The newest is what counts: while one is on its way, those saved meanwhile wait as one. No failure ends the work; each is
told. Knows nothing of what a state holds.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled, MissingDependency, RemoteError, StorageRefused
from wanreel.storage.shared import SharedStates

_log = logging.getLogger(__name__)

_STATE = re.compile(r"clip(\d+)-(?:step(\d+)|latents)\.safetensors")
_PATIENCE = 10.0  # seconds that the end of an attempt waits for what is on its way
_NOTE = "shared_checkpoint"


class Courier:
    """A context for one attempt at one job. Without `states` every method does nothing."""

    def __init__(self, states: SharedStates | None, job_id: str) -> None:
        self._states = states
        self._job_id = job_id
        self._folder: Path | None = None
        self._cancel = CancelToken()
        self._changed = threading.Condition()
        self._due = self._busy = self._over = False
        self._trouble = ""  # why a state was not copied, until it is told
        self._told = False
        self._thread: threading.Thread | None = None
        self._used = False  # whether something of the job may lie there

    def bring(self, folder: Path | None, *, again: bool, cancel: CancelToken) -> tuple[str, ...]:
        """States are saved in `folder`; an attempt that comes `again` finds there what an earlier one shared, if newer.

        Returns what people should know. Raises InsufficientStorage, Cancelled.
        """
        self._folder, self._used = folder, again
        if self._states is None or folder is None or not again:
            return ()
        try:
            found = self._states.newest(self._job_id)
            here = max((_rank(path.name) for path in folder.glob("*")), default=_NOTHING)
            if _rank(found) > here:
                path = self._states.fetch(self._job_id, folder, cancel)
                _log.info("job %s: goes on from %s of shared storage", self._job_id, path.name)
        except StorageRefused as error:
            # Mostly there is none: the job's first attempt ended before a state was saved.
            _log.info("job %s: no saved state comes from shared storage: %s", self._job_id, error)
        except (RemoteError, MissingDependency) as error:
            _log.warning("job %s: the saved state in shared storage is not used: %s", self._job_id, error)
            return (f"{_NOTE}: the one in shared storage was not used: {error.message}",)
        return ()

    def saved(self) -> None:
        """A newer state is on disk."""
        if self._states is None or self._folder is None:
            return
        with self._changed:
            self._due = self._used = True
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"courier of {self._job_id}", daemon=True)
            self._thread.start()

    def troubles(self) -> tuple[str, ...]:
        """Why a state was not copied; told once an attempt."""
        if not self._trouble or self._told:
            return ()
        self._told = True
        return (f"{_NOTE}: not copied for workers on other machines: {self._trouble}",)

    def settle(self, patience: float = _PATIENCE) -> None:
        """Wait for the newest state to be there, `patience` seconds at most: another worker may take the job now."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._due or self._busy), patience)

    def forget(self) -> None:
        """The job has ended, and nothing of it is needed there any more."""
        if self._states is None or not self._used:
            return
        self._stop()
        thread = threading.Thread(target=self._forget, args=(self._states,), daemon=True)
        thread.start()
        thread.join(_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._cancel.cancel("the attempt is over")
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _forget(self, states: SharedStates) -> None:
        if self._thread is not None:
            self._thread.join()  # what is still being put would stay
        states.forget(self._job_id)

    # On the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._over)
                if self._over:
                    return
                self._due, self._busy = False, True
            try:
                self._copy()
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _copy(self) -> None:
        newest = _newest(self._folder) if self._folder is not None else None
        if self._states is None or newest is None:
            return
        try:
            self._states.put(self._job_id, newest, self._cancel)
        except Cancelled:
            pass
        except (RemoteError, MissingDependency, OSError) as error:
            if isinstance(error, OSError) and not newest.exists():
                return  # newer ones took its place meanwhile, and wait
            _log.warning("job %s: %s was not copied to shared storage: %s", self._job_id, newest.name, error)
            self._trouble = str(error.strerror if isinstance(error, OSError) else error.message)


_NOTHING = (-1, -1)


def _rank(name: str) -> tuple[float, float]:
    """How far a state is; what is called otherwise is no state."""
    match = _STATE.fullmatch(name)
    if match is None:
        return _NOTHING
    return int(match[1]), float(match[2] or "inf")


def _newest(folder: Path) -> Path | None:
    """The state that was written last: one that was refused may be called as if it were further."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            if _STATE.fullmatch(path.name):
                found.append((path.stat().st_mtime_ns, path))
    return max(found, default=(0, None))[1]
