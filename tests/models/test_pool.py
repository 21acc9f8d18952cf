"""Several models in one process: as many as fit, the one used longest ago leaves first, none is loaded twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.machines import Machine
from wanreel.core.memory_plan import MemoryPlan, Stage, StageMemory
from wanreel.core.placement import Placement
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import ResolvedRequest
from wanreel.models.pool import ModelPool, weight_bytes
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel

MIB = 2**20
T2V, I2V, TI2V = (Catalog().get(f"tiny:{name}") for name in ("t2v-1.3b", "i2v-a14b", "ti2v-5b"))


@dataclass
class Bench:
    """A pool on a made-up machine, whose models take `host` bytes each."""

    free: int
    host: int = 100 * MIB
    gpu: int = 0
    loads: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    pool: ModelPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = ModelPool(self._load, self, self._machine)

    def use(self, spec: ModelSpec, placement: Placement | None = None) -> WanModel:
        """What a job does: plan, then acquire."""
        plan = self.pool.plans(spec, request_of(spec))[0]
        return self.pool.acquire(spec, placement or plan.placement).model

    def _load(self, spec: ModelSpec, placement: Placement) -> WanModel:
        self.loads.append(spec.name)
        return build_tiny(spec, placement=placement)

    def _machine(self) -> Machine:
        taken = sum(self.host for _ in self.pool.names)
        return Machine(gpu_free=self.gpu, host_free=self.free - taken)

    # Planning

    def plans(self, spec: ModelSpec, request: ResolvedRequest, held: Placement | None) -> tuple[MemoryPlan, ...]:
        return tuple(MemoryPlan(placement, host_bytes=self.host) for placement in (Placement(), Placement(rows=64)))

    def ran(
        self, spec: Any, request: Any, plan: MemoryPlan, peaks: Mapping[Stage, int], steps: Sequence[float] = ()
    ) -> None:
        self.told.append(f"{spec.name} ran")

    def ran_out(self, spec: ModelSpec, request: ResolvedRequest, plan: MemoryPlan, stage: Stage) -> None:
        self.told.append(f"{spec.name} ran out")


def request_of(spec: ModelSpec) -> ResolvedRequest:
    request = VideoRequest(prompt="a cat", model=T2V.name, seed=1)
    resolved = resolve(request, Catalog(), Defaults({}, frozenset({T2V.name}))).request
    return replace(resolved, model=spec.name)


def test_models_that_fit_stay_beside_each_other() -> None:
    bench = Bench(free=1000 * MIB)
    first = bench.use(T2V)
    bench.use(I2V)
    assert bench.use(T2V) is first
    assert bench.loads == [T2V.name, I2V.name]
    assert bench.pool.names == (I2V.name, T2V.name) and bench.pool.held == T2V.name


def test_without_room_the_one_used_longest_ago_leaves() -> None:
    bench = Bench(free=250 * MIB)
    bench.use(T2V)
    bench.use(I2V)
    bench.use(T2V)
    bench.use(TI2V)
    assert bench.pool.names == (T2V.name, TI2V.name)
    bench.use(I2V)
    assert bench.pool.names == (TI2V.name, I2V.name)
    assert bench.loads == [T2V.name, I2V.name, TI2V.name, I2V.name]


def test_a_machine_for_one_switches() -> None:
    bench = Bench(free=120 * MIB)
    for spec in (T2V, I2V, T2V):
        bench.use(spec)
        assert bench.pool.names == (spec.name,)


def test_without_a_machine_to_ask_there_is_one() -> None:
    pool = ModelPool(lambda spec, placement: build_tiny(spec, placement=placement))
    pool.acquire(T2V)
    pool.acquire(I2V)
    assert pool.names == (I2V.name,)


def test_another_way_of_loading_loads_again() -> None:
    bench = Bench(free=1000 * MIB)
    first = bench.use(T2V)
    assert bench.use(T2V, Placement(rows=64)) is first  # portions need no loading
    second = bench.use(T2V, Placement(precision="int8"))
    assert second is not first and bench.pool.names == (T2V.name,)


def test_a_row_that_changed_is_another_model() -> None:
    bench = Bench(free=1000 * MIB)
    first = bench.use(T2V)
    assert bench.use(replace(T2V, fps=99.0)) is not first
    assert bench.pool.names == (T2V.name,)


def test_evicting_one_and_all() -> None:
    bench = Bench(free=1000 * MIB)
    bench.use(T2V)
    bench.use(I2V)
    bench.pool.evict(T2V.name)
    assert bench.pool.names == (I2V.name,)
    bench.pool.evict("nobody")
    bench.pool.evict()
    assert bench.pool.names == () and bench.pool.held is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError()])
def test_memory_that_runs_out_while_loading_beside_others(error: Exception) -> None:
    bench = Bench(free=1000 * MIB)
    bench.use(T2V)
    load, failures = bench._load, [error]

    def failing(spec: ModelSpec, placement: Placement) -> WanModel:
        if failures and spec is I2V:
            raise failures.pop()
        return load(spec, placement)

    bench.pool._load = failing
    bench.use(I2V)
    assert bench.pool.names == (I2V.name,)

    failures.append(error)
    bench.pool.evict()
    with pytest.raises(type(error)):  # alone, it is for others to find a plan
        bench.use(I2V)


def test_memory_that_runs_out_while_running_beside_others() -> None:
    bench = Bench(free=1000 * MIB)
    bench.use(T2V)
    bench.use(I2V)
    plan = MemoryPlan(Placement())
    bench.pool.ran_out(I2V, request_of(I2V), plan, "denoise")
    assert bench.pool.names == (I2V.name,) and bench.told == []  # it says nothing about the plan alone
    bench.pool.ran_out(I2V, request_of(I2V), plan, "denoise")
    assert bench.told == [f"{I2V.name} ran out"]


def test_what_is_learnt_is_learnt_alone() -> None:
    bench = Bench(free=1000 * MIB)
    bench.use(T2V)
    bench.pool.ran(T2V, request_of(T2V), MemoryPlan(Placement()), {})
    bench.use(I2V)
    bench.pool.ran(I2V, request_of(I2V), MemoryPlan(Placement()), {})
    assert bench.told == [f"{T2V.name} ran"]


def test_the_gpu_counts_other_models_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the GPU has free includes what the pool holds there."""
    from wanreel.models import pool as module

    gib = 2**30
    monkeypatch.setattr(module, "weight_bytes", lambda model: module.Weights(gpu=60 * gib, host=0))
    bench = Bench(free=1000 * MIB)
    stage = StageMemory("denoise", 20 * gib, 10 * gib)
    plans = (MemoryPlan(Placement(), (stage,), host_bytes=1),)
    monkeypatch.setattr(bench, "plans", lambda *_: plans)
    card = Machine(gpu="A card", gpu_free=100 * gib, host_free=10 * gib)
    monkeypatch.setattr(bench.pool, "_machine", lambda: card)
    bench.use(T2V)
    bench.use(I2V)  # 60 + 30, and what an allocator loses, of 100
    assert bench.pool.names == (T2V.name, I2V.name)
    bench.use(TI2V)  # 120 + 30
    assert bench.pool.names == (I2V.name, TI2V.name)


def test_weight_bytes() -> None:
    model = build_tiny(T2V)
    modules = [model.vae, model.text_encoder, model.experts[0].transformer]
    counted = sum(it.nbytes for module in modules for it in (*module.parameters(), *module.buffers()))
    assert weight_bytes(model).host == counted and weight_bytes(model).gpu == 0
