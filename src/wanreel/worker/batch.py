"""Batch: jobs of one kind that have the parts of a model in turn, on a card that holds one part at a time.

An attempt stands still before it needs another part (`events.Turn`). Where bringing parts in costs enough, the worker then
claims more jobs of the same kind that wait in line, brings them as far, and lets all of them have one part before any has the
next one: k jobs bring each expert in once and not k times. Nobody asks for it. Jobs are of one kind with the same model, LoRAs,
size, length, steps and use of guidance: those of a sweep over seeds, prompts, strengths or guidance scales are.

Each job keeps its lease, its time limit (waiting does not count) and its cancel, which takes effect between two events of the
job that runs. What it has so far is on disk before it waits, so after a crash it goes on from there; and a job that waits is not
to blame for it. Results are those of one job after another, to the bit. Nobody waits without end: a batch is closed at
`Workshop.batch` jobs, and passes over whoever is first in line as seldom as any claim (`jobs.policy`).
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from wanreel.core.events import PARTS, Turn
from wanreel.core.job import Job
from wanreel.jobs import JobStore
from wanreel.worker.attempt import Attempt, Ending, Running
from wanreel.worker.workshop import Workshop

_log = logging.getLogger(__name__)

#: Of a job's time, what bringing parts in must take at least for it to wait for others.
WORTH = 0.03

#: A context around each attempt at a job of a store.
Trace = Callable[[Job, JobStore], AbstractContextManager[object]]


class Batch:
    """Jobs that one worker has begun. `perform` runs on the worker's thread; the rest may be called from any."""

    def __init__(self, shop: Workshop, trace: Trace, more: Callable[[Job], Job | None]) -> None:
        """`more`: claims another job of the kind of this one, if there is one."""
        self._shop = shop
        self._trace = trace
        self._more = more
        self._members: list[_Member] = []
        self._running: _Member | None = None
        self._draining = False
        self._open = False  # whether others may join
        self._plan = ""  # under which all run
        self._ending = Ending.GO_ON

    @property
    def job(self) -> Job | None:
        """What runs now."""
        return self._running.attempt.job if self._running is not None else None

    def drain(self) -> None:
        """Have every job saved and given back."""
        self._draining = True
        for member in tuple(self._members):
            member.attempt.keeper.drain()

    def hurry(self) -> None:
        """There may be orders."""
        for member in tuple(self._members):
            member.attempt.keeper.hurry()

    def perform(self, job: Job) -> Ending:
        """Run this job, and others with it where that pays, to their recorded ends."""
        try:
            self._fill(job)
            while self._members:
                self._part()
        finally:
            for member in self._members:
                member.close()
        return self._ending

    def _fill(self, job: Job) -> None:
        """Begin it, and others with it if it has to wait for parts long enough."""
        turn = self._begin(job)
        self._open = turn is not None and (turn.share is None or turn.share >= WORTH)
        while self._open and 0 < len(self._members) < self._shop.batch:
            another = self._more(job)
            if another is None:
                return
            self._begin(another)

    def _part(self) -> None:
        """Everybody who needs the first of the parts that are waited for has it."""
        place = min(member.place for member in self._members)
        for member in [it for it in self._members if it.place == place]:
            if member in self._members:  # it may have been stopped meanwhile
                self._advance(member)

    def _begin(self, job: Job) -> Turn | None:
        """Bring another job to its first turn; None where it has ended before."""
        member = _Member(Attempt(self._shop, job), self._shop.store, self._trace)
        self._members.append(member)
        if self._draining:
            member.attempt.keeper.drain()
        self._advance(member)
        return member.turn if member in self._members else None

    def _advance(self, member: _Member) -> None:
        """Run it to its next turn, or to its end."""
        self._running = member
        for other in self._others():
            other.wait()
        member.go_on()
        while member.step():
            self._watch(member)
            if member.turn is not None:
                return
        self._end(member)

    def _watch(self, member: _Member) -> None:
        """Between two of its events: have those go that are to stop, or all others where they can't share a plan any more."""
        plan = member.attempt.plan
        if plan not in ("", self._plan):
            if self._plan:
                _log.info("job %s runs under another plan: the others of its batch go back in line", self._name(member))
                self._dissolve()
            self._plan = plan
        for other in self._others():
            if other.attempt.keeper.token.cancelled:
                self._stop(other)
                member.attempt.keeper.watch()

    def _dissolve(self) -> None:
        """Give all but the one that runs back, to go on from what is saved."""
        self._open = False
        for other in self._others():
            other.attempt.keeper.token.cancel("drain")

    def _stop(self, member: _Member) -> None:
        member.go_on()
        while member.step():
            pass
        self._end(member)

    def _end(self, member: _Member) -> None:
        self._members.remove(member)
        if member.ending is Ending.REPLACE or self._ending is Ending.GO_ON:
            self._ending = member.ending
        if member.ending is Ending.REPLACE:
            self._dissolve()
            for other in tuple(self._members):
                self._stop(other)

    def _others(self) -> list[_Member]:
        return [it for it in self._members if it is not self._running]

    def _name(self, member: _Member) -> str:
        return member.attempt.job.id


class _Member:
    """One attempt of a batch."""

    def __init__(self, attempt: Attempt, store: JobStore, trace: Trace) -> None:
        self.attempt = attempt
        self.turn: Turn | None = None  #: that it waits for
        self.ending = Ending.GO_ON
        self._waits = False
        # Each has a context of its own, as a trace that was begun first need not end last.
        self._context = contextvars.copy_context()
        self._events = self._traced(store, trace)

    @property
    def place(self) -> int:
        """Of the part that it needs next, in the order of parts."""
        return PARTS.index(self.turn.part) if self.turn is not None else 0

    def wait(self) -> None:
        """Others go first."""
        if self.turn is not None and not self._waits:
            self._waits = True
            self.attempt.wait(self.turn)

    def go_on(self) -> None:
        """It goes first, or is to end."""
        if self.turn is not None and self._waits:
            self.attempt.go_on(self.turn)
        self._waits, self.turn = False, None

    def step(self) -> bool:
        """To its next event. False when it has ended; then `ending` says how."""
        try:
            self.turn = self._context.run(next, self._events)
        except StopIteration as end:
            self.ending = end.value
            return False
        return True

    def close(self) -> None:
        """Leave the attempt as a crash would."""
        self._context.run(self._close)

    def _close(self) -> None:
        self._events.close()

    def _traced(self, store: JobStore, trace: Trace) -> Running:
        with trace(self.attempt.job, store):
            return (yield from self.attempt.running())
