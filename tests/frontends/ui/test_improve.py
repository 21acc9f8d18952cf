"""Improve prompt: both texts side by side, taken and taken back, in two languages and two widths, in a real browser."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from frontends.ui.shelves import PICTURES, Shop, asked, visit

WRITTEN = "a red fox in the snow, static camera, camera pans left"


def shot(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_a_better_prompt_is_taken_and_taken_back(page: Page, shop: Shop) -> None:
    page.set_viewport_size({"width": 1440, "height": 1000})
    visit(page, shop, "create")
    prompt, panel = page.locator("#knob-prompt"), page.locator("#improve-panel")
    prompt.fill(WRITTEN)
    page.locator("#improve").click()
    pair = panel.locator(".improve-text")
    expect(pair.nth(0)).to_contain_text(WRITTEN)
    expect(pair.nth(1)).to_contain_text("fine detail")
    expect(pair.nth(1)).not_to_contain_text("pans left")
    expect(panel).to_contain_text("of 512 tokens")
    expect(panel.locator(".improve-changes")).to_contain_text("contradicts")
    expect(prompt).to_have_value(WRITTEN)  # nothing is replaced by itself
    boxes = [pair.nth(at).bounding_box() for at in (0, 1)]
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"]
    found = Axe().run(page, "#improve-panel").response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    shot(page, "improve-1440-en")
    panel.get_by_role("button", name="Use this one").click()
    better = prompt.input_value()
    assert "fine detail" in better and asked(page)["original_prompt"] == WRITTEN
    panel.get_by_role("button", name="Back to mine").click()
    expect(prompt).to_have_value(WRITTEN)
    assert "original_prompt" not in asked(page)
    page.locator("#improve").click()
    panel.get_by_role("button", name="Keep mine").click()
    expect(panel).to_be_hidden()
    expect(prompt).to_have_value(WRITTEN)
    may_be_changed_first(page)


def may_be_changed_first(page: Page) -> None:
    """A start picture takes an instruction after which it is edited."""
    page.locator("[data-knob=mode] label", has_text="Image").first.click()
    page.locator("details[data-part=keyframe] summary").click()
    page.locator("#knob-edit_prompt").fill("make it night")
    shot(page, "keyframe-1440")
    values = page.evaluate("JSON.parse(localStorage.getItem('wanreel.draft')).tabs.picture")
    assert values["edit_prompt"] == "make it night"


def test_on_a_phone_in_chinese_one_stands_below_the_other(page: Page, shop: Shop) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_init_script("localStorage.setItem('wanreel.language', JSON.stringify('zh'))")
    visit(page, shop, "create")
    page.locator("#knob-prompt").fill("一只狐狸在雪地里奔跑，固定镜头，镜头左移")
    page.locator("#improve").click()
    pair = page.locator(".improve-text")
    expect(pair.nth(1)).to_contain_text("细节丰富")
    boxes = [pair.nth(at).bounding_box() for at in (0, 1)]
    assert boxes[0] and boxes[1] and boxes[1]["y"] > boxes[0]["y"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shot(page, "improve-390")
