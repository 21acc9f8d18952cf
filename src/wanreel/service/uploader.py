"""Uploader: copies results to object storage until they are there. Knows nothing of S3, and of jobs only their files.

Several may run, in one process or in many: each file has one at a time. Whatever happens to this process, what it was at
is taken up again, and the local file stays until another part of the program finds it safely copied.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Destination, object_name
from wanreel.core.errors import Cancelled, RemoteError, StorageRefused, WanreelError
from wanreel.core.group import GroupFile
from wanreel.core.settings import Settings
from wanreel.core.upload import Upload, UploadTo
from wanreel.jobs import JobStore
from wanreel.jobs.uploads import PASS
from wanreel.service.group_files import result_files
from wanreel.service.vault import Vault
from wanreel.storage.depots import Depot, Depots
from wanreel.storage.objects import ObjectStorage, Parcel

_AT_A_TIME = 3  #: files under way
_LOOK = 1.0  #: seconds between looks while there is nothing to do
_RENEW = 15.0  #: seconds between signs of life
#: Seconds that leaving waits for what is under way: to the end of a part. What takes longer is left as if killed.
_PATIENCE = 5.0
_log = logging.getLogger("wanreel.uploads")


@dataclass
class Uploader:
    """Copies from `start` to `close`. Its vault holds the keys that requests bring to this process."""

    store: JobStore
    results: Path
    depots: Depots
    connect: Callable[[Destination], ObjectStorage] | None = None  #: for keys of requests; None where none are taken
    jitter: Callable[[], float] = random.random
    vault: Vault = field(default_factory=Vault)
    name: str = field(default_factory=lambda: f"uploader-{secrets.token_hex(8)}")
    _passed: dict[int, float] = field(default_factory=dict[int, float], repr=False)  #: uploads left to others, until
    _stop: CancelToken = field(default_factory=CancelToken, repr=False)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread], repr=False)

    def start(self) -> None:
        """Copy from now on, on threads of its own."""
        for number in range(_AT_A_TIME):
            work = self._tend if number == 0 else self._send
            thread = threading.Thread(target=work, name=f"upload-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop after the parts that are under way, and say that the keys are gone."""
        self._stop.cancel("stopping")
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._threads.clear()
        try:
            self.store.uploads.release(self.name)
        except WanreelError as error:
            _log.warning("The uploads can't be given up: %s", error)

    def hold(self, destination: Destination) -> UploadTo:
        """Keep a request's keys in memory; what is to be stored in their place."""
        if self.connect is None:
            raise StorageRefused("This process takes no storage of requests.")
        return UploadTo(holder=self.name, token=self.vault.keep(Depot(destination, self.connect(destination))))

    def finish(self) -> None:
        """Copy all that is due now, once each. For a process that is about to leave."""
        while not self._stop.cancelled and (taken := self.store.uploads.take(self.name, self._elsewhere())) is not None:
            self.deliver(taken)
        while not self._stop.cancelled and self._send_group():
            pass

    # On the threads

    def _tend(self) -> None:
        """Copy, show that this process lives, and look which keys are lost or no longer needed."""
        renewed = 0.0
        while not self._stop.cancelled:
            if time.monotonic() - renewed >= _RENEW:
                renewed = time.monotonic()
                self._renew()
            self._stop.wait(_LOOK)

    def _renew(self) -> None:
        try:
            self.store.uploads.renew(self.name)
            self.store.uploads.lose()
            if len(self.vault):
                self.vault.keep_only(self.store.uploads.tokens(self.name))
        except WanreelError as error:
            _log.warning("The uploads can't be tended now: %s", error)

    def _send(self) -> None:
        while not self._stop.cancelled:
            try:
                taken = self.store.uploads.take(self.name, self._elsewhere())
                if taken is not None:
                    self.deliver(taken)
                    continue
                if self._send_group():
                    continue
            except WanreelError as error:
                # What was taken is taken up again when its lease is over.
                _log.warning("The uploads can't be seen to now: %s", error)
            self._stop.wait(_LOOK)

    def _elsewhere(self) -> tuple[int, ...]:
        """Uploads whose files were not here a while ago."""
        now = time.monotonic()
        for seq, until in list(self._passed.items()):
            if now >= until:
                self._passed.pop(seq, None)
        return tuple(self._passed)

    # One file

    def deliver(self, taken: Upload) -> None:
        """One attempt, and its outcome in the store. Raises StoreError."""
        try:
            depot = self._depot(taken.to)
            key = depot.destination.key(object_name(taken.job_id, taken.file.kind, taken.file.name))
            path = self.results / taken.file.name
            if self.store.shared and not path.is_file():
                self._passed[taken.seq] = time.monotonic() + PASS
                self.store.uploads.pass_on(taken)  # it lies on another machine
                return
            depot.objects.put(key, Parcel(path, taken.file.sha256, taken.file.size, taken.file.media_type), self._stop)
        except Cancelled:
            self.store.uploads.put_back(taken)
        except WanreelError as error:
            self._failed(taken, error)
        except OSError as error:
            self._failed(taken, RemoteError(f"The file can't be read: {error.strerror}."))
        else:
            _log.info("upload", extra={"job": taken.job_id, "kind": taken.file.kind, "outcome": "done"})
            self.store.uploads.done(taken, depot.destination.bucket, key)

    # The result of a group

    def _send_group(self) -> bool:
        """One attempt at what was made of a group, if it is due, and its outcome in the store. Raises StoreError."""
        copies = self.store.groups.copies
        taken = copies.take()
        if taken is None:
            return False
        files = result_files(taken)
        try:
            depot = self.depots.get(taken.storage)
            if self.store.shared and not all((self.results / file.name).is_file() for file in files):
                copies.put_back(taken, after=PASS)  # they lie on another machine
                return True
            for file in files:
                key = depot.destination.key(object_name(taken.group_id, file.kind, file.name))
                path = self.results / file.name
                depot.objects.put(key, Parcel(path, file.sha256, file.size, file.media_type), self._stop)
        except Cancelled:
            copies.put_back(taken)
        except WanreelError as error:
            copies.failed(taken, str(error), jitter=self.jitter())
        except OSError as error:
            copies.failed(taken, f"A file can't be read: {error.strerror}.", jitter=self.jitter())
        else:
            destination = depot.destination
            keys = [destination.key(object_name(taken.group_id, file.kind, file.name)) for file in files]
            there = [
                GroupFile(it.kind, it.name, it.media_type, destination.bucket, key)
                for it, key in zip(files, keys, strict=True)
            ]
            copies.done(taken, there)
        return True

    def _failed(self, taken: Upload, error: WanreelError) -> None:
        # Keys that a request brought and that were refused stay refused; an operator can mend a profile.
        final = isinstance(error, StorageRefused) and not taken.to.profile
        _log.warning("upload", extra={"job": taken.job_id, "kind": taken.file.kind, "outcome": str(error)})
        self.store.uploads.failed(taken, str(error), jitter=self.jitter(), final=final)

    def _depot(self, to: UploadTo) -> Depot:
        """Raises SettingsError, StorageRefused."""
        if to.profile:
            return self.depots.get(to.profile)
        depot = self.vault.get(to.token)
        if depot is None:
            raise StorageRefused("The keys that came with the request are gone.", hint="Send them again.")
        return depot

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def build_uploader(
    settings: Settings, store: JobStore, connect: Callable[[Destination], ObjectStorage] | None = None
) -> Uploader:
    """One for the operator's profiles and, with `connect`, for keys that come with requests. Not yet started."""
    return Uploader(store, settings.results_dir, Depots(settings.destination), connect)
