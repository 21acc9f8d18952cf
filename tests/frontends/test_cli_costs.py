"""`wanreel reduce`, and costs as `plan` and `show` print them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wanreel.core.catalog import Catalog
from wanreel.core.job import JobFailure
from wanreel.core.machines import card_named, machine_of_card
from wanreel.core.memory import plan_memory
from wanreel.core.memory_plan import MemoryPlan
from wanreel.core.placement import Placement
from wanreel.core.settings import load_settings
from wanreel.core.workload import Workload
from wanreel.frontends.cli import main
from wanreel.frontends.cli.plan import cost_of
from wanreel.wiring import build_store

HALF_AN_HOUR = 1800.0


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(argv))
    out = capsys.readouterr().out
    assert end.value.code == code, (argv, out)
    return out


def failed_job(capsys: pytest.CaptureFixture[str], code: str) -> str:
    handed = json.loads(said(capsys, "submit", "a red circle", "--model", "demo", "--json"))
    store = build_store(load_settings())
    store.leases.register("hand")
    job = store.leases.claim("hand")
    assert job is not None and job.id == handed["id"]
    store.leases.fail(job.id, job.attempt, JobFailure(code, "It failed."), seconds=HALF_AN_HOUR)
    store.close()
    return job.id


def test_reduce_queues_a_smaller_job_and_says_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    job_id = failed_job(capsys, "out_of_memory")
    out = said(capsys, "reduce", job_id[:8])
    assert "queued" in out and "memory ran out" in out and "→" in out
    listed = json.loads(said(capsys, "jobs", "--json"))["jobs"]
    assert listed[0]["parent_id"] == job_id and any("memory ran out" in note for note in listed[0]["notes"])
    assert listed[1]["status"] == "failed"


def test_another_fault_is_not_reduced(capsys: pytest.CaptureFixture[str]) -> None:
    job_id = failed_job(capsys, "generation_failed")
    answer = json.loads(said(capsys, "reduce", job_id, "--json", code=5))
    assert "did not run out of memory" in answer["error"]["message"]


def test_show_tells_costs_only_with_a_price(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = failed_job(capsys, "out_of_memory")
    assert "cost" not in json.loads(said(capsys, "show", job_id, "--json"))
    monkeypatch.setenv("WANREEL_GPU_PRICE_PER_HOUR", "3")
    assert json.loads(said(capsys, "show", job_id, "--json"))["cost"] == 1.5
    assert "cost  1.5" in said(capsys, "show", job_id)


def test_plan_tells_costs_only_with_a_price() -> None:
    spec = Catalog().get("t2v-1.3b")
    plan = plan_memory(Workload(spec, 832, 480, 81, 50, 2), machine_of_card(card_named("RTX 4090")))
    assert cost_of(plan, 50, None) == {}
    assert cost_of(plan, 50, 2.0)["cost"] == pytest.approx(plan.seconds(50) / 1800.0, abs=1e-6)
    assert cost_of(MemoryPlan(Placement()), 50, 2.0) == {}
