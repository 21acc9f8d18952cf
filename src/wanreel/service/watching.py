"""Watching: a job's events, those there are and then new ones as they come. Knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Iterator

from wanreel.core.job import TERMINAL, JobEvent
from wanreel.jobs import JobStore, signals
from wanreel.service.tailer import News, Tailer

#: A watcher that heard nothing for so long looks whether its job is still there. Seconds.
_LOOK_AGAIN = 15.0


class Watching:
    """Any number of watchers of one store. Close it to end them."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._tailer = Tailer(
            lambda number: store.tail(after=number),
            store.last_event_number,
            alarm=lambda call: store.listening({signals.NEWS: lambda _word: call()}),
        )

    def close(self) -> None:
        self._tailer.close()

    def follow(self, job_id: str, after: int) -> Iterator[JobEvent]:
        """The events with a seq above `after`, until the job has ended. Raises JobNotFound, also when it is deleted."""
        with self._tailer.follow(job_id) as news:
            yield from self._watch(job_id, after, news)

    def _watch(self, job_id: str, seq: int, news: News) -> Iterator[JobEvent]:
        while not news.over:
            # Read before its events: then every event of an ended job is among them.
            ended = self._store.get(job_id).ended
            for event in self._replay(job_id, seq):
                seq = event.seq
                yield event
            if ended:
                return
            for event in _until_ended(news, seq):
                seq = event.seq
                yield event

    def _replay(self, job_id: str, seq: int) -> Iterator[JobEvent]:
        while page := self._store.events(job_id, after=seq):
            seq = page[-1].seq
            yield from page


def _until_ended(news: News, seq: int) -> Iterator[JobEvent]:
    """New events up to one that ends a job, or until nothing came for a while."""
    while (event := news.next(_LOOK_AGAIN)) is not None:
        if event.seq > seq:
            yield event
        if event.kind in TERMINAL:
            return
