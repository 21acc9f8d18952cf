"""What tests of the page share: a page in a browser, and a server with keys and without a worker, as Gradio takes seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from frontends.ui.served import PATIENCE, Served, serve
from frontends.ui.shelves import CHROMIUM, Shop, open_browser, open_shop
from wanreel.frontends.http.keys import KeyRing

# Holds for the whole process, so it is said once: a module that said less would say it for all of them.
expect.set_options(timeout=PATIENCE)


#: Gradio's and Playwright's, where they run in the tests' own process: loops left open, names that go.
FOREIGN = ("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and "shop" in getattr(item, "fixturenames", ()):
            for warning in FOREIGN:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("needs chromium")
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with open_shop(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when a script of it failed."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB", reduced_motion="reduce")
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == []


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    """With the page ready, and everybody's key. Who queues a video takes it away again."""
    data = tmp_path_factory.mktemp("keyed")
    ring = KeyRing(data / "keys.json")
    keys = {name: ring.create(name) for name in ("ann", "bob", "cleo", "dan")}
    with serve(data, "--api-only") as served:
        headers = {"X-API-Key": keys["ann"]}
        began = time.monotonic()
        while httpx.get(served.url, headers=headers).status_code != 200:
            assert time.monotonic() - began < 60
            time.sleep(0.2)
        yield served, keys
