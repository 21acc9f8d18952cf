"""Saving costs at most 2 % of the run, and a crash loses at most one step or 30 s."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wanreel.generation.cadence import ALWAYS, Cadence

SECONDS = st.floats(0.01, 600)


def simulate(step: float, save: float, steps: int = 400) -> tuple[float, float]:
    """Share of the run time spent saving, and the most work at risk at any moment."""
    cadence, unsaved, work, spent, risk = Cadence(), 0.0, 0.0, 0.0, 0.0
    for _ in range(steps):
        unsaved, work = unsaved + step, work + step
        risk = max(risk, unsaved)
        if cadence.due(since_save=unsaved, step=step, save=save):
            unsaved, spent = 0.0, spent + save
    return spent / work, risk


@given(step=SECONDS, save=st.floats(0.0, 0.59))
def test_a_crash_loses_at_most_a_step_or_thirty_seconds(step: float, save: float) -> None:
    _, risk = simulate(step, save)
    assert risk <= max(step, 30.0) * 1.0001


@given(step=SECONDS, save=st.floats(0.0, 0.3))
def test_saving_costs_at_most_two_percent(step: float, save: float) -> None:
    """Up to 0.3 s a save; slower disks than that give in to the loss."""
    cost, _ = simulate(step, save)
    assert cost <= 0.0201


def test_a_slow_disk_gives_up_time_before_work() -> None:
    cost, risk = simulate(step=5.0, save=3.0)
    assert risk <= 30.0
    assert cost > 0.02


def test_typical_runs() -> None:
    assert simulate(step=12.0, save=0.16)[1] == 12.0  # 720p on one GPU: after every step
    cost, risk = simulate(step=0.05, save=0.16)  # a tiny model: every eight seconds
    assert 7.5 < risk < 8.5
    assert cost <= 0.0201
    assert ALWAYS.due(since_save=0.0001, step=0.0001, save=1.0)
