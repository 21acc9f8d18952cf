"""The sweep screen in a real browser: axes are counted and handed in, the grid fills, files are offered."""

from __future__ import annotations

import json

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from frontends.ui.shelves import Shop, visit
from wanreel.service.sweeps import Sweeps
from wanreel.worker.gathering import Gatherer
from wanreel.worker.sweeps import KIND, SweepSheets


def test_a_sweep_on_the_page(page: Page, shop: Shop) -> None:
    visit(page, shop, "sweep")
    page.locator("#sw-prompt").fill("a kite")
    page.locator("#sw-axis-0-values").fill("1, 2")
    expect(page.locator(".sw-count")).to_have_text("2 videos")
    page.locator("#sw-axis-1-values").fill(", ".join(str(n) for n in range(1, 41)))
    expect(page.locator(".sw-count")).to_contain_text("80 videos are too many")
    expect(page.locator("#sw-make")).to_be_disabled()
    page.locator("#sw-axis-1-values").fill("wobble")
    page.locator("#sw-make").click()
    expect(page.locator("#sw-fault")).to_contain_text("wobble")
    page.locator("#sw-axis-1-values").fill("1, 3:4")
    page.locator("#sw-title").fill("Kites")
    page.locator("#sw-make").click()
    cells = page.locator(".sw-cell")
    expect(cells).to_have_count(4)
    expect(cells.nth(1)).to_contain_text("seed 1")
    expect(cells.nth(1)).to_contain_text("guidance 3 : 4")
    (view,) = Sweeps(shop.service).list(owner=None)
    assert (view.group.title, len(view.jobs)) == ("Kites", 4)
    assert {json.loads(job.request)["prompt"] for job in view.jobs} == {"a kite"}
    shop.hand.complete(shop.hand.claim())
    expect(page.locator(".sw-cell[data-status=completed] img")).to_have_count(1)
    page.locator("[data-act=cancel]").click()
    expect(page.locator(".sw-cell[data-status=cancelled]")).to_have_count(3)
    sheets = SweepSheets(shop.service.store, shop.service.results)
    assert Gatherer(shop.service.store, {KIND: sheets.finish}).gather("hand")
    expect(page.locator(".sw-status")).to_have_text("completed")
    expect(page.locator(".sw-sheet")).to_be_visible()
    expect(page.locator(".sw-files a")).to_have_count(4)
    found = Axe().run(page, "#studio-sweep").response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("[data-act=delete]").click()
    page.locator("dialog .danger").click()
    expect(page.locator(".sw-cell")).to_have_count(0)
    assert Sweeps(shop.service).list(owner=None) == ()


def test_finishing_is_asked_for_from_the_form(page: Page, shop: Shop) -> None:
    network = shop.runtime.settings.upscalers_dir / "fine"
    network.mkdir(parents=True)
    facts = {"model_type": "swin2sr", "upscale": 2, "upsampler": "pixelshuffle", "window_size": 8}
    (network / "config.json").write_text(json.dumps(facts))
    (network / "model.safetensors").write_bytes(b"-")
    visit(page, shop, "create")
    page.locator("#knob-prompt").fill("a kite")
    part = page.locator("details[data-part=finish]")
    part.locator("summary").click()
    there_and_back = page.locator("input[value=boomerang]")
    part.locator("[data-knob=loop] label", has=there_and_back).click()  # waits until what opened lies still
    expect(there_and_back).to_be_checked()
    part.locator("#knob-speed").fill("0.5")
    part.locator("#knob-speed").press("Tab")
    part.locator("#knob-interpolate_fps").select_option("30")
    part.locator("#knob-upscaler").select_option("fine")
    expect(part.locator("[data-knob=upscale] input[value='2']")).to_be_checked()
    page.route("**/v1/videos", lambda route: route.fulfill(status=429, json={"error": {"message": "Later."}}))
    with page.expect_request("**/v1/videos") as sent:
        page.locator("#generate").click()
    body = sent.value.post_data_json or {}
    assert (body["loop"], body["speed"], body["interpolate_fps"]) == ("boomerang", 0.5, 30)
    assert (body["upscaler"], body["upscale"]) == ("fine", 2)
    assert not {"trim_start", "trim_end", "audio"} & body.keys()
