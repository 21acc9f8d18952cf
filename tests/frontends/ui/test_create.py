"""Create and Result in a real browser, against `wanreel serve` with its worker and the demo model."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect, sync_playwright

from frontends.ui.served import PATIENCE, Served, Visit, chromium, serve, visiting

pytestmark = pytest.mark.timeout(240)

Enter = Callable[..., Visit]
#: Enough steps to be seen at work and to be stopped.
LONG = "Array.from(document.querySelectorAll('details')).forEach((one) => { one.open = true; })"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as opened:
        yield opened


@pytest.fixture
def enter(browser: Browser, served: Served) -> Iterator[Enter]:
    """Opens clean profiles."""
    with ExitStack() as stack:
        yield lambda url=served.url, **options: stack.enter_context(visiting(browser, url, **options))


def set_steps(page: Page, steps: int) -> None:
    page.locator("details[data-part=sampling] summary").click()
    page.locator("#knob-num_inference_steps").fill(str(steps))
    page.locator("#knob-num_inference_steps").press("Tab")


def generate(page: Page, prompt: str, steps: int = 2) -> None:
    page.locator("#knob-prompt").fill(prompt)
    set_steps(page, steps)
    page.locator("#generate").click()


def picture(kind: str = "PNG", size: tuple[int, int] = (120, 80)) -> FilePayload:
    data = io.BytesIO()
    Image.new("RGB", size, (200, 60, 40)).save(data, kind)
    return {"name": f"photo.{kind.lower()}", "mimeType": f"image/{kind.lower()}", "buffer": data.getvalue()}


def until(page: Page, expression: str) -> None:
    """Waits until it is true. Not `wait_for_function`, which evaluates text in the page: its policy forbids that."""
    for _ in range(PATIENCE // 200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(200)
    raise AssertionError(expression)


def test_a_first_video_takes_three_clicks_and_asks_nobody_else(enter: Enter) -> None:
    visit = enter()
    page = visit.open()
    page.locator("#examples").click()
    page.locator(".example").first.click()
    expect(page.locator("#knob-prompt")).to_have_value(re.compile("circle"))
    page.locator("#generate").click()
    expect(page.locator(".meter")).to_be_visible()
    video = page.locator("video.player")
    expect(video).to_be_visible()
    until(
        page, "document.querySelector('video.player').readyState >= 2 && !document.querySelector('video.player').paused"
    )
    assert "/v1/videos/" in str(video.get_attribute("src"))
    assert visit.foreign() == []
    assert visit.complaints == []


def test_a_picture_in_a_format_the_server_refuses_becomes_a_video_and_goes_on(enter: Enter) -> None:
    page = enter().open()
    page.get_by_role("radio", name="Image → video").check(force=True)
    page.locator("#knob-image-file").set_input_files(files=[picture("BMP")])
    expect(page.locator(".picture.held img")).to_be_visible()
    expect(page.locator("[data-knob=aspect] input[value=picture]")).to_be_checked()
    generate(page, "the camera pans left")
    expect(page.locator("video.player")).to_be_visible()
    page.locator("[data-act=continue]").click()
    expect(page.locator(".picture.held .soft, .picture-field .soft").first).to_contain_text("×")
    page.locator("#knob-image").click()  # position it
    page.get_by_role("radio", name="Show all of it").check(force=True)
    page.get_by_role("button", name="Use it so").click()
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.locator(".picture.held img")).to_be_visible()


def test_what_is_missing_is_said_where_it_is_missing(enter: Enter) -> None:
    visit = enter()
    held: list[Route] = []
    visit.page.route("**/v1/plan", lambda route: held.append(route))  # a function, as Playwright marks it
    page = visit.open()
    with page.expect_request("**/v1/plan"):
        page.locator("#knob-copies").select_option("2")
    page.locator("#generate").click()
    expect(page.locator("[data-knob=prompt] .fault")).to_contain_text("Say what happens")
    with page.expect_response("**/v1/plan"):  # a plan without faults, asked for before
        held[-1].continue_()
    page.unroute("**/v1/plan")
    page.locator("#knob-model").select_option("t2v-a14b")  # draws the form anew
    expect(page.locator("[data-knob=prompt] .fault")).to_contain_text("Say what happens")
    expect(page.locator("#knob-prompt")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("radio", name="Exact").check(force=True)
    page.locator("#knob-width").fill("9000")
    page.locator("#knob-width").press("Tab")
    expect(page.locator("[data-knob=width] .fault")).to_contain_text("not within")


def test_controls_follow_the_model(enter: Enter) -> None:
    page = enter().open()
    page.locator("#knob-model").select_option("t2v-a14b")
    page.evaluate(LONG)
    expect(page.locator("#knob-guidance_low")).to_have_value("3")
    expect(page.locator("#knob-guidance_high")).to_have_value("4")
    expect(page.get_by_text("high-noise one makes the early steps")).to_be_visible()
    expect(page.locator("#knob-negative_prompt")).to_have_value(re.compile("静态"))
    expect(page.locator("[data-knob=resolution] input[value='720P']")).to_be_checked()
    page.locator("#knob-model").select_option("fastwan2.1-t2v-1.3b")
    for gone in ("#knob-guidance_low", "#knob-num_inference_steps", "#knob-negative_prompt"):
        expect(page.locator(gone)).to_have_count(0)
    page.locator("#knob-model").select_option("i2v-a14b")  # makes nothing from text: its tab opens
    expect(page.get_by_role("radio", name="Image → video")).to_be_checked()
    expect(page.locator("#knob-image")).to_be_visible()


def test_keyboard_alone_cancel_and_going_on(enter: Enter) -> None:
    page = enter().open()
    set_steps(page, 90)
    page.locator("#knob-prompt").focus()
    page.keyboard.type("a blue square moves up over a white background")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".progress-text")).to_contain_text("Step")
    assert "%" in page.title()
    page.keyboard.press("Escape")
    expect(page.locator(".stage")).to_contain_text("Stopped")
    assert page.title() == "Wanreel"
    page.locator("[data-act=retry]").click()
    expect(page.locator(".progress-text")).to_contain_text("Step")
    page.locator("#cancel").click()
    expect(page.locator(".stage")).to_contain_text("Stopped")


def test_a_reload_and_a_restart_in_mid_run_lose_nothing(enter: Enter, served: Served) -> None:
    page = enter().open()
    generate(page, "a green ring grows slowly over a black background", steps=60)
    expect(page.locator(".progress-text")).to_contain_text(re.compile(r"Step \d+ of 60"))
    page.reload()
    expect(page.locator(".progress-text")).to_contain_text(re.compile(r"Step \d+ of 60"))
    expect(page.locator("#knob-prompt")).to_have_value(re.compile("green ring"))
    served.stop()
    expect(page.locator(".live")).to_contain_text("Connection lost")
    # Its dot breathes for those who don't mind; this visitor asked for less motion.
    assert page.evaluate("document.getAnimations().every((one) => one.effect.getTiming().iterations === 1)")
    served.start()
    expect(page.locator(".live")).to_be_hidden()
    expect(page.locator("video.player")).to_be_visible(timeout=PATIENCE)


def test_variations_are_compared_in_step(enter: Enter) -> None:
    page = enter().open()
    page.locator("#knob-copies").select_option("2")
    generate(page, "a yellow star spins over a blue background")
    expect(page.locator(".thumb[data-status=completed][title^='a yellow star']")).to_have_count(2)
    expect(page.locator("video.player")).to_be_visible()
    page.locator("[data-act=compare]").click()
    page.locator(".past-video.pick").first.click()
    expect(page.locator(".compare video")).to_have_count(2)
    until(
        page,
        "(() => { const [a, b] = document.querySelectorAll('.compare video');"
        " return a.readyState > 1 && b.readyState > 1 && a.currentTime > 0.2 && Math.abs(a.currentTime - b.currentTime) < 0.3; })()",
    )


def test_a_video_dropped_on_the_page_gives_its_settings_back(enter: Enter, served: Served) -> None:
    job = httpx.get(f"{served.url}/v1/videos?status=completed&limit=1").json()["data"][0]
    data = httpx.get(f"{served.url}/v1/videos/{job['id']}/content").content
    page = enter().open()
    page.evaluate(
        """async ([bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "mine.mp4", {type: "video/mp4"}));
          document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        [list(data)],
    )
    expect(page.locator("#knob-prompt")).to_have_value(job["prompt"])
    expect(page.locator("#knob-seed")).to_have_value(str(job["seed"]))


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1440, "light"),
        pytest.param(1440, "dark", marks=pytest.mark.deep),
        pytest.param(390, "light", marks=pytest.mark.deep),
        (390, "dark"),
    ],
)
def test_it_is_accessible_and_fits(enter: Enter, tmp_path: Path, width: int, scheme: str) -> None:
    page = enter(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True).open()
    for mode in ("text", "picture", "first_last"):
        page.locator(f"[data-knob=mode] input[value={mode}]").check(force=True)
        page.evaluate(LONG)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), mode
    page.screenshot(path=tmp_path / f"create-{width}-{scheme}.png", full_page=True)


def test_the_other_language_is_whole(enter: Enter) -> None:
    page = enter().open()
    page.get_by_role("button", name="中文界面").click()
    expect(page.locator("#generate")).to_contain_text("生成")
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    assert page.evaluate(r"/\b(knob|mode|plan|result|stage)\.[a-z_]+/.test(document.body.innerText)") is False


@pytest.mark.deep
def test_eight_tabs_share_one_connection(enter: Enter) -> None:
    visit = enter()
    pages = [visit.page, *(visit.context.new_page() for _ in range(7))]
    streams: list[str] = []
    for page in pages:
        page.on("request", lambda request: streams.append(request.url) if request.url.endswith("/v1/events") else None)
        page.goto(visit.url)
        page.wait_for_selector("html[data-ready]")
    assert len(streams) == 1
    generate(pages[0], "a white circle stays still over a red background")
    expect(pages[0].locator("video.player")).to_be_visible()
    pages[0].close()
    pages[1].wait_for_timeout(500)
    generate(pages[1], "a pink circle stays still over a red background")
    expect(pages[1].locator("video.player")).to_be_visible()


def test_people_with_keys_sign_in_and_see_their_own_alone(
    browser: Browser, keyed: tuple[Served, dict[str, str]]
) -> None:
    served, keys = keyed
    with ExitStack() as stack:
        visits = {name: stack.enter_context(visiting(browser, served.url)) for name in ("cleo", "dan")}
        for name, visit in visits.items():
            visit.page.goto(served.url)
            expect(visit.page.get_by_label("API key")).to_be_focused()
            visit.page.keyboard.type(keys[name])
            visit.page.keyboard.press("Enter")
            visit.page.wait_for_selector("html[data-ready]", timeout=PATIENCE)
        cleo, dan = visits["cleo"].page, visits["dan"].page
        cleo.locator("#knob-prompt").fill("a secret of hers")
        cleo.locator("#generate").click()
        expect(cleo.locator(".thumb")).to_have_count(1)
        dan.reload()
        dan.wait_for_selector("html[data-ready]")
        expect(dan.locator("#generate")).to_be_enabled()
        expect(dan.locator(".thumb")).to_have_count(0)
        headers = {"X-API-Key": keys["cleo"]}
        mine = httpx.get(f"{served.url}/v1/videos", headers=headers).json()["data"][0]["id"]
        assert dan.evaluate("async (id) => (await fetch(`/v1/videos/${id}`)).status", mine) == 404
        assert "wanreel_" not in cleo.evaluate("document.cookie + location.href")
        cleo.get_by_role("button", name="Sign out").click()
        expect(cleo.get_by_label("API key")).to_be_visible()
        assert httpx.post(f"{served.url}/v1/videos/{mine}/cancel", headers=headers).status_code == 200
