"""Scaling: how many workers each pool should have now. Pure arithmetic: knows neither Ray nor the queue.

A worker that runs a job is never ended, only asked to leave when the job is done.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from wanreel.frontends.ray.plan import Pace, Pool

#: A member waits for a place on a machine, starts, has no job, has one, was asked to leave, or must be cleared away.
State = Literal["waiting", "starting", "idle", "busy", "leaving", "gone"]
_WORKING = ("idle", "busy")
_WAITING = 8  #: workers of a pool that wait for a place at a time


@dataclass(frozen=True, slots=True)
class Member:
    """A worker of a pool as it was last seen."""

    name: str
    pool: str
    state: State
    generation: int
    since: float = 0.0  #: seconds that it has been in this state
    age: float = 0.0  #: seconds since it could take a job


@dataclass(frozen=True, slots=True)
class Demand:
    """What waits for a pool."""

    queued: int = 0
    seconds: float | None = 0.0  #: of work, as predicted; None where nothing is known of it

    def workers(self, target: float) -> int:
        """How many workers finish it in `target` seconds; one a job where its length is unknown."""
        if not self.queued or self.seconds is None:
            return self.queued
        return max(1, min(self.queued, math.ceil(self.seconds / target)))


@dataclass(frozen=True, slots=True)
class Moves:
    """What to do now."""

    start: tuple[str, ...] = ()  #: a pool for each worker to start
    retire: tuple[str, ...] = ()  #: members to leave when their job is done
    remove: tuple[str, ...] = ()  #: members without a job, to be ended


NOTHING = Demand()


def moves(
    pools: Sequence[Pool],
    members: Sequence[Member],
    demands: Mapping[str, Demand],
    generation: int,
    pace: Pace,
) -> Moves:
    """What brings the pools from what they are nearer to what they should be."""
    start: list[str] = []
    retire: list[str] = []
    remove = [it.name for it in members if it.state == "gone"]
    starved = _starved(pools, members, demands)
    for pool in pools:
        mine = [it for it in members if it.pool == pool.name and it.state not in ("gone", "leaving")]
        demand = demands.get(pool.name, NOTHING)
        new = [it for it in mine if it.generation >= generation]
        old = [it for it in mine if it.generation < generation]
        wanted = _wanted(pool, mine, demand, pace)
        waiting = [it.name for it in new if it.state == "waiting"]
        if starved and pool.name not in starved:
            # A place that gets free is for those.
            remove += waiting
        else:
            start += [pool.name] * max(0, min(wanted - len(new), _WAITING - len(waiting)))
            remove += waiting[: max(0, len(new) - wanted)]
        remove += [it.name for it in old if it.state == "waiting"]
        retire += _idle_too_long(new, max(wanted, pool.least), demand, pace)
        retire += _replaced(
            new, old, wanted, leaves=any(it.pool == pool.name for it in members if it.state == "leaving")
        )
    for member in members:
        if member.pool not in {pool.name for pool in pools}:
            (remove if member.state == "waiting" else retire).append(member.name)
    retire += _room(starved, members, demands, pace, {*retire})
    return Moves(tuple(start), _without(retire, remove, members), tuple(dict.fromkeys(remove)))


def _wanted(pool: Pool, members: Sequence[Member], demand: Demand, pace: Pace) -> int:
    """How many workers of the newest generation there should be, idle ones that have not waited long among them."""
    busy = sum(it.state == "busy" for it in members)
    return min(pool.most, max(pool.least, busy + demand.workers(pace.target)))


def _idle_too_long(new: Sequence[Member], wanted: int, demand: Demand, pace: Pace) -> list[str]:
    """Those that had nothing to do for long, the longest first, down to what is wanted."""
    if demand.queued:
        return []
    idle = sorted((it for it in new if it.state == "idle"), key=lambda it: -it.since)
    over = sum(it.state in _WORKING for it in new) - wanted
    return [it.name for it in idle[: max(0, over)] if it.since >= pace.idle]


def _replaced(new: Sequence[Member], old: Sequence[Member], wanted: int, *, leaves: bool) -> list[str]:
    """Workers of an older generation: all as soon as a new one works, so that one which can't start ends nothing.

    Where there is no place for a new one, the first to leave makes it.
    """
    working = sorted((it for it in old if it.state != "waiting"), key=lambda it: it.state == "busy")
    if not wanted or any(it.state in _WORKING for it in new):
        return [it.name for it in working]
    stuck = any(it.state == "waiting" for it in new)
    return [it.name for it in working[:1]] if stuck and not leaves else []


def _starved(pools: Sequence[Pool], members: Sequence[Member], demands: Mapping[str, Demand]) -> list[str]:
    """The pools that have work, and no worker but some that wait for a place."""
    states = {pool.name: {it.state for it in members if it.pool == pool.name} for pool in pools}
    return [
        name
        for name, seen in states.items()
        if demands.get(name, NOTHING).queued and "waiting" in seen and not seen & {"starting", *_WORKING}
    ]


def _room(
    starved: Sequence[str],
    members: Sequence[Member],
    demands: Mapping[str, Demand],
    pace: Pace,
    leaving: set[str],
) -> list[str]:
    """Whom to send away so that each starved pool gets a place.

    First an idle worker of another pool, else one that had its turn; so a pool waits for a turn and a job at the longest.
    """
    on_the_way = sum(it.state == "leaving" for it in members) + len(leaving)
    found: list[str] = []
    for name in starved[on_the_way:]:
        others = [
            it for it in members if it.pool != name and it.state in _WORKING and it.name not in {*leaving, *found}
        ]
        idle = [it for it in others if it.state == "idle" and not demands.get(it.pool, NOTHING).queued]
        had_turn = sorted((it for it in others if it.age >= pace.turn), key=lambda it: -it.age)
        found += [it.name for it in (idle or had_turn)[:1]]
    return found


def _without(names: Iterable[str], removed: Iterable[str], members: Sequence[Member]) -> tuple[str, ...]:
    """Each once, without those that leave already or go anyway."""
    excluded = {*removed, *(it.name for it in members if it.state in ("leaving", "gone"))}
    return tuple(name for name in dict.fromkeys(names) if name not in excluded)
