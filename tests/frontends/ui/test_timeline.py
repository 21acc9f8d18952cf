"""Timeline and Continue in a real browser: a storyboard is written, rendered, redone and shown, and a video goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from frontends.ui.shelves import PICTURES, Shop, visit
from wanreel.media.stills import save_png
from wanreel.service.storyboards import Storyboards, StoryboardView
from wanreel.wiring import build_worker

pytestmark = pytest.mark.timeout(240)


def work(shop: Shop) -> None:
    build_worker(shop.runtime).run(once=True)


def board(shop: Shop) -> StoryboardView:
    return Storyboards(shop.service).list(owner=None)[0]


def quick(page: Page) -> None:
    """Small clips, whatever the page asks for: it has no control for them."""

    def smaller(route: Any) -> None:
        json = {**route.request.post_data_json, "num_frames": 5, "num_inference_steps": 1, "width": 64, "height": 64}
        json.pop("seconds", None)
        route.continue_(post_data=json)

    page.route(
        "**/v1/storyboards", lambda route: smaller(route) if route.request.method == "POST" else route.fallback()
    )


def open_timeline(page: Page, shop: Shop) -> None:
    visit(page, shop, "timeline")
    expect(page.locator(".t-scene").first).to_be_visible()


def test_a_storyboard_is_written_rendered_and_one_scene_redone(page: Page, shop: Shop, tmp_path: Path) -> None:
    quick(page)
    open_timeline(page, shop)
    page.get_by_label("Title", exact=True).fill("A walk")
    page.get_by_label("Model", exact=True).select_option("demo")
    save_png(tmp_path / "first.png", np.full((64, 64, 3), 90, np.uint8))
    page.locator("#t-start-0").select_option("keyframe")
    page.locator("#t-keyframe-0").set_input_files(tmp_path / "first.png")
    expect(page.locator(".t-scene").first).to_contain_text("first.png")
    page.locator("#t-prompt-0").fill("a red circle")
    for number, words in enumerate(("it moves on", "and further"), 1):
        page.get_by_role("button", name="Add scene").press("Enter")
        expect(page.locator(f"#t-prompt-{number}")).to_be_focused()
        page.keyboard.type(words)
    page.get_by_role("button", name="Render").click()
    expect(page.locator(".t-scene .chip", has_text="Queued")).to_have_count(3)
    ids = [job.id for job in board(shop).jobs]
    work(shop)
    expect(page.locator(".t-side .chip")).to_have_text("Done")
    expect(page.locator(".t-stage video")).to_be_visible()
    expect(page.locator(".t-side")).to_contain_text("All 3 scenes")
    expect(page.locator(".t-side")).to_contain_text("joined without loss")
    expect(page.locator(".t-thumb img")).to_have_count(3)
    expect(page.locator(".t-scene").nth(1)).to_contain_text("ΔE")
    page.get_by_role("button", name="Make again: scene 2").click()
    expect(page.locator(".t-scene .chip", has_text="Queued")).to_have_count(2)
    assert [one == other for one, other in zip(ids, [job.id for job in board(shop).jobs], strict=True)] == [
        True,
        False,
        False,
    ]
    work(shop)
    expect(page.locator(".t-side .chip")).to_have_text("Done")


def test_scenes_are_reordered_by_the_keyboard_and_only_what_changed_is_rendered(page: Page, shop: Shop) -> None:
    if not Storyboards(shop.service).list(owner=None):
        pytest.skip("needs the storyboard of the test before")
    open_timeline(page, shop)
    page.get_by_label("Storyboard", exact=True).select_option(index=1)
    expect(page.locator(".t-scene")).to_have_count(3)
    page.locator("#t-start-2").select_option("text")
    page.get_by_role("button", name="Earlier: scene 3").press("Enter")
    expect(page.get_by_role("button", name="Earlier: scene 2")).to_be_focused()
    expect(page.locator("#t-prompt-1")).to_have_value("and further")
    before = [job.id for job in board(shop).jobs]
    page.get_by_role("button", name="Render changes").click()
    expect(page.locator(".t-scene .chip", has_text="Queued")).to_have_count(2)
    assert [job.id for job in board(shop).jobs][0] == before[0]
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".t-scene .chip", has_text="Stopped")).to_have_count(2)
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".t-scene")).to_have_count(1)
    assert Storyboards(shop.service).list(owner=None) == ()


def test_what_is_wrong_is_said_by_scene(page: Page, shop: Shop) -> None:
    open_timeline(page, shop)
    page.get_by_role("button", name="Render").click()
    expect(page.get_by_role("alert")).to_contain_text("scenes[1].prompt")


def test_continue_queues_a_video_that_goes_on_from_the_one_shown(page: Page, shop: Shop) -> None:
    shop.submit("a red circle moves", num_frames=5, num_inference_steps=1, width=64, height=64)
    work(shop)
    visit(page, shop, "create")
    expect(page.locator("video.player")).to_be_visible()
    page.locator("[data-act=extend]").click()
    page.get_by_label("What happens next").fill("it falls")
    page.get_by_role("dialog").get_by_role("button", name="Continue").click()
    expect(page.locator(".result .progress")).to_be_visible()
    (job,) = [job for job in shop.service.store.queued() if job.parent_id]
    work(shop)
    expect(page.locator("video.player")).to_be_visible()
    told = requests.get(f"{shop.url}/v1/videos/{job.id}", timeout=30).json()
    assert told["status"] == "completed" and float(told["seconds"]) > 5 / 8
    assert "whole" in shop.service.files(job.id)


@pytest.mark.parametrize(("width", "scheme", "language"), [(1440, "light", "en-GB"), (390, "dark", "zh-CN")])
def test_the_timeline_fits_and_has_no_serious_findings(
    browser: Browser, shop: Shop, width: int, scheme: Literal["light", "dark"], language: str
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, locale=language, reduced_motion="reduce"
    )
    page = context.new_page()
    open_timeline(page, shop)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    page.screenshot(path=PICTURES / f"timeline-{width}-{scheme}.png")
    found = Axe().run(page).response["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")
    ] == []
    with Image.open(PICTURES / f"timeline-{width}-{scheme}.png") as picture:
        assert picture.width == width
    context.close()
