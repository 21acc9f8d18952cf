"""Which parallel plans a request can have on a number of GPUs, and what a step then takes. Pure arithmetic.

Knows neither torch nor memory. Sources: Ulysses (arXiv 2309.14509) exchanges four activations around each attention,
a ring (arXiv 2310.01889) passes keys and values round; passes of guidance need no exchange at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from wanreel.core.components import TRANSFORMERS, known
from wanreel.core.machines import Machine
from wanreel.core.parallel import Parallel, ParallelWish
from wanreel.core.workload import Workload

#: A ring's transfers hide behind the attention with the keys before; what is left is the merge in fp32, and kernels that give
#: their sums. Measured, as the share of links that exchanges reach (machines.py): docs/benchmarks.md.
RING_COST = 1.2
#: Seconds that a collective takes to begin, on every link.
LATENCY = 20e-6


def parallels(work: Workload, machine: Machine, ranks: int, wish: ParallelWish | None = None) -> tuple[Parallel, ...]:
    """Every plan for `work` on `ranks` GPUs that `wish` allows, the fastest first; without regard to memory.

    Raises SettingsError where the wish's parts can't make so many.
    """
    wish = wish or ParallelWish()
    wish.check(ranks)
    found = [it for it in _products(ranks, work.passes if wish.cfg is None else 2) if _fits(it, wish)]
    return tuple(sorted(found, key=lambda it: (step_seconds(work, machine, it), it.ring, it.ulysses)))


def step_seconds(work: Workload, machine: Machine, parallel: Parallel) -> float:
    """Of one denoise step whose weights are there. Of models whose size is unknown: relative, in passes."""
    passes = -(-work.passes // parallel.cfg)
    if not known(work.spec):
        return passes * (1.0 + 0.1 * (parallel.sequence > 1)) / parallel.sequence
    _, attention = work.forward_operations()
    size = TRANSFORMERS[work.spec.parameters]
    padded = -(-size.heads // parallel.ulysses) * parallel.ulysses / size.heads
    attention_seconds = padded * attention / machine.attention * (RING_COST if parallel.ring > 1 else 1.0)
    alone = work.forward_seconds(machine) - attention / machine.attention + attention_seconds
    return passes * (alone / parallel.sequence + size.layers * exchange_seconds(work, machine, parallel))


def exchange_seconds(work: Workload, machine: Machine, parallel: Parallel) -> float:
    """What the exchanges of one block add."""
    share = work.hidden / parallel.sequence
    ulysses = ring = 0.0
    if parallel.ulysses > 1:
        sent = 4 * share * (parallel.ulysses - 1) / parallel.ulysses
        ulysses = sent / machine.link_rate + 4 * LATENCY
    if parallel.ring > 1:
        sent = 2 * share * (parallel.ring - 1)
        ring = max(0.0, sent / machine.link_rate - _attending(work, machine, parallel)) + parallel.ring * LATENCY
    return ulysses + ring


def _attending(work: Workload, machine: Machine, parallel: Parallel) -> float:
    """Seconds of one block's attention."""
    _, attention = work.forward_operations()
    return attention / machine.attention / TRANSFORMERS[work.spec.parameters].layers / parallel.sequence


def _products(ranks: int, passes: int) -> Iterator[Parallel]:
    for cfg in range(1, min(passes, 2) + 1):
        if ranks % cfg == 0:
            rest = ranks // cfg
            yield from (Parallel(cfg, u, rest // u) for u in range(1, rest + 1) if rest % u == 0)


def _fits(parallel: Parallel, wish: ParallelWish) -> bool:
    given = {"cfg": wish.cfg, "ulysses": wish.ulysses, "ring": wish.ring}
    return all(value is None or value == getattr(parallel, name) for name, value in given.items())


#: What workers are arranged for: one group of all GPUs, or one worker on each.
Arrangement = Literal["together", "each"]


@dataclass(frozen=True, slots=True)
class Arranging:
    """When GPUs work on one video together and when each has its own: whichever finishes the queue sooner.

    Together each video is done sooner, and all of them hardly later; on their own GPUs none waits for another's encoders,
    links or last frames. So a queue is deep when every GPU has several videos to itself. What is left when they can't all
    have one more is made together, if going over costs less than it gains.
    """

    gpus: int
    efficiency: float = 0.92  #: speed-up of a group over its GPUs, from measurement (docs/benchmarks.md)
    switch_seconds: float = 60.0  #: loading models anew, and the step that is given up

    def wanted(self, now: Arrangement, waiting: int, job_seconds: float) -> Arrangement:
        """What to be in with `waiting` jobs, those at work among them, of `job_seconds` on one GPU each."""
        if waiting == 0:
            return now
        together, each = self._together(waiting, job_seconds), self._each(waiting, job_seconds)
        if now == "together":
            return "each" if each + self.switch_seconds < together else now
        return "together" if together + self.switch_seconds < each else now

    def _together(self, waiting: int, job_seconds: float) -> float:
        return waiting * job_seconds / (self.gpus * self.efficiency)

    def _each(self, waiting: int, job_seconds: float) -> float:
        """Until the queue is empty, going over for the rest where that is sooner. With a rest alone nothing comes before."""
        rounds, rest = divmod(waiting, self.gpus)
        if rest == 0 or rounds == 0:
            return -(-waiting // self.gpus) * job_seconds
        return rounds * job_seconds + min(job_seconds, self._together(rest, job_seconds) + self.switch_seconds)
