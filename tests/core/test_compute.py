"""compute: what a request asks of the arithmetic, and what the planner makes of it on each machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.components import transformer_block
from wanreel.core.compute import COMPILE_SECONDS, EXACT_END, Compute, effective, pays_back
from wanreel.core.machines import GIB, Machine, card_named, machine_of_card
from wanreel.core.memory import plan_memory, price
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.placement import Placement
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.wishes import Wishes
from wanreel.core.workload import Workload

SPEC = Catalog().get("t2v-14b")
FAST = Placement(precision="fp8", compute="fast")


def plan(card: str, compute: Compute, steps: int = 40, **wishes: object) -> MemoryPlan:
    work = Workload(SPEC, 1280, 720, 81, steps, 2, compute=compute)
    return plan_memory(work, machine_of_card(card_named(card), host_gib=128), replace(Wishes(), **wishes))  # type: ignore[arg-type]


def test_the_request_wins_over_the_operator() -> None:
    defaults = Defaults({"text": "demo"}, frozenset({"demo"}), compute="fast")
    asked = VideoRequest(prompt="x", compute="turbo")
    found = resolve(asked, Catalog(), defaults).request
    assert (found.compute, found.as_request().compute) == ("turbo", "turbo")
    assert resolve(VideoRequest(prompt="x"), Catalog(), defaults).request.compute == "fast"
    assert resolve(VideoRequest(prompt="x"), Catalog(), replace(defaults, compute="exact")).request.compute == "exact"
    assert [it.field for it in VideoRequest(prompt="x", compute="quick").problems()] == ["compute"]  # type: ignore[arg-type]


def test_fast_is_quicker_and_said_to_be_inexact() -> None:
    exact, fast, turbo = (plan("H200", it) for it in ("exact", "fast", "turbo"))
    assert turbo.step_seconds < 0.7 * fast.step_seconds < 0.5 * exact.step_seconds
    assert (fast.placement.precision, fast.placement.compute) == ("fp8", "fast")
    assert [it.to_dict()["exact"] for it in (exact, fast, turbo)] == [True, False, False]
    assert "fast, compiled" in str(fast.placement)
    assert any("fp8, which changes the numbers" in it for it in fast.reasons)
    assert any("left out" in it for it in turbo.reasons)


@pytest.mark.parametrize("card", ["A100", "RTX 3090"])
def test_a_card_without_fp8_stays_exact(card: str) -> None:
    fast = plan(card, "fast")
    assert (fast.placement.compute, fast.placement.precision) == ("exact", "native")
    assert any("does not multiply fp8" in it for it in fast.reasons)
    assert plan(card, "turbo").placement.compute == "turbo"
    assert plan(card, "turbo").placement.precision == "native"


def test_a_cpu_leaves_steps_out_and_no_more() -> None:
    found = {it: plan_memory(Workload(SPEC, 832, 480, 81, 40, 2, compute=it), Machine(host_free=64 * GIB)) for it in (
        "exact", "fast", "turbo")}  # fmt: skip
    assert [it.placement.compute for it in found.values()] == ["exact", "exact", "turbo"]
    assert any("changes nothing" in it for it in found["fast"].reasons)


def test_the_exact_end_s_weights_are_counted() -> None:
    """One block of bf16 instead of fp8 for each expert, where blocks do not come in one by one."""
    spec = Catalog().get("t2v-a14b")
    work, machine = Workload(spec, 832, 480, 81, 4, 1), machine_of_card(card_named("H200"), host_gib=128)
    more = EXACT_END * (transformer_block(spec).nbytes(2, 2) - transformer_block(spec).nbytes(1, 2))
    for fast, extra in (
        (FAST, spec.experts * more),
        (replace(FAST, plan="exclusive"), more),
        (replace(FAST, plan="streamed"), 0),
    ):
        found, plain = (price(work, machine, it).stage("denoise") for it in (fast, replace(fast, compute="exact")))
        assert found is not None and plain is not None
        assert found.weights - plain.weights == extra


def test_blocks_are_compiled_where_that_pays_back() -> None:
    assert plan("H200", "exact", steps=40).placement.compiled
    assert not plan("H200", "exact", steps=3).placement.compiled
    assert not plan("H200", "exact", compile="off").placement.compiled
    assert plan("H200", "exact", steps=3, compile="always").placement.compiled
    assert pays_back("auto", saved=COMPILE_SECONDS + 1) and not pays_back("auto", saved=COMPILE_SECONDS - 1)
    compiled = plan("H200", "exact", steps=40)
    assert compiled.step_seconds < plan("H200", "exact", compile="off").step_seconds


def test_portions_of_tokens_are_not_compiled() -> None:
    """They are for cards whose memory is short, and go block by block as Diffusers does."""
    found = plan("RTX 4060", "exact", compile="always")
    assert found.placement.rows and not found.placement.compiled


def test_what_needs_no_loading() -> None:
    plain = Placement()
    assert replace(plain, compiled=True, compute="turbo").loading == plain.loading
    assert replace(plain, precision="fp8").loading != plain.loading
    assert replace(plain, compute="fast").arithmetic > replace(plain, precision="int4").arithmetic
    assert effective("fast", (8, 6)) == "exact" and effective("turbo", (0, 0)) == "turbo"
