"""Costs and the error of memory plans, on the wire and in the figures."""

from __future__ import annotations

import pytest

from frontends.http.places import Open, Place
from wanreel.core.machines import card_named, machine_of_card
from wanreel.core.memory_plan import PlanRun
from wanreel.wiring.forecast import Forecast

BODY = {"prompt": "a red circle", "model": "demo"}


def finished(place: Place) -> dict[str, object]:
    video = place.submit()
    place.hand.complete(place.hand.claim())
    return place.client.get(f"/v1/videos/{video['id']}").json()["wanreel"]


def test_without_a_price_nothing_tells_costs(place: Place) -> None:
    assert "cost" not in finished(place)
    assert "cost" not in place.client.post("/v1/plan", json=BODY).json()["estimate"]
    assert "wanreel_cost" not in place.client.get("/metrics").text


def test_with_a_price_the_job_and_the_total_tell_what_its_seconds_cost(open_place: Open) -> None:
    place = open_place(gpu_price_per_hour=3600.0)
    assert finished(place)["cost"] == 1.0  # the hand tells of one second
    finished(place)
    assert "wanreel_cost 2.0" in place.client.get("/metrics").text
    rows = place.client.get("/v1/videos").json()["data"]
    assert [row["wanreel"]["cost"] for row in rows] == [1.0, 1.0]
    waiting = place.submit(seed=9)
    assert "cost" not in waiting["wanreel"]


def test_the_error_of_memory_plans_is_a_figure(place: Place) -> None:
    assert "wanreel_memory_real_over_predicted{" not in place.client.get("/metrics").text
    for peak in (90, 100, 120):
        place.service.store.plans.add(
            PlanRun("H200", "demo", "96x64x9", "streamed", predicted={"denoise": 100}, measured={"denoise": peak})
        )
    place.service.store.plans.add(PlanRun("H200", "demo", "96x64x9", "resident", "decode"))
    text = place.client.get("/metrics").text
    assert 'wanreel_memory_real_over_predicted{model="demo",of="median"} 1.0' in text
    assert 'wanreel_memory_real_over_predicted{model="demo",of="highest"} 1.2' in text
    assert 'wanreel_plans_out_of_memory{model="demo"} 1.0' in text


def test_a_price_holds_at_once_and_the_machine_tells_the_total(place: Place) -> None:
    finished(place)
    assert "cost" not in place.client.get("/v1/system").json()
    answer = place.client.patch("/v1/settings", json={"gpu_price_per_hour": 3600})
    assert answer.status_code == 200 and not answer.json()["restart_needed"]
    assert place.client.get("/v1/system").json()["cost"] == 1.0
    place.client.patch("/v1/settings", json={"gpu_price_per_hour": None})
    assert "cost" not in place.client.get("/v1/system").json()


def test_alternatives_of_a_plan_tell_what_they_take(open_place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place(gpu_price_per_hour=2.0)
    card = machine_of_card(card_named("RTX 3060"), host_gib=64)
    monkeypatch.setattr(Forecast, "machine", lambda _forecast: card)
    monkeypatch.setattr(type(place.runtime.shelf), "has", lambda _shelf, _spec: True)
    plan = place.client.post("/v1/plan", json={"prompt": "a cat", "model": "t2v-14b", "offload": "streamed"}).json()
    assert plan["machine"]["gpu"] == "RTX 3060" and plan["memory"]["plan"] == "streamed"
    rows = {(row["plan"], row["precision"]): row for row in plan["alternatives"]}
    assert not rows["resident", "native"]["fits"] and rows["streamed", "native"]["fits"]
    chosen = rows["streamed", "native"]
    assert chosen["gpu_bytes"] == plan["memory"]["gpu_bytes"] and chosen["seconds"] == plan["memory"]["seconds"]
    assert chosen["cost"] == pytest.approx(chosen["seconds"] * 2 / 3600, rel=0.01)
