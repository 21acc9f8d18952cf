"""Controller: looks after the pools of one cluster, once a second. Renders nothing and answers no user.

All it must know lies in the store and in the names of the members, so another one may take its place at any time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from wanreel.core.errors import WanreelError
from wanreel.frontends.ray.plan import Plan, Pool
from wanreel.frontends.ray.scaling import Demand, Moves, moves

if TYPE_CHECKING:
    from wanreel.frontends.ray.crew import Crew, Hand
    from wanreel.jobs import Liveness
    from wanreel.service import Service
    from wanreel.wiring import Runtime

_log = logging.getLogger(__name__)

NAME = "controller"
_PERIOD = 1.0  # seconds between looks
_SILENCE = 60.0  # seconds without an answer after which a member whose lease ran out as well is taken for dead
_ELSEWHERE = 20.0  # seconds in which a member must be on the list of workers here
_LINE = 1000  # queued jobs that are looked at
_LONGEST_WAIT = 60.0  # seconds before another try where members end as soon as they begin
_GOOD_LIFE = 60.0  # seconds after which a member is taken to have begun well
_FAULTS = 5  # that are remembered of a pool


@dataclass
class _Trouble:
    """What went wrong in a pool lately."""

    count: int = 0
    start_at: float = 0.0
    faults: list[str] = field(default_factory=list[str])

    def add(self, fault: str, now: float) -> None:
        self.count += 1
        self.start_at = now + (min(_LONGEST_WAIT, 2.0 ** (self.count - 2)) if self.count > 1 else 0.0)
        self.faults = [*self.faults, fault][-_FAULTS:]


class Watch:
    """One look after another; `Controller` runs it. Not for several threads."""

    def __init__(
        self,
        plan: Plan,
        service: Service,
        liveness: Liveness,
        crew: Crew,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.crew = crew
        self.closing = False
        self.home: str | None = None  #: the node that members must be on, where the store is a file
        self._service = service
        self._liveness = liveness
        self._clock = clock
        self._pools = plan.pools
        self._trouble = {pool.name: _Trouble() for pool in plan.pools}
        self._demands: dict[str, Demand] = {}
        self._unserved = 0

    def look(self) -> None:
        """See how everything stands, and do what brings it nearer to what it should be."""
        from wanreel.worker.recovery import take_back

        self.crew.look()
        # Machines with GPUs may join later.
        has_gpus = self.crew.has_gpus()
        self._pools = tuple(pool.settled(has_gpus=has_gpus) for pool in self.plan.pools)
        service = self._service
        take_back(service.store, self._liveness, service.results, service.shared.states if service.shared else None)
        self._check()
        self._count()
        if self.closing:
            self._close()
        else:
            self._do(moves(self._pools, self.crew.members(), self._demands, self.plan.generation, self.plan.pace))

    def _count(self) -> None:
        """What waits for each pool."""
        pool_of = {model: pool.name for pool in self.plan.pools for model in pool.models}
        queued: Counter[str] = Counter()
        seconds: dict[str, float | None] = {}
        for model, needed in self._service.estimator.waiting(_LINE):
            name = pool_of.get(model, "")
            queued[name] += 1
            sofar = seconds.get(name, 0.0)
            seconds[name] = None if needed is None or sofar is None else sofar + needed
        self._unserved = queued.pop("", 0)
        self._demands = {name: Demand(count, seconds[name]) for name, count in queued.items()}

    def _check(self) -> None:
        """Which members are not what they seem."""
        listed = {record.name for record in self._service.store.worker_records()}
        for hand in self.crew.hands.values():
            report = hand.report
            if hand.gone or report is None or not report.worker:
                continue
            if self.crew.silent(hand) > _SILENCE and not self._liveness.is_alive(report.worker):
                hand.gone = "it did not answer any more, and its lease ran out"
            elif report.age > _ELSEWHERE and report.worker not in listed and not hand.leaving:
                self.crew.stop(hand.name)
                self._note(hand, f"{report.machine} works on another job database: WANREEL_DATABASE_URL differs")
            elif report.age > _GOOD_LIFE and (trouble := self._trouble.get(hand.pool)):
                trouble.count = 0

    def _do(self, wanted: Moves) -> None:
        for name in wanted.remove:
            self._remove(name)
        for name in wanted.retire:
            _log.info("%s: to leave", name)
            self.crew.retire(name)
        pools = {pool.name: pool for pool in self._pools}
        for name in wanted.start:
            if self._clock() >= self._trouble[name].start_at:
                self._start(pools[name])

    def _start(self, pool: Pool) -> None:
        _log.info("pool %s: another worker", pool.name)
        self.crew.start(pool, self.plan.generation, self.plan.settings, self.home)

    def _remove(self, name: str) -> None:
        hand = self.crew.hands[name]
        if hand.gone and not hand.leaving:
            self._note(hand, hand.gone)
        _log.info("%s: gone%s", name, f" ({hand.gone})" if hand.gone else "")
        self.crew.remove(name)

    def _note(self, hand: Hand, fault: str) -> None:
        trouble = self._trouble.get(hand.pool)
        if trouble is not None:
            trouble.add(fault, self._clock())

    def _close(self) -> None:
        """Members save their states, give their jobs back and end."""
        for member in self.crew.members():
            if member.state in ("gone", "waiting"):
                self.crew.remove(member.name)
            else:
                self.crew.stop(member.name)

    def status(self) -> dict[str, Any]:
        """How everything stands, JSON-safe."""
        members = {member.name: member for member in self.crew.members()}
        pools: list[dict[str, Any]] = []
        for pool in self._pools:
            mine = [(name, it) for name, it in members.items() if it.pool == pool.name]
            demand = self._demands.get(pool.name, Demand())
            rows = [self._row(name) | {"state": it.state, "generation": it.generation} for name, it in mine]
            told = {
                "queued": demand.queued,
                "predicted_seconds": demand.seconds,
                "faults": self._trouble[pool.name].faults,
            }
            pools.append(asdict(pool) | told | {"workers": rows})
        return {"generation": self.plan.generation, "pools": pools, "unserved": self._unserved, "members": len(members)}

    def _row(self, name: str) -> dict[str, Any]:
        report = self.crew.hands[name].report
        if report is None:
            return {"name": name, "worker": "", "machine": "", "version": "", "job": ""}
        return {
            "name": name,
            "worker": report.worker,
            "machine": report.machine,
            "version": report.version,
            "job": report.job,
        }


class Controller:
    """The actor: a Watch in a thread."""

    def __init__(self, plan: Plan) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._lock = threading.Lock()
        self._runtime: Runtime
        self._watch = self._build(plan)
        self._looks = 0
        self._fault = ""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def status(self) -> dict[str, Any]:
        """How everything stands."""
        with self._lock:
            return self._watch.status() | {"looks": self._looks, "fault": self._fault}

    def plan(self) -> Plan:
        """What it brings about."""
        return self._watch.plan

    def close(self) -> None:
        """Begin to end all members. They are gone when `status` tells of none."""
        with self._lock:
            self._watch.closing = True

    def _build(self, plan: Plan) -> Watch:
        import ray

        from wanreel.core.settings import load_settings
        from wanreel.frontends.ray.crew import Crew
        from wanreel.wiring import build_liveness, build_runtime, build_service

        self._runtime = build_runtime(load_settings(**plan.settings))
        service = build_service(self._runtime)
        crew = Crew()
        crew.find()
        watch = Watch(plan, service, build_liveness(self._runtime.settings, service.store), crew)
        if not service.store.shared:
            watch.home = ray.get_runtime_context().get_node_id()
        return watch

    def _run(self) -> None:
        while True:
            with self._lock:
                try:
                    self._watch.look()
                    self._fault = ""
                except WanreelError as error:
                    # The database may be away; members go on, and so does the next look.
                    _log.warning("%s", error)
                    self._fault = str(error)
                self._looks += 1
            time.sleep(_PERIOD)
