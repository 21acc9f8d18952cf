"""Crew: the members as Ray knows them: found by name, asked how they stand, started and ended. Decides nothing.

A member's name says its pool and generation, so that whoever comes after finds all of them again.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wanreel.frontends.ray.member import Member as MemberActor
from wanreel.frontends.ray.member import Report
from wanreel.frontends.ray.plan import Pool
from wanreel.frontends.ray.scaling import Member, State

NAMESPACE = "wanreel"
_PREFIX = "worker"
_PLACED_WITHIN = 15.0  #: seconds in which a process starts where there is a place for it


@dataclass
class Hand:
    """One member, seen from here."""

    name: str
    pool: str
    generation: int
    actor: Any
    began: float
    report: Report | None = None
    asked: Any = None  #: the answer that is awaited
    heard: float = 0.0
    leaving: bool = False
    gone: str = ""  #: why, where it is


@dataclass
class Crew:
    """All members of one Ray cluster."""

    clock: Callable[[], float] = time.monotonic
    hands: dict[str, Hand] = field(default_factory=dict[str, Hand])

    def find(self) -> None:
        """Take over those that somebody else started."""
        for name in named_actors(f"{_PREFIX}."):
            if name in self.hands:
                continue
            _, pool, generation, _ = name.split(".")
            with contextlib.suppress(ValueError):  # it ended meanwhile
                self._add(name, pool, int(generation), ray.get_actor(name, namespace=NAMESPACE))

    def start(self, pool: Pool, generation: int, settings: Mapping[str, Any], here: str | None) -> None:
        """Ask for a new member; `here`: the id of the node that it must be on, if any."""
        name = f"{_PREFIX}.{pool.name}.{generation}.{secrets.token_hex(4)}"
        options: dict[str, Any] = {
            "name": name,
            "namespace": NAMESPACE,
            "lifetime": "detached",  # it outlives whoever asked for it
            "num_gpus": pool.gpus,
            "num_cpus": pool.cpus,
            "max_restarts": 0,
        }
        if here is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
        remote: Any = ray.remote(MemberActor)
        self._add(name, pool.name, generation, remote.options(**options).remote(pool, settings))

    def look(self) -> None:
        """Hear what members said, and ask again."""
        for hand in self.hands.values():
            if hand.gone:
                continue
            if hand.asked is not None:
                self._hear(hand)
            if hand.asked is None and not hand.gone:
                hand.asked = hand.actor.report.remote()

    def has_gpus(self) -> bool:
        """Whether any machine has a GPU."""
        return float(ray.cluster_resources().get("GPU", 0.0)) > 0.0

    def retire(self, name: str) -> None:
        self._tell(name, "retire")

    def stop(self, name: str) -> None:
        self._tell(name, "stop")

    def remove(self, name: str) -> None:
        """End the process, which must have no job."""
        hand = self.hands.pop(name, None)
        if hand is not None:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(hand.actor, no_restart=True)

    def members(self) -> list[Member]:
        """All of them, for `scaling`."""
        return [self._seen(hand) for hand in self.hands.values()]

    def silent(self, hand: Hand) -> float:
        """Seconds for which a member that spoke before has not answered."""
        return self.clock() - hand.heard if hand.report is not None else 0.0

    def _add(self, name: str, pool: str, generation: int, actor: Any) -> None:
        self.hands[name] = Hand(name, pool, generation, actor, self.clock())

    def _tell(self, name: str, what: str) -> None:
        hand = self.hands.get(name)
        if hand is not None and not hand.leaving:
            getattr(hand.actor, what).remote()
            hand.leaving = True

    def _hear(self, hand: Hand) -> None:
        try:
            hand.report = ray.get(hand.asked, timeout=0)
            hand.heard = self.clock()
        except GetTimeoutError:
            return
        except ActorUnavailableError:
            pass  # the network may be at fault: the worker may go on, and its lease says whether it does
        except RayActorError as error:
            hand.gone = _reason(error)
        hand.asked = None
        if hand.report is not None and hand.report.ended:
            hand.gone = hand.report.fault or "it was asked to leave"

    def _seen(self, hand: Hand) -> Member:
        report = hand.report
        since = report.seconds if report is not None else 0.0
        age = report.age if report is not None else 0.0
        return Member(hand.name, hand.pool, self._state(hand), hand.generation, since, age)

    def _state(self, hand: Hand) -> State:
        if hand.gone:
            return "gone"
        if hand.leaving:
            return "leaving"
        if hand.report is None:
            # Nothing tells a process that starts from one that has no place yet, but time.
            return "starting" if self.clock() - hand.began < _PLACED_WITHIN else "waiting"
        if not hand.report.worker:
            return "starting"
        return "busy" if hand.report.job else "idle"


def named_actors(start: str) -> list[str]:
    """The names of our actors that begin with this."""
    rows: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    return [row["name"] for row in rows if row["namespace"] == NAMESPACE and row["name"].startswith(start)]


def _reason(error: RayActorError) -> str:
    """The first line of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
