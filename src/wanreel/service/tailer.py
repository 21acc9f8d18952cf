"""Tailer: one reader of the event log that serves any number of watchers. Knows nothing of what events mean."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from wanreel.core.errors import WanreelError
from wanreel.core.job import JobEvent

#: Reads the events of all jobs after a number; see `JobStore.tail`.
Read = Callable[[int], tuple[JobEvent, ...]]


#: Has something called while the context is open, as soon as there may be events; see `JobStore.listening`.
Alarm = Callable[[Callable[[], object]], AbstractContextManager[object]]


def _no_alarm(_call: Callable[[], object]) -> AbstractContextManager[object]:
    return nullcontext()


class News:
    """What one watcher has not read yet."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.over = False  #: the tailer was closed: nothing comes any more
        self._waiting: queue.SimpleQueue[JobEvent | WanreelError | None] = queue.SimpleQueue()

    def put(self, item: JobEvent | WanreelError | None) -> None:
        self._waiting.put(item)

    def next(self, seconds: float) -> JobEvent | None:
        """The next event; None when none came within `seconds` or the tailer was closed. Raises its StoreError."""
        try:
            item = self._waiting.get(timeout=seconds)
        except queue.Empty:
            return None
        self.over = item is None
        if isinstance(item, WanreelError):
            raise item
        return item


class Tailer:
    """Asks the store for new events every `seconds` while anybody watches. Close it to end its thread."""

    def __init__(
        self, read: Read, last_number: Callable[[], int], seconds: float = 0.2, alarm: Alarm = _no_alarm
    ) -> None:
        self._read = read
        self._alarm = alarm
        self._woken = False
        self._last_number = last_number
        self._seconds = seconds
        self._watchers: set[News] = set()
        self._position = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def follow(self, job_id: str) -> Generator[News]:
        """News of one job from now on. Raises StoreError."""
        news = News(job_id)
        with self._changed:
            if not self._watchers:
                # Read here and not by the thread, so that nothing falls between a watcher's replay and its news.
                self._position = self._last_number()
            self._watchers.add(news)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="tailer", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield news
        finally:
            with self._changed:
                self._watchers.discard(news)

    def close(self) -> None:
        """End every watcher's news and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            for news in self._watchers:
                news.put(None)
            thread = self._thread
        if thread is not None:
            thread.join()

    def wake(self) -> None:
        """Look now: there may be events."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def _run(self) -> None:
        with self._alarm(self.wake):
            self._tail()

    def _tail(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._watchers))
                if self._closed:
                    return
                self._woken = False
                self._hand_out()
                self._changed.wait_for(lambda: self._closed or self._woken, timeout=self._seconds)

    def _hand_out(self) -> None:
        """Under the lock: a watcher that joins meanwhile would set the position back."""
        try:
            events = self._read(self._position)
        except WanreelError as error:
            for news in self._watchers:
                news.put(error)
            return
        for event in events:
            self._position = event.number
            for news in self._watchers:
                if news.job_id == event.job_id:
                    news.put(event)
