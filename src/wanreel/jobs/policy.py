"""Policy: which queued job a worker takes, and which turn a new one gets. Pure: knows neither databases nor workers.

Both stores decide by these functions, and so does the simulation of clusters (scripts/simulate_cluster.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from wanreel.core.job import Warm

#: Seconds for which a worker lets those go first who hold what the next job needs.
COURTESY = 0.5
#: Seconds over which idle workers share out who looks for a job that was called out: so many for each of them, to a limit.
#: One look and the word that the job is taken take about as long.
_SHARE, _MOST = 0.005, 1.0
#: How often the first in line lets a job go before it that costs a worker less to begin.
PASSES = 4


class Queued(Protocol):
    """What is to be known of a queued job."""

    @property
    def model(self) -> str: ...

    @property
    def adapters(self) -> str: ...

    @property
    def passed_over(self) -> int: ...


T = TypeVar("T", bound=Queued)


def turn_of(claimed: int, latest: int) -> int:
    """The turn of a job that joins the line: `claimed` was claimed last of all, `latest` is its owner's last one."""
    return max(claimed, latest + 1)


def choose(
    first: T, warm: Warm, find: Callable[[Collection[str], str | None], T | None], *, alike: bool = False
) -> T | None:
    """The job to take where `first` is the first in line; the caller counts when another one passes it.

    `find(models, adapters)` is the first in line of the same priority with one of these models, and with these adapters
    unless they are None. With `alike`, None unless a job is there that fits what is warm exactly.
    """
    if not warm.models:
        return None if alike else first
    if fits(first, warm, exactly=True):
        return first
    if first.passed_over >= PASSES:
        return None if alike else first
    found = find(warm.models, warm.adapters)
    if alike or found is not None:
        return found
    return (None if fits(first, warm) else find(warm.models, None)) or first


def fits(job: Queued, warm: Warm, *, exactly: bool = False) -> bool:
    """Whether the job's model is in memory, and `exactly`, its LoRAs too."""
    return job.model in warm.models and (not exactly or job.adapters == warm.adapters)


def patience(suits: bool, idle: int, chance: float) -> float:
    """Seconds for which one of `idle` workers waits when a job is called out; who hears that it was taken does not look.

    `suits`: it holds what the job needs. `chance`, 0 to 1, is drawn by each worker for itself.
    """
    spread = min(_SHARE * idle, _MOST)
    if suits:
        return chance * min(spread, COURTESY / 2)
    return (COURTESY if idle > 1 else 0.0) + chance * spread
