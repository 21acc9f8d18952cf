"""`wanreel serve` as users start it, with its worker and the demo model, for tests in a real browser."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, Playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ARGUMENTS = [*FLAGS, "--autoplay-policy=no-user-gesture-required"]
#: Milliseconds that a browser waits: the machine may be busy with other tests.
PATIENCE = 120_000


@dataclass
class Served:
    """A server that can be stopped and started again at the same place."""

    data: Path
    options: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = os.environ | {"WANREEL_DATA_DIR": str(self.data), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "wanreel", "serve", "--port", str(self.port), "--quiet", *self.options]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://[\d.]+:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise AssertionError(f"it left with {self.process.wait()}")

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def wait_for_page(self) -> float:
        """Seconds until the page is there."""
        began = time.monotonic()
        while time.monotonic() - began < PATIENCE / 1000:
            with contextlib.suppress(httpx.TransportError):
                # Without a key it leads to the sign-in screen as soon as the server answers.
                if httpx.get(self.url).status_code in (200, 303):
                    return time.monotonic() - began
            time.sleep(0.1)
        raise AssertionError("the page never came")


@contextlib.contextmanager
def serve(data: Path, *options: str) -> Generator[Served]:
    served = Served(data, options)
    served.start()
    try:
        served.wait_for_page()
        yield served
    finally:
        served.stop()


@contextlib.contextmanager
def chromium(playwright: Playwright) -> Generator[Browser]:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
    try:
        yield browser
    finally:
        browser.close()


@dataclass
class Visit:
    """One person's browser, and everything it asked for and complained of."""

    context: BrowserContext
    page: Page
    url: str
    asked: list[str] = field(default_factory=list[str])
    complaints: list[str] = field(default_factory=list[str])

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.url + path)
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def foreign(self) -> list[str]:
        """Addresses asked for that are not the server's."""
        return [address for address in self.asked if not address.startswith((self.url, "blob:", "data:"))]


@contextlib.contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Generator[Visit]:
    defaults: dict[str, Any] = {
        "locale": "en-GB",
        "viewport": {"width": 1440, "height": 900},
        "reduced_motion": "reduce",
    }
    context = browser.new_context(**(defaults | options))
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    visit = Visit(context, page, url)
    page.on("request", lambda request: visit.asked.append(request.url))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("console", lambda message: visit.complaints.append(message.text) if _is_fault(message.text) else None)
    try:
        yield visit
    finally:
        context.close()


def _is_fault(text: str) -> bool:
    return "Content Security Policy" in text or "Uncaught" in text
