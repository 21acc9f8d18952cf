"""What requests may choose of memory plans: what the operator left open, and nothing silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.errors import InvalidRequest
from wanreel.core.machines import GIB, Machine, machine_of
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.wishes import Wishes
from wanreel.jobs import JobStore
from wanreel.models.planning import Planner

INSTALLED = frozenset({"demo", "t2v-1.3b"})


def resolved(
    wishes: Wishes | None = None, model: str = "demo", otherwise: Any = "fail", **knobs: Any
) -> ResolvedRequest:
    defaults = Defaults({}, INSTALLED, wishes=wishes or Wishes(), on_oom=otherwise)
    return resolve(VideoRequest(prompt="a cat", model=model, **knobs), Catalog(), defaults).request


def planned(request: ResolvedRequest, gib: float = 0, **wishes: Any) -> Any:
    machine = (
        machine_of("NVIDIA H200", 141 * GIB, int(gib * GIB), (9, 0), host_free=64 * GIB)
        if gib
        else Machine(host_free=8 * GIB)
    )
    return Planner(lambda: machine, Wishes(**wishes)).plans(Catalog().get(request.model), request, None)[0].placement


def test_a_request_chooses_what_is_left_open_and_its_recipe_chooses_it_again() -> None:
    asked = resolved(memory_mode="smallest", precision="int8", vae_tile=256)
    assert (asked.memory_mode, asked.precision, asked.vae_tile) == ("smallest", "int8", 256)
    assert ResolvedRequest.from_dict(asked.to_dict()) == asked
    again = resolve(asked.as_request(), Catalog(), Defaults({}, INSTALLED)).request
    assert again == asked


@pytest.mark.parametrize(
    ("wishes", "knobs", "said"),
    [
        (Wishes(precision="fp8"), {"precision": "int8"}, "is fp8 for every request here, not int8"),
        (Wishes(mode="smallest"), {"memory_mode": "fastest"}, "is smallest for every request here"),
        (Wishes(tile=256), {"vae_tile": 0}, "is 256 for every request here, not 0"),
        (Wishes(choices=False), {"precision": "int8"}, "is not for requests to choose here"),
    ],
)
def test_what_the_operator_set_holds_and_a_request_is_told(wishes: Wishes, knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        resolved(wishes, **knobs)
    assert [problem.field for problem in caught.value.problems] == list(knobs)


def test_what_the_operator_set_may_be_repeated() -> None:
    assert resolved(Wishes(precision="fp8", choices=False), precision="fp8").precision == "fp8"


def test_the_operator_says_what_becomes_of_a_job_that_does_not_and_the_job_wins() -> None:
    assert resolved().on_oom == "fail"
    assert resolved(otherwise="reduce").on_oom == "reduce"
    assert resolved(otherwise="reduce", on_oom="fail").on_oom == "fail"


def test_plans_keep_to_the_request() -> None:
    assert planned(resolved(model="t2v-1.3b"), 31).plan == "resident"
    small = planned(resolved(model="t2v-1.3b", memory_mode="smallest"), 31)
    assert small.plan == "streamed" and small.precision == "native"
    assert planned(resolved(model="t2v-1.3b", precision="int8"), 31).precision == "int8"
    assert planned(resolved(model="t2v-1.3b", vae_tile=256), 31).tile.width == 256
    assert planned(resolved(model="t2v-1.3b"), 31, precision="fp8").precision == "fp8"


def test_they_do_so_on_a_cpu_too() -> None:
    assert planned(resolved()).tile is None
    assert planned(resolved(precision="int8")).precision == "int8"
    assert planned(resolved(memory_mode="smallest")).tile.width == 128
    assert planned(resolved(memory_mode="balanced")).rows
    assert planned(resolved(memory_mode="smallest", vae_tile=0)).tile is None


def test_a_held_model_makes_way_where_little_memory_is_asked_for() -> None:
    spec, machine = Catalog().get("t2v-1.3b"), machine_of("H200", 141 * GIB, 31 * GIB, (9, 0), host_free=64 * GIB)
    planner = Planner(lambda: machine)
    held = planner.plans(spec, resolved(model="t2v-1.3b"), None)[0].placement
    assert planner.plans(spec, resolved(model="t2v-1.3b"), held)[0].placement == held
    assert planner.plans(spec, resolved(model="t2v-1.3b", memory_mode="smallest"), held)[0].placement != held


def test_runs_teach_how_long_a_step_takes(tmp_path: Path) -> None:
    """Through the store, as a worker of another day finds it; peaks stay what they were."""
    spec, machine = Catalog().get("t2v-1.3b"), machine_of("H200", 141 * GIB, 31 * GIB, (9, 0), host_free=64 * GIB)
    store = JobStore.open(tmp_path / "jobs.db")
    request = resolved(model="t2v-1.3b")
    before = Planner(lambda: machine, records=store.plans).plans(spec, request, None)[0]
    peaks: dict[Any, int] = {stage.stage: stage.peak for stage in before.stages}
    seconds = before.step_seconds
    Planner(lambda: machine, records=store.plans).ran(spec, request, before, peaks, [9 * seconds] + 3 * [2 * seconds])
    after = Planner(lambda: machine, records=store.plans).plans(spec, request, None)[0]
    assert after.step_seconds == pytest.approx(2 * seconds) and after.gpu_bytes == before.gpu_bytes
    Planner(lambda: machine, records=store.plans).ran(spec, request, before, peaks, [9 * seconds])  # says nothing
    assert (
        Planner(lambda: machine, records=store.plans).plans(spec, request, None)[0].step_seconds == after.step_seconds
    )
    store.close()
