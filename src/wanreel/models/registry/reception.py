"""Reception: receives the files of one pin, several at once. Knows nothing of which are missing or of room on the disk."""

from __future__ import annotations

import threading
from collections.abc import Collection, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled
from wanreel.models.registry.contents import INDEX
from wanreel.models.registry.hub import Hub, HubFile
from wanreel.models.registry.pins import Pin, Pins
from wanreel.models.registry.state import Download, Progress
from wanreel.models.registry.transfer import Order, fetch

_CONNECTIONS = 4  # files received at once
LOOK = 0.2  #: seconds between looks at a download that runs elsewhere, and between words about our own


class Digests(Protocol):
    """SHA-256 of files, remembered while they look untouched (storage.digests)."""

    def known(self, path: Path) -> str | None: ...
    def of(self, path: Path) -> str: ...
    def fresh(self, path: Path) -> str: ...
    def put(self, path: Path, sha256: str) -> None: ...


@dataclass
class _Count:
    """Bytes received by several threads."""

    total: int
    received: int = 0
    file: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, file: str, size: int) -> None:
        with self._lock:
            self.received += size
            self.file = file

    def progress(self) -> Progress:
        return Progress("downloading", self.received, self.total, self.file)


@dataclass(frozen=True, slots=True)
class Reception:
    """One download of one model's files into `folder`."""

    hub: Hub
    digests: Digests
    pins: Pins
    download: Download
    pin: Pin
    folder: Path

    def of(self, missing: Collection[str], cancel: CancelToken) -> Generator[Progress, None, None]:
        """Receive the files at `missing`, which the pin names, in that order. Raises Cancelled, HubUnavailable."""
        here = sum(file.size for path, file in self.pin.files.items() if path not in missing)
        count = _Count(self.pin.size, here)
        inner = CancelToken()  # stops the threads, for whatever reason
        last = INDEX  # so that what is half here never looks installed
        with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="download") as threads:
            try:
                orders = [self._order(path) for path in missing if path != last]
                yield from self._follow(threads, orders, count, (cancel, inner))
                if last in missing:
                    final = [self._order(last)]
                    yield from self._follow(threads, final, count, (cancel, inner))
            finally:
                inner.cancel("stopped")

    def _order(self, path: str) -> Order:
        file = self.pin.files[path]
        listed = HubFile(path, file.size, file.sha256, file.blob)
        part = self.download.parts / f"{path.replace('/', '--')}.part"
        return Order(self.hub, self.pin.repo, self.pin.commit, listed, part, self.folder / path)

    def _follow(
        self,
        threads: ThreadPoolExecutor,
        orders: list[Order],
        count: _Count,
        tokens: tuple[CancelToken, CancelToken],
    ) -> Generator[Progress, None, None]:
        """Run the orders, telling how far they are. The first failure stops the rest."""
        cancel, inner = tokens
        running = [threads.submit(_fetch, order, count, inner) for order in orders]
        noted: set[str] = set()
        while True:
            finished = all(future.done() for future in running)  # before: so that none ends unnoted
            progress = count.progress()
            self._note(running, noted)
            self.download.write(progress)
            yield progress
            failed = _first_error(running)
            if failed is not None:
                raise failed
            if finished:
                return
            if self.download.pause_ordered:
                raise Cancelled("The download was paused.")
            cancel.check()
            cancel.wait(LOOK)

    def _note(self, running: list[Future[tuple[Order, str]]], noted: set[str]) -> None:
        """Write down the hashes of files that came since. Here, as neither memory takes words from several threads."""
        arrived = [future.result() for future in running if future.done() and future.exception() is None]
        for order, sha256 in arrived:
            path = order.file.path
            if path in noted:
                continue
            noted.add(path)
            self.digests.put(order.final, sha256)
            if order.file.sha256 is None:
                self.pins.learn(self.download.model, path, sha256)


def _fetch(order: Order, count: _Count, cancel: CancelToken) -> tuple[Order, str]:
    return order, fetch(order, lambda size: count.add(order.file.path, size), cancel)


def _first_error(running: list[Future[tuple[Order, str]]]) -> BaseException | None:
    """Of those that failed by themselves; the others only follow."""
    errors = [error for future in running if future.done() and (error := future.exception()) is not None]
    return next((error for error in errors if not isinstance(error, Cancelled)), errors[0] if errors else None)
