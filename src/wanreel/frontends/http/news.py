"""News: one reader of the event log for all event streams. Streams hold neither a thread nor a database connection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from wanreel.core.errors import JobNotFound, WanreelError
from wanreel.core.job import TERMINAL, JobEvent
from wanreel.frontends.http.wakes import LOOK, Wakes
from wanreel.service import Service

T = TypeVar("T")

_LOOK_IDLE = 0.5  # seconds between looks while nobody follows a job and nothing happened for a while
_IDLE_AFTER = 25  # looks that found nothing
_KEEPALIVE = 15.0  # seconds of silence after which a comment is sent, so that proxies keep the stream
_BACKLOG = 1000  # events that one listener may be behind
_KNOWN_OWNERS = 10_000
_PAGE = 1000  # events read at a time
_READERS = 8  # threads that read the log
#: Stands for a while without an event.
SILENCE = JobEvent(0, "", 0, "silence", {}, 0.0)
_log = logging.getLogger("wanreel.http")


@dataclass(eq=False)
class _Listener:
    job_id: str | None  #: None for every job of the owner
    owner: str | None  #: None for every owner
    queue: asyncio.Queue[JobEvent | None] = field(default_factory=lambda: asyncio.Queue(_BACKLOG))

    def put(self, event: JobEvent | None) -> None:
        """None makes the listener look for itself: at the end, or when it fell so far behind that some were dropped."""
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.queue.get_nowait()
            self.queue.put_nowait(None)

    async def next(self) -> JobEvent | None:
        """What comes next: SILENCE when for a while there is nothing, None when it should look for itself."""
        try:
            async with asyncio.timeout(_KEEPALIVE):
                return await self.queue.get()
        except TimeoutError:
            return SILENCE


class News:
    """Hands new events to listeners. Run `tell` as a task; everything here belongs to one event loop."""

    def __init__(self, service: Service, wakes: Wakes) -> None:
        self._service = service
        self._bell = wakes.bell()
        self._listeners: set[_Listener] = set()
        self._somebody = asyncio.Event()
        self._owners: dict[str, str] = {}
        self._closed = False
        # Threads of their own: when hundreds of streams begin at once, requests must not queue up behind them.
        self._readers = CapacityLimiter(_READERS)

    async def _read(self, ask: Callable[..., T], *args: Any, **more: Any) -> T:
        return await to_thread.run_sync(functools.partial(ask, *args, **more), limiter=self._readers)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    def close(self) -> None:
        """End every stream, and let no new one begin."""
        self._closed = True
        for listener in self._listeners:
            listener.put(None)

    async def tell(self) -> None:
        """Read the log for as long as anybody listens, until cancelled."""
        position, in_vain = 0, 0
        while True:
            if not self._listeners:
                self._somebody.clear()
                await self._somebody.wait()
                position = await self._position()
            try:
                events = await self._read(self._service.store.tail, after=position)
                for event in events:
                    position = event.number
                    await self._hand_out(event)
                in_vain = 0 if events else in_vain + 1
            except WanreelError as error:
                _log.warning("The event log can't be read now: %s", error)
            followed = any(listener.job_id is not None for listener in self._listeners)
            await self._bell.next_look(LOOK if followed or in_vain < _IDLE_AFTER else _LOOK_IDLE, steps=followed)

    async def _position(self) -> int:
        """Where to begin. Whatever came before is read by the listener itself, after it began to listen."""
        while True:
            try:
                return max(0, await self._read(self._service.store.last_event_number) - _BACKLOG)
            except WanreelError as error:
                _log.warning("The event log can't be read now: %s", error)
                await asyncio.sleep(LOOK)

    async def _hand_out(self, event: JobEvent) -> None:
        for listener in list(self._listeners):
            if listener.job_id is not None:
                fits = listener.job_id == event.job_id
            else:
                fits = listener.owner is None or listener.owner == await self._owner_of(event.job_id)
            if fits:
                listener.put(event)

    async def _owner_of(self, job_id: str) -> str | None:
        if job_id not in self._owners:
            try:
                job = await self._read(self._service.get, job_id)
            except JobNotFound:
                return None
            if len(self._owners) >= _KNOWN_OWNERS:
                self._owners.clear()
            self._owners[job_id] = job.owner
        return self._owners[job_id]

    @contextlib.contextmanager
    def _listen(self, job_id: str | None, owner: str | None) -> Generator[_Listener]:
        listener = _Listener(job_id, owner)
        self._listeners.add(listener)
        self._somebody.set()
        if self._closed:
            listener.put(None)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def of_job(self, job_id: str, after: int) -> AsyncIterator[JobEvent | None]:
        """The job's events with a seq above `after`, then new ones until it has ended; None where nothing happens.

        Raises JobNotFound when there is no such job, also when it is deleted meanwhile.
        """
        with self._listen(job_id, None) as listener:
            async for event in self._follow_job(job_id, listener, after):
                yield event

    async def _follow_job(self, job_id: str, listener: _Listener, seq: int) -> AsyncIterator[JobEvent | None]:
        while not self._closed:
            ended, page = await self._read(self._look, job_id, seq)
            for event in page:
                seq = event.seq
                yield event
            if len(page) == _PAGE:
                continue
            if ended:
                return
            # Silence too is a reason to look: the job may be deleted.
            while (event := await listener.next()) is not None and event is not SILENCE:
                if event.seq > seq:
                    seq = event.seq
                    yield event
                if event.kind in TERMINAL:
                    return
            yield None

    def _look(self, job_id: str, after: int) -> tuple[bool, tuple[JobEvent, ...]]:
        """Whether the job has ended, and a page of its events."""
        # In this order, so that every event of an ended job is among them.
        ended = self._service.get(job_id).ended
        return ended, self._service.store.events(job_id, after=after, limit=_PAGE)

    async def of_owner(self, owner: str | None, after: int | None) -> AsyncIterator[JobEvent | None]:
        """Events of all the owner's jobs with a number above `after`, new ones by default, without end."""
        with self._listen(None, owner) as listener:
            number = await self._read(self._service.store.last_event_number) if after is None else after
            async for event in self._follow_owner(owner, listener, number):
                yield event

    async def _follow_owner(
        self, owner: str | None, listener: _Listener, number: int
    ) -> AsyncIterator[JobEvent | None]:
        while not self._closed:
            async for event in self._recorded(number):
                number = event.number
                if owner is None or owner == await self._owner_of(event.job_id):
                    yield event
            while (event := await listener.next()) is not None:
                if event is SILENCE:
                    yield None
                elif event.number > number:
                    number = event.number
                    yield event

    async def _recorded(self, after: int) -> AsyncIterator[JobEvent]:
        """What is in the log of all jobs by now."""
        while True:
            page = await self._read(self._service.store.tail, after=after, limit=_PAGE)
            for event in page:
                yield event
            if len(page) < _PAGE:
                return
            after = page[-1].number

    async def wait(self, job_id: str) -> None:
        """Returns when the job has ended. Raises JobNotFound."""
        async for _ in self.of_job(job_id, 0):
            pass


async def as_sse(events: AsyncIterator[JobEvent | None], *, by_number: bool = False) -> AsyncIterator[bytes]:
    """Events in the form of `text/event-stream`. The id is what Last-Event-ID takes up again."""
    yield b"retry: 2000\n\n"
    try:
        async for event in events:
            yield b": \n\n" if event is None else _sse(event, by_number=by_number)
    except JobNotFound:
        yield b"event: deleted\ndata: {}\n\n"


def _sse(event: JobEvent, *, by_number: bool) -> bytes:
    values = {"job_id": event.job_id, "seq": event.seq, "at": event.at, "kind": event.kind, **event.data}
    data = json.dumps(values, ensure_ascii=True, allow_nan=False)
    return f"id: {event.number if by_number else event.seq}\nevent: {event.kind}\ndata: {data}\n\n".encode()
