"""A studio for tests of the page: the real server in a thread, a `Hand` instead of a worker, and Debian's chromium."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import requests
from playwright.sync_api import Browser, Page, expect, sync_playwright

from frontends.http.places import Hand, artifact, serving
from frontends.ui.served import FLAGS
from wanreel.core.job import ArtifactRef, folded
from wanreel.core.picture_request import PictureRequest
from wanreel.core.request import VideoRequest
from wanreel.core.settings import load_settings
from wanreel.frontends.http.app import create_app
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.ui.studio import Studio
from wanreel.media.video import VideoFormat, VideoWriter, write_png, write_poster
from wanreel.service import Service
from wanreel.wiring import Runtime, build_runtime, build_service

CHROMIUM = "/usr/bin/chromium"
#: Where screenshots are kept for a person to look at.
PICTURES = Path(__file__).parents[3] / "build" / "screens"


@dataclass
class Shop:
    """A running studio."""

    folder: Path
    url: str
    runtime: Runtime
    service: Service
    hand: Hand

    def submit(self, prompt: str, **knobs: Any) -> str:
        """Queues a video of the demo model; its id."""
        resolution = self.service.resolve(VideoRequest(prompt=prompt, model="demo", **knobs))
        return self.service.enqueue(resolution).id

    def draw(self, prompt: str, count: int = 1) -> str:
        """A finished request for that many pictures; its id."""
        request = PictureRequest(prompt=prompt, model="tiny:sdxl-base", num_images=count, width=96, height=64, seed=5)
        job = self.service.enqueue(self.service.resolve_picture(request))
        claimed = self.hand.claim()
        assert claimed.id == job.id
        files: list[ArtifactRef] = []
        for number in range(1, count + 1):
            path = self.service.results / f"{job.id}.{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, np.full((64, 96, 3), 60 * number, np.uint8))
            files.append(artifact("picture" if number == 1 else f"picture_{number}", path, "image/png"))
        poster = self.service.results / f"{job.id}.jpg"
        write_poster(poster, np.full((64, 96, 3), 60, np.uint8))
        files.append(artifact("poster", poster, "image/jpeg"))
        self.hand.leases.complete(job.id, claimed.attempt, files[0].sha256, tuple(files), seconds=1.0)
        return job.id

    def waiting(self) -> list[str]:
        return [json.loads(job.request)["prompt"] for job in self.service.store.queued()]

    def fill(self, count: int) -> None:
        """So many finished videos at once, which share one file: "a cat, number 7 of the red ones"."""
        results = self.service.results
        results.mkdir(parents=True, exist_ok=True)
        frames = np.random.default_rng(0).integers(0, 255, (5, 64, 112, 3), dtype=np.uint8)
        with VideoWriter(results / "all.mp4", VideoFormat(112, 64, 8.0)) as writer:
            writer.write(frames)
        write_poster(results / "all.jpg", frames[0])
        request = self.service.resolve(VideoRequest(prompt="x", model="demo")).request.to_dict()
        jobs, artifacts = [], []
        for number in range(count):
            prompt = (
                f"a {'cat' if number % 2 else 'dog'}, number {number} of the {'red' if number % 3 else 'blue'} ones"
            )
            text = json.dumps({**request, "prompt": prompt})
            job_id = secrets.token_hex(16)
            jobs.append(
                (job_id, text, hashlib.sha256(text.encode()).hexdigest(), folded(prompt), number + 1, time.time())
            )
            artifacts += [(job_id, "video", "all.mp4", "video/mp4"), (job_id, "poster", "all.jpg", "image/jpeg")]
        database = sqlite3.connect(self.service.data.database)
        with database:
            database.executemany(
                "INSERT INTO jobs (id, status, request, request_sha256, model, owner, priority, turn, place, created_at,"
                " attempt, attempts_charged, saved_step, stage, step, total_steps, cancel_requested, notes, last_event,"
                " mode, words, ended_number) SELECT ?1, 'completed', ?2, ?3, 'demo', '', 0, ?5, 0, ?6, 1, 0, 0, '', 0, 0,"
                " 0, '[]', 0, 'text', ?4, ?5",
                jobs,
            )
            database.executemany(
                "INSERT INTO artifacts (job_id, kind, name, sha256, size, media_type) VALUES (?, ?, ?, '', 1, ?)",
                artifacts,
            )
        database.close()


@contextlib.contextmanager
def open_shop(folder: Path) -> Generator[Shop]:
    """A studio in a folder of its own, ready."""
    runtime = build_runtime(load_settings(data_dir=folder))
    service = build_service(runtime)
    ring = KeyRing(folder / "keys.json")
    app = create_app(
        runtime,
        service,
        Entrance(),
        ring,
        make_page=lambda house, intake: Studio(house, intake, lambda: runtime.settings, runtime.pictures.open),
    )
    try:
        with serving(app, app.begin_to_stop) as port:
            url = f"http://127.0.0.1:{port}"
            while requests.get(url, timeout=60).status_code != 200:
                time.sleep(0.2)
            yield Shop(folder, url, runtime, service, Hand(service))
    finally:
        service.close()
        runtime.close()


@contextlib.contextmanager
def open_browser() -> Generator[Browser]:
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", "0")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def visit(page: Page, shop: Shop, screen: str) -> Page:
    """The page with a screen open."""
    page.goto(f"{shop.url}/#/{screen}")
    page.wait_for_selector("html[data-ready]", state="attached")
    return page


def asked(page: Page) -> dict[str, object]:
    """What the page asks for, handed in with Generate. Nothing is queued."""
    page.route("**/v1/videos", lambda route: route.fulfill(status=429, json={"error": {"message": "Later."}}))
    with page.expect_request("**/v1/videos") as sent:
        page.locator("#generate").click()
    expect(page.locator("#generate")).to_be_enabled()
    return sent.value.post_data_json or {}
