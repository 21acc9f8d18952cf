"""One server with keys and without a worker for all tests of the group "page" that need one: its Gradio takes seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from frontends.ui.served import PATIENCE, Served, serve
from wanreel.frontends.http.keys import KeyRing

# Holds for the whole process, so it is said once: a module that said less would say it for all of them.
expect.set_options(timeout=PATIENCE)


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
