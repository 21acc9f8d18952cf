"""Runs under memory plans are remembered, newest first, and old ones are forgotten."""

from __future__ import annotations

import pytest

from jobs.places import open_place
from wanreel.core.memory_plan import PlanRun, Stage
from wanreel.jobs import JobStore
from wanreel.jobs import plans as plans_module

PEAKS: dict[Stage, int] = {"denoise": 5 * 2**30, "decode": 4 * 2**30}


def run(plan: str = "streamed", *, model: str = "i2v-a14b", failed: Stage | None = None) -> PlanRun:
    return PlanRun("NVIDIA H200", model, "1280x720x81", plan, failed or "", PEAKS, PEAKS, PEAKS, PEAKS)


def test_runs_come_back_as_they_were_newest_first(place: str) -> None:
    store = JobStore(open_place(place))
    runs = [run("resident", failed="decode"), run("streamed"), run(model="ti2v-5b")]
    for it in runs:
        store.plans.add(it)
    store.close()
    again = JobStore(open_place(place))
    assert again.plans.runs("NVIDIA H200", "i2v-a14b") == (runs[1], runs[0])
    assert again.plans.runs("", "i2v-a14b") == ()
    assert again.plans.newest() == tuple(reversed(runs))
    again.close()


def test_old_runs_are_forgotten_by_model(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_module, "_KEPT", 3)
    store = JobStore(open_place(place))
    store.plans.add(run(model="ti2v-5b"))
    for number in range(5):
        store.plans.add(run(f"plan {number}"))
    assert [it.plan for it in store.plans.runs("NVIDIA H200", "i2v-a14b")] == ["plan 4", "plan 3", "plan 2"]
    assert len(store.plans.runs("NVIDIA H200", "ti2v-5b")) == 1
    store.close()
