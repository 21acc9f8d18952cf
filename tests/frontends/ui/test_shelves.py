"""Queue, library, models and settings in a real browser, against the real server."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from frontends.ui.shelves import PICTURES, Shop, open_shop, visit
from wanreel.core.events import PlanChanged
from wanreel.core.job import JobStatus, Search
from wanreel.core.machines import GIB, card_named, machine_of_card
from wanreel.core.settings import load_settings
from wanreel.frontends.http.settings_api import ROWS
from wanreel.media.recipe import recipe_metadata
from wanreel.media.video import VideoFormat, VideoWriter
from wanreel.wiring.forecast import Forecast
from wanreel.worker.orders import Orders

MANY = 5000
Everything = Search(status=JobStatus.COMPLETED)
SCREENS = ("queue", "library", "models", "settings")
STATIC = Path(__file__).parents[3] / "src" / "wanreel" / "frontends" / "ui" / "static"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("shop")) as shop:
        shop.fill(MANY)
        yield shop


# The library


def open_library(page: Page, shop: Shop) -> None:
    visit(page, shop, "library")
    expect(page.locator(".l-open").first).to_be_visible(timeout=30_000)


def current(page: Page) -> int:
    return int(page.evaluate("Number(document.activeElement.closest('.l-cell')?.dataset.index ?? -1)"))


def test_five_thousand_videos_of_which_few_are_drawn(page: Page, shop: Shop) -> None:
    open_library(page, shop)
    expect(page.locator(".l-count")).to_have_text(f"{shop.service.store.overview(Everything, page=60).total:,} videos")
    assert page.locator(".l-cell").count() < 60
    page.locator(".l-open").first.focus()
    page.keyboard.press("End")
    expect(page.locator(f".l-cell[data-index='{MANY - 1}'] .l-words")).to_have_text("a dog, number 0 of the blue ones")
    assert current(page) == MANY - 1
    assert page.locator(".l-cell").count() < 60
    page.keyboard.press("Home")
    expect(page.locator(".l-cell[data-index='0'] .l-words")).to_have_text(f"a cat, number {MANY - 1} of the red ones")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    tops = [cell.bounding_box() for cell in page.locator(".l-cell").all()[:10]]
    columns = sum(box["y"] == tops[0]["y"] for box in tops if box and tops[0])  # type: ignore[index]
    assert current(page) == 1 + columns


def test_search_filters_and_favourites(page: Page, shop: Shop) -> None:
    open_library(page, shop)
    page.get_by_role("searchbox").fill("number 4711 cat")
    expect(page.locator(".l-count")).to_have_text("1 video")
    expect(page.locator(".l-words")).to_have_text(["a cat, number 4711 of the red ones"])
    page.locator(".l-open").focus()
    page.keyboard.press("f")
    expect(page.locator(".l-mark")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Favourites", exact=True).click()
    expect(page.locator(".l-count")).to_have_text("1 video")
    page.get_by_role("searchbox").fill("no such words")
    expect(page.get_by_text("No video fits")).to_be_visible()
    page.get_by_role("button", name="Clear search and filters").click()
    expect(page.locator(".l-count")).to_contain_text("videos")


def test_enter_opens_arrows_leaf_and_delete_deletes(page: Page, shop: Shop) -> None:
    before = shop.service.store.overview(Everything, page=60).total
    open_library(page, shop)
    page.locator(".l-open").nth(2).focus()
    page.keyboard.press("Enter")
    dialog = page.locator(".l-details")
    expect(dialog.locator("h2")).to_have_text(page.locator(".l-cell[data-index='2'] .l-words").inner_text())
    page.keyboard.press("ArrowRight")
    expect(dialog.locator(".l-top .soft")).to_contain_text("4 of")
    expect(dialog.locator(".l-recipe")).to_contain_text("unipc")
    page.keyboard.press("Delete")
    question = page.get_by_role("dialog", name="Delete this video?")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(page.locator(".l-count")).to_have_text(f"{before - 1:,} videos")
    assert shop.service.store.overview(Everything, page=60).total == before - 1


@pytest.mark.filterwarnings("ignore:Duplicate name")  # all videos of the shop share one file
def test_several_are_chosen_with_the_keyboard_and_fetched_as_zip(page: Page, shop: Shop, tmp_path: Path) -> None:
    shop.fill(0)  # the shared file was deleted with the video before
    open_library(page, shop)
    page.locator(".l-open").first.focus()
    for key in ("x", "ArrowRight", "x", "ArrowRight", "x"):
        page.keyboard.press(key)
    expect(page.get_by_text("3 selected")).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download as ZIP").click()
    waiting.value.save_as(tmp_path / "videos.zip")
    with zipfile.ZipFile(tmp_path / "videos.zip") as archive:
        assert len(archive.infolist()) == 3 and archive.testzip() is None


def test_pictures_have_a_shelf_of_their_own_and_begin_videos(page: Page, shop: Shop) -> None:
    alone = shop.draw("a red fox in the snow")
    three = shop.draw("three foxes", 3)
    open_library(page, shop)
    assert page.locator(".l-words", has_text="fox").count() == 0
    page.get_by_role("radio", name="Pictures").check()
    expect(page.locator(".l-count")).to_have_text("2 pictures")
    expect(page.locator(".l-words")).to_have_text(["three foxes", "a red fox in the snow"])
    expect(page.get_by_label("Made from")).to_be_hidden()
    page.locator(".l-open").first.click()
    dialog = page.locator(".l-details")
    expect(dialog.locator(".l-recipe")).to_contain_text("Pictures3")
    dialog.get_by_role("button", name="Picture 3").click()
    shown = page.request.get(dialog.get_by_role("link", name="Download").get_attribute("href") or "").body()
    assert shown == (shop.service.results / f"{three}.3.png").read_bytes()
    dialog.get_by_role("button", name="Use as first picture").click()
    held = page.locator(".picture.held img")
    expect(held).to_be_visible()
    first = page.request.get(held.get_attribute("src") or "").body()
    assert np.asarray(Image.open(io.BytesIO(first)).convert("RGB"))[0, 0].tolist() == [180, 180, 180]
    page.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="From a past video").click()
    page.get_by_role("dialog").get_by_role("button", name="This picture").click()
    expect(held).to_be_visible()
    open_library(page, shop)
    for number in range(2):
        page.locator(".l-tick").nth(number).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as ZIP").click()
    assert len(zipfile.ZipFile(download.value.path()).namelist()) == 4
    page.get_by_role("button", name="Clear selection").click()
    page.locator(".l-open").nth(1).focus()
    page.keyboard.press("Delete")
    page.get_by_role("dialog", name="Delete this picture?").get_by_role("button", name="Delete").click()
    expect(page.locator(".l-words")).to_have_text(["three foxes"])
    assert not (shop.service.results / f"{alone}.1.png").exists()
    page.get_by_role("radio", name="Videos").check()
    expect(page.locator(".l-count")).to_contain_text("videos")
    shop.service.delete(three)


def test_a_dropped_video_gives_its_settings_back(page: Page, shop: Shop, tmp_path: Path) -> None:
    job = shop.service.get(shop.submit("a kite over the sea", seed=99))
    recipe = json.dumps({"wanreel": 1, "request": json.loads(job.request)})
    shop.service.cancel(job.id)
    with VideoWriter(tmp_path / "kite.mp4", VideoFormat(96, 64, 8), recipe_metadata(recipe, "kite")) as writer:
        writer.write(np.zeros((2, 64, 96, 3), np.uint8))
    open_library(page, shop)
    page.locator("input[type=file]").set_input_files(tmp_path / "kite.mp4")
    expect(page.locator("#knob-prompt")).to_have_value("a kite over the sea", timeout=15_000)
    visit(page, shop, "library")
    (tmp_path / "other.mp4").write_bytes(b"no video")
    page.get_by_label("Settings from a video").set_input_files(tmp_path / "other.mp4")
    expect(page.get_by_role("alert").filter(has_text="other.mp4")).to_be_visible()


# The queue


def test_a_running_video_is_followed_and_the_line_can_be_changed(page: Page, shop: Shop) -> None:
    ids = [shop.submit(f"waiting {number}", num_inference_steps=10) for number in range(4)]
    running = shop.hand.claim()
    visit(page, shop, "queue")
    card = page.locator(f".q-card[data-id='{running.id}']")
    shop.hand.step(running, 5, 10)
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "47", timeout=15_000)
    expect(card).to_contain_text("step 5 of 10")
    rows = page.locator(".q-line .q-words")
    expect(rows).to_have_text(["waiting 1", "waiting 2", "waiting 3"])
    page.get_by_role("button", name="Move up (Alt+↑): waiting 3").click()
    expect(rows).to_have_text(["waiting 1", "waiting 3", "waiting 2"])
    expect(page.locator(":focus")).to_have_attribute("data-keep", f"queue.up {ids[3]}")
    page.keyboard.press("Alt+ArrowUp")
    expect(rows).to_have_text(["waiting 3", "waiting 1", "waiting 2"])
    page.locator(f".q-row[data-id='{ids[2]}']").drag_to(
        page.locator(f".q-row[data-id='{ids[3]}']"), target_position={"x": 200, "y": 4}
    )
    expect(rows).to_have_text(["waiting 2", "waiting 3", "waiting 1"])
    assert shop.waiting() == ["waiting 2", "waiting 3", "waiting 1"]
    page.get_by_role("button", name="Change: waiting 2").click()
    page.get_by_label("Prompt", exact=True).fill("waiting two")
    page.get_by_label("Steps").fill("0")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".q-edit :invalid")).to_have_count(2)  # the field and its form
    page.get_by_label("Steps").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(rows.first).to_have_text("waiting two")
    assert json.loads(shop.service.get(ids[2]).request)["num_inference_steps"] == 7
    for prompt in ("waiting two", "waiting 3", "waiting 1"):
        page.get_by_role("button", name=f"Cancel: {prompt}").click()
        expect(rows.filter(has_text=prompt)).to_have_count(0)
    shop.hand.complete(running)
    expect(card).to_have_count(0)


def test_a_row_in_the_hand_is_not_drawn_anew(page: Page, shop: Shop) -> None:
    for number in range(2):
        shop.submit(f"held {number}")
    visit(page, shop, "queue")
    rows = page.locator(".q-line .q-words")
    expect(rows).to_have_text(["held 0", "held 1"])
    rows.nth(1).hover()
    page.mouse.down()
    shop.submit("newcomer")
    page.wait_for_timeout(1500)  # without a hand on it the line is drawn anew within a quarter of a second
    assert rows.count() == 2
    above = rows.nth(0).bounding_box()
    assert above is not None
    page.mouse.move(above["x"] + 20, above["y"] + above["height"] / 2, steps=5)
    page.mouse.move(above["x"] + 20, above["y"], steps=3)
    page.mouse.up()
    expect(rows).to_have_text(["held 1", "held 0", "newcomer"])
    assert shop.waiting() == ["held 1", "held 0", "newcomer"]
    for prompt in ("held 0", "held 1", "newcomer"):
        page.get_by_role("button", name=f"Cancel: {prompt}").click()
        expect(rows.filter(has_text=prompt)).to_have_count(0)


def test_a_failed_video_offers_its_cure(page: Page, shop: Shop) -> None:
    job_id = shop.submit("too large", width=192, height=192)
    shop.hand.fail(shop.hand.claim())
    visit(page, shop, "queue")
    row = page.locator(f".q-end[data-id='{job_id}']")
    expect(row).to_contain_text("There was not enough memory. Ask for less.")
    row.get_by_role("button", name="Make it smaller").click()
    page.get_by_role("button", name="Choose myself").click()
    expect(page.get_by_label("Size")).to_have_value("128x128")
    page.get_by_role("button", name="Try again").last.click()
    expect(page.locator(".q-line .q-words")).to_have_text(["too large"])
    assert json.loads(shop.service.get(job_id).request)["width"] == 128
    shop.service.cancel(job_id)


def test_pause_and_go_on(page: Page, shop: Shop) -> None:
    visit(page, shop, "queue")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused: paused on the page")).to_be_visible()
    assert shop.service.queue().paused
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Paused: paused on the page")).to_have_count(0)
    assert not shop.service.queue().paused


def test_the_machine_is_drawn(page: Page, shop: Shop) -> None:
    visit(page, shop, "queue")
    machine = page.locator(".q-stats")
    expect(machine.get_by_role("heading", name="This machine")).to_be_visible(timeout=20_000)
    expect(machine.get_by_role("meter")).to_be_visible(timeout=20_000)
    host = page.evaluate("fetch('/v1/system').then(answer => answer.json()).then(system => system.host)")
    shown = machine.get_by_text(" of ").first.inner_text()
    assert f"{host['ram_total_bytes'] / 1e9:.0f} GB" in shown


# Models and settings


def test_models_say_what_they_are_and_ask_before_they_come(page: Page, shop: Shop) -> None:
    visit(page, shop, "models")
    demo = page.locator(".m-card[data-id='demo']")
    expect(demo).to_contain_text("Apache-2.0")
    expect(demo.get_by_role("button")).to_have_count(0)  # built in: nothing to fetch, check or delete
    page.locator(".m-card[data-id='t2v-1.3b']").get_by_role("button", name="Download").click()
    question = page.get_by_role("dialog")
    expect(question).to_contain_text("Apache-2.0")
    page.keyboard.press("Escape")
    expect(question).to_have_count(0)


def test_a_model_is_loaded_and_unloaded_by_the_workers(page: Page, shop: Shop) -> None:
    """The order is the real one; what the worker tells is played, as no worker runs here."""
    held: list[str | None] = [None]

    def told(route: Route) -> None:
        body = route.fetch().json()
        worker = {"name": "one", "description": "CPU of a", "alive": True, "draining": False, "started_at": 0}
        body["workers"] = [worker | {"model": held[0], "host": None, "gpu": None, "warnings": []}]
        route.fulfill(json=body)

    page.route("**/v1/system", told)
    visit(page, shop, "models")
    demo = page.locator(".m-card[data-id='demo']")
    expect(page.locator(".m-card[data-id='t2v-1.3b']").get_by_role("button", name=re.compile("^Load:"))).to_have_count(
        0
    )
    for verb, after in (("load", "demo"), ("unload", None)):
        demo.get_by_role("button", name=re.compile(f"^{verb.capitalize()}:")).click()
        expect(demo.get_by_role("status")).to_contain_text(f"Will be {verb}ed")
        order = Orders(shop.service.data.workers).newest()
        assert order is not None and (order.verb, order.model) == (verb, "demo")
        held[0] = after
        expect(demo.get_by_role("status")).to_have_count(0)
        expect(demo.get_by_text("In memory")).to_have_count(1 if after else 0)


def test_what_fits_the_gpu_is_said_and_why(page: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    visit(page, shop, "create")
    expect(page.locator(".plan-main")).to_contain_text("steps")
    expect(page.locator(".plan .chip, [data-knob=model] option:has-text('fits')")).to_have_count(0)  # a CPU: unknown
    card = machine_of_card(card_named("RTX 3060"), host_gib=64)
    monkeypatch.setattr(Forecast, "machine", lambda _forecast: card)
    monkeypatch.setattr(
        type(shop.runtime.shelf), "has", lambda _shelf, _spec: True
    )  # plans are of models that are here
    page.reload()
    options = page.locator("#knob-model option")
    expect(options.filter(has_text="t2v-14b")).to_contain_text("fits with offload")
    page.locator("#knob-model").select_option("t2v-14b")
    expect(page.locator(".plan-main")).to_contain_text("weights flow through the GPU")
    expect(page.locator(".plan-main")).to_contain_text("10 GB of GPU memory")
    page.locator(".plan-why").click()
    expect(page.locator(".mem-why")).to_contain_text("resident needs 42.2 GiB to denoise")
    visit(page, shop, "models")
    expect(page.locator(".m-card[data-id='t2v-14b']")).to_contain_text("10 GB at its own size fits with offload")
    monkeypatch.setattr(Forecast, "machine", lambda _forecast: replace(card, gpu_free=2 * GIB))
    visit(page, shop, "create")
    page.reload()
    expect(options.filter(has_text="t2v-14b")).to_contain_text("does not fit")
    expect(page.locator(".plan .chip.bad")).to_have_text("does not fit")


def test_guided_steps_and_boundary_are_sent_where_a_model_listens(page: Page, shop: Shop) -> None:
    visit(page, shop, "create")
    page.locator("#knob-model").select_option("ti2v-5b")
    page.locator("details[data-part=sampling] summary").click()
    expect(page.locator("#knob-guided_steps")).to_have_value("0")
    expect(page.locator("#knob-boundary_ratio")).to_have_count(0)
    page.locator("#knob-model").select_option("t2v-a14b")
    expect(page.locator("#knob-boundary_ratio")).to_have_value("0.875")
    expect(page.get_by_text("noise level above 87.5 %")).to_be_visible()
    page.locator("#knob-guided_steps").fill("2")
    with page.expect_request(lambda request: "boundary_ratio" in (request.post_data or "")) as asked:
        page.locator("#knob-boundary_ratio").fill("0.8")
        page.locator("#knob-boundary_ratio").press("Tab")
    body = asked.value.post_data_json
    assert body is not None and (body["guided_steps"], body["boundary_ratio"]) == (2, 0.8)
    page.locator("#knob-model").select_option("fastwan2.1-t2v-1.3b")
    expect(page.locator("#knob-guided_steps")).to_have_count(0)


def test_a_failed_result_is_made_smaller_and_both_are_linked(page: Page, shop: Shop) -> None:
    job_id = shop.submit("far too large", width=192, height=192)
    running = shop.hand.claim()
    changed = PlanChanged(1, "denoise", 3, "resident", "streamed", same_bits=True, reason="out")
    shop.hand.leases.note(running.id, running.attempt, f"plan_changed: {changed}")
    shop.hand.fail(running)
    visit(page, shop, f"create?id={job_id}")
    expect(page.locator(".about")).to_contain_text("Denoising, step 3: memory ran out; it went on from there")
    page.locator("[data-act=cure]").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".r-changes")).to_contain_text("192 × 192")
    expect(dialog.locator(".r-changes strong")).to_have_text(["144 × 144"])
    assert shop.waiting() == []  # nothing is queued before it is agreed to
    dialog.get_by_role("button", name="Make it smaller").click()
    expect(page.locator(".stage-chip")).to_have_text("Waiting")
    made = shop.service.store.queued()[0]
    assert made.parent_id == job_id and json.loads(made.request)["width"] == 144
    page.locator("[data-act=parent]").click()
    expect(page.locator(".stage")).to_contain_text("It did not work")
    page.locator("[data-act=smaller]").click()
    expect(page.locator(".stage-chip")).to_have_text("Waiting")
    shop.service.cancel(made.id)


def test_the_plan_of_several_gpus_is_shown_before_and_while_it_runs(
    page: Page, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = replace(machine_of_card(card_named("H200"), host_gib=512), gpus=4)
    monkeypatch.setattr(Forecast, "machine", lambda _forecast: four)
    monkeypatch.setattr(type(shop.runtime.shelf), "has", lambda _shelf, _spec: True)
    visit(page, shop, "create")
    page.locator("#knob-model").select_option("t2v-a14b")
    page.locator(".plan-why").click()
    facts = page.locator(".mem-facts")
    expect(facts).to_contain_text("GPUs that share it4: both passes of guidance at once, tokens in 2 parts (Ulysses)")
    job_id = shop.submit("made by four")
    running = shop.hand.claim()
    visit(page, shop, "queue")
    card = page.locator(f".q-now [data-id='{job_id}']")
    expect(card).to_be_visible()
    expect(card.locator(".q-gpus")).to_have_count(0)
    plan = "4 ranks: cfg 2, ring 2, fsdp"
    shop.hand.leases.note(running.id, running.attempt, f"shared by {plan}")
    loaded = {"model": "demo", "device": "cuda:0", "seconds": 1.0, "plan": f"resident, {plan}"}
    shop.hand.leases.record(running.id, running.attempt, "loaded", loaded, stage="encode")
    told = "4 GPUs share it: both passes of guidance at once, tokens round a ring of 2, weights shared out"
    for width in (1440, 390):  # while it runs, of itself; and on a phone
        page.set_viewport_size({"width": width, "height": 900})
        expect(card.locator(".q-gpus")).to_have_text(told)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    visit(page, shop, f"create?id={job_id}")
    shop.hand.fail(running)
    expect(page.locator(".about")).to_contain_text(told)


def test_generate_stays_in_sight_and_covers_nothing(page: Page, shop: Shop) -> None:
    visit(page, shop, "create")
    expect(page.locator("#generate")).to_be_in_viewport(ratio=1)
    expect(page.locator(".plan-main")).to_be_in_viewport()
    page.locator("details[data-part=loras] summary").scroll_into_view_if_needed()
    page.keyboard.press("End")
    last = page.locator("details[data-part=loras] summary").bounding_box()
    bar = page.locator(".go").bounding_box()
    assert last is not None and bar is not None
    assert last["y"] + last["height"] <= bar["y"]


def test_a_file_that_is_no_lora_is_refused_in_words(page: Page, shop: Shop, tmp_path: Path) -> None:
    visit(page, shop, "models")
    expect(page.locator(".m-card[data-lora='gold']")).to_contain_text("changes 64 layers")
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    page.locator("input[type=file]").set_input_files(tmp_path / "bad.safetensors")
    expect(page.get_by_role("alert")).to_be_visible()


def test_settings_are_checked_kept_and_say_what_waits(page: Page, shop: Shop) -> None:
    visit(page, shop, "settings")
    page.get_by_label("CPU threads").fill("0")
    page.get_by_role("button", name="Save").click()
    row = page.locator("[data-name='threads']")
    expect(row.get_by_role("alert")).to_contain_text("greater than or equal to 1")
    expect(page.get_by_label("CPU threads")).to_be_focused()
    assert not (shop.folder / "config.toml").exists()
    page.get_by_label("CPU threads").fill("2")
    page.get_by_label("Longest queue").fill("55")
    expect(page.get_by_text("2 changes")).to_be_visible()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".s-restart")).to_contain_text("CPU threads")
    expect(page.locator(".s-restart")).not_to_contain_text("Longest queue")
    assert load_settings(data_dir=shop.folder).threads == 2
    assert shop.service.queue().capacity == 55
    row.get_by_role("button", name="Back to the default").click()
    expect(page.locator(".s-restart")).to_have_count(0)
    assert load_settings(data_dir=shop.folder).threads is None


def test_language_and_colours_are_kept(page: Page, shop: Shop) -> None:
    visit(page, shop, "settings")
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("heading", name="设置")).to_be_visible()
    page.get_by_text("深色", exact=True).click()
    page.reload()
    expect(page.get_by_role("heading", name="设置")).to_be_visible()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


# All of them


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(1440, "light", marks=pytest.mark.deep),
        (390, "dark"),
        pytest.param(1440, "dark", marks=pytest.mark.deep),
        pytest.param(390, "light", marks=pytest.mark.deep),
    ],
)
def test_every_screen_fits_and_has_no_serious_findings(
    browser: Browser, shop: Shop, width: int, scheme: Literal["light", "dark"]
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, locale="en-GB", reduced_motion="reduce"
    )  # type: ignore[arg-type]
    page = context.new_page()
    for screen in SCREENS:
        visit(page, shop, screen)
        page.wait_for_timeout(800)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{screen} scrolls sideways"
        page.screenshot(path=PICTURES / f"{screen}-{width}-{scheme}.png")
        found = Axe().run(page).response["violations"]
        bad = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
        assert bad == [], screen
    context.close()


def test_the_first_key_signs_this_browser_in_and_no_other(browser: Browser, page: Page, shop: Shop) -> None:
    visit(page, shop, "settings")
    page.get_by_label("Name of the new key").fill("me")
    page.get_by_role("button", name="Make a key").click()
    expect(page.get_by_text("Key me", exact=True)).to_be_visible()
    key = page.get_by_label("The new key", exact=True).input_value()
    assert key.startswith("wanreel_")
    stranger = browser.new_context().new_page()
    stranger.goto(f"{shop.url}/#/library")
    expect(stranger.get_by_label("API key")).to_be_visible()
    stranger.context.close()
    open_library(page, shop)  # this browser goes on
    visit(page, shop, "settings")
    expect(page.locator(".s-keys .s-list")).to_contain_text("me")
    assert key not in page.content()
    page.get_by_role("button", name="Revoke: me").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("No keys.")).to_be_visible()


# Words, without a browser


def test_both_languages_say_the_same_things() -> None:
    english, chinese = (json.loads((STATIC / "locales" / f"{name}.json").read_text("utf-8")) for name in ("en", "zh"))
    assert {key for key in english if key not in chinese} == set()
    extra = {key for key in chinese if key not in english}
    assert all(key.startswith("settings.help.") for key in extra), "the server's own words are the English ones"


def test_every_setting_has_words_in_both_languages() -> None:
    english, chinese = (json.loads((STATIC / "locales" / f"{name}.json").read_text("utf-8")) for name in ("en", "zh"))
    for row in ROWS:
        assert f"settings.name.{row.name}" in english and f"settings.name.{row.name}" in chinese, row.name
        assert f"settings.help.{row.name}" in chinese, row.name
