"""What the page tells and lets be chosen of memory, costs, pairs of pictures, workers and storage, in a real browser."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from frontends.ui.shelves import Shop, asked, visit
from wanreel.core.machines import card_named, machine_of_card
from wanreel.core.settings_groups import StorageProfile
from wanreel.wiring.forecast import Forecast


def test_ways_to_run_are_told_and_the_one_chosen_is_asked_for(
    page: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = machine_of_card(card_named("RTX 4090"), host_gib=96)
    monkeypatch.setattr(Forecast, "machine", lambda _forecast: card)
    monkeypatch.setattr(type(shop.runtime.shelf), "has", lambda _shelf, _spec: True)
    monkeypatch.setattr(shop.service, "gpu_price_per_hour", 0.5)
    visit(page, shop, "create")
    page.locator("#knob-prompt").fill("a cat")
    page.locator("#knob-model").select_option("t2v-a14b")
    panel = page.locator("details[data-part=memory]")
    panel.locator("summary").click()
    expect(panel.locator(".mem-way")).to_contain_text("Block by block")
    expect(panel.locator(".mem-facts")).to_contain_text("19.9 of 23 GB")
    expect(panel.locator(".mem-facts")).to_contain_text("Cost")
    expect(page.locator(".plan-main")).to_contain_text("costs 0.75")
    expect(panel.locator(".mem-stages .highest")).to_contain_text("Decoding")
    ways = panel.locator(".way")
    expect(ways.filter(has_text="All on the GPU").first).to_contain_text("does not fit")
    expect(ways.filter(has_text="All on the GPU").get_by_role("radio").first).to_be_disabled()
    ways.filter(has_text="int4 weights").get_by_role("radio").check()
    expect(panel.locator("summary .aside")).to_contain_text("One part at a time")
    expect(panel.locator(".mem-way .chip.warn")).to_have_text("int4")
    expect(panel.locator("#knob-precision")).to_have_value("int4")  # the knobs follow
    panel.locator("#knob-vae_tile").select_option("256")
    panel.locator("[data-knob=memory_mode] input[value=smallest]").check(force=True)
    panel.locator("#knob-on_oom").select_option("reduce")
    found = Axe().run(page, "details[data-part=memory]").response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    body = asked(page)
    knobs = ("precision", "offload", "vae_tile", "memory_mode", "on_oom")
    assert [body[name] for name in knobs] == ["int4", "exclusive", 256, "smallest", "reduce"]
    ways.first.get_by_role("radio").check()
    assert not {"precision", "offload"} & asked(page).keys()


def test_what_the_operator_fixed_is_shown_and_locked_and_a_cpu_has_no_ways(
    page: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit(page, shop, "create")
    panel = page.locator("details[data-part=memory]")
    panel.locator("summary").click()
    expect(panel.locator(".mem-now")).to_contain_text("computes on the CPU")
    expect(panel.locator("#knob-vae_tile")).to_be_enabled()
    expect(panel.locator("#knob-precision, .way")).to_have_count(0)
    card = machine_of_card(card_named("RTX 4090"), host_gib=96)
    fixed = shop.runtime.settings.model_copy(update={"precision": "fp8"})
    monkeypatch.setattr(shop.runtime, "settings", fixed)
    monkeypatch.setattr(Forecast, "machine", lambda _forecast: card)
    monkeypatch.setattr(type(shop.runtime.shelf), "has", lambda _shelf, _spec: True)
    page.reload()
    page.locator("#knob-model").select_option("t2v-14b")
    page.locator("details[data-part=memory] summary").click()
    expect(panel.locator("#knob-precision")).to_be_disabled()
    expect(panel.locator("#knob-precision")).to_have_value("fp8")
    expect(panel.locator("[data-knob=precision]")).to_contain_text("Set by the operator")
    expect(panel.locator("#knob-offload")).to_be_enabled()


def test_an_example_brings_its_first_and_its_last_picture(page: Page, shop: Shop) -> None:
    visit(page, shop, "create")
    page.locator("#examples").click()
    page.locator(".examples-modes input[value=first_last]").check(force=True)
    page.locator(".example").first.click()
    expect(page.locator(".picture.held img")).to_have_count(2)
    pair = [page.locator(f"[data-knob={name}] img").get_attribute("src") for name in ("image", "last_image")]
    assert None not in pair and len(set(pair)) == 2
    expect(page.locator("#knob-prompt")).not_to_have_value("")


def test_costs_workers_and_storage_are_shown_where_there_are_any(
    page: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = shop.submit("a kite")
    shop.hand.complete(shop.hand.claim())
    visit(page, shop, f"create?id={video}")
    expect(page.locator(".about")).to_contain_text("unipc")
    expect(page.locator(".about")).not_to_contain_text("Cost")
    monkeypatch.setattr(shop.service, "gpu_price_per_hour", 36.0)
    place = {"r2": StorageProfile(bucket="videos", endpoint="https://r2.example.com")}
    settings = shop.runtime.settings.model_copy(update={"storage": place, "default_storage": "r2"})
    monkeypatch.setattr(shop.runtime, "settings", settings)
    page.reload()
    expect(page.locator(".about")).to_contain_text(re.compile(r"Cost\s*0\.01"))
    visit(page, shop, "queue")
    expect(page.locator(".q-cost")).to_contain_text("Cost of 1 s at work")
    expect(page.locator(".q-cost strong")).to_have_text("0.01")
    visit(page, shop, "settings")
    storage = page.locator("section", has=page.get_by_role("heading", name="Storage"))
    expect(storage).to_contain_text("s3://videos/wanreel")
    expect(storage).to_contain_text("for every video")
    workers = page.locator("section", has=page.get_by_role("heading", name="Workers"))
    expect(workers.locator("li .chip")).to_have_text("gone")  # the hand holds no lock


def test_the_copy_in_storage_is_told_and_sent_again(page: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server says of the copy is played: no storage is here."""
    place = {"r2": StorageProfile(bucket="videos", endpoint="https://r2.example.com")}
    monkeypatch.setattr(shop.runtime, "settings", shop.runtime.settings.model_copy(update={"storage": place}))
    video = shop.submit("a boat")
    shop.hand.complete(shop.hand.claim())
    upload = {"state": "failed", "storage": "r2", "attempts": 9, "outcome": "The bucket refused it.", "files": []}
    sent: list[object] = []

    def told(route: Route) -> None:
        body = route.fetch().json()
        for one in body.get("data", [body]):
            one["wanreel"]["upload"] = upload
        route.fulfill(json=body)

    def again(route: Route) -> None:
        sent.append(route.request.post_data_json)
        film = {"kind": "video", "state": "done", "bucket": "videos", "key": "wanreel/boat.mp4", "url": None}
        upload.update(state="done", outcome="", files=[film])
        body = page.request.get(f"{shop.url}/v1/videos/{video}").json()
        body["wanreel"]["upload"] = upload
        route.fulfill(json=body)

    page.route("**/v1/videos/**", told)
    page.route("**/v1/videos?**", told)
    page.route(f"**/v1/videos/{video}/upload", again)
    page.route("**/content**", lambda route: route.continue_())
    visit(page, shop, f"create?id={video}")
    line = page.locator(".upload-place")
    expect(line).to_contain_text("not copied to r2")
    expect(line).to_contain_text("The bucket refused it.")
    visit(page, shop, "library")
    expect(page.locator(".l-copy").first).to_have_attribute("aria-label", "not copied to r2")
    visit(page, shop, f"create?id={video}")
    line.get_by_role("button", name="Copy to r2 again").click()
    expect(line.locator(".chip.good")).to_have_text("saved to r2")
    expect(line).to_contain_text("s3://videos/wanreel/boat.mp4")
    assert sent == [{"storage": "r2"}]


def test_a_video_that_is_made_smaller_by_itself_is_followed(page: Page, shop: Shop) -> None:
    job_id = shop.submit("a whale", width=192, height=192, on_oom="reduce")
    running = shop.hand.claim()
    visit(page, shop, f"create?id={job_id}")
    expect(page.locator(".stage-chip")).to_be_visible()
    shop.hand.fail(running)
    made, _ = shop.service.reduce(job_id)  # as the worker does
    expect(page.locator("[data-act=parent]")).to_be_visible()
    expect(page.locator(".about")).to_contain_text("192 → 144 (memory ran out)")
    expect(page.locator(".stage-chip")).to_have_text("Waiting")
    shop.service.cancel(made.id)
