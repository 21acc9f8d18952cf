"""What open pages cost the server, and how quickly it answers a page while a video is made.

    python scripts/bench_page.py [--pages 200] [--seconds 20] [--asks 200] [--browsers 0]

Starts `wanreel serve` with its worker and the demo model, holds one event stream a page as a page does, and measures the
server's process (not the worker's) with psutil. `--browsers N` opens N real pages with Playwright's Chromium besides.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx
import psutil

#: What a page asks for: itself, its files, and what its screens show.
ANSWERS = (
    "/",
    "/studio/static/app.js",
    "/studio/static/css/studio.css",
    "/studio/setup",
    "/v1/videos?limit=20",
    "/v1/queue/videos",
    "/v1/library?limit=60",
    "/v1/system",
)
SETTLE = 5.0  # seconds between opening the pages and measuring


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200, help="event streams held open")
    parser.add_argument("--seconds", type=float, default=20.0, help="over which processor time is measured")
    parser.add_argument("--asks", type=int, default=200, help="times each answer is asked for while a video is made")
    parser.add_argument("--browsers", type=int, default=0, help="real pages, of profiles of their own")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with TemporaryDirectory() as scratch, serving(Path(scratch)) as (url, server):
        idle(url, server, options.pages, options.seconds, options.browsers)
        answers(url, options.asks)
    print(f"load {os.getloadavg()[0]:.1f} after")
    return 0


@contextlib.contextmanager
def serving(data: Path) -> Generator[tuple[str, psutil.Process]]:
    """The server's address and process, when its page is there and its worker is idle."""
    given = {**os.environ, "WANREEL_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "wanreel", "serve", "--port", "0", "--quiet"]
    process = subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        assert found is not None, "the server did not start"
        began = time.monotonic()
        while httpx.get(f"{found[0]}/config").status_code != 200:
            time.sleep(0.1)
        print(f"page usable {time.monotonic() - began:.1f} s after the first answer")
        while httpx.get(f"{found[0]}/ready").status_code != 200:
            time.sleep(0.1)
        make(found[0], steps=1)  # brings the model into the worker's memory
        yield found[0], psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def make(url: str, *, steps: int, wait: bool = True) -> str:
    """Queue a demo video, and wait for its end. Its id."""
    job = {"prompt": "a red circle moves right", "model": "demo", "num_inference_steps": steps}
    video = httpx.post(f"{url}/v1/videos", json=job).raise_for_status().json()["id"]
    while wait and httpx.get(f"{url}/v1/videos/{video}").json()["status"] not in ("completed", "failed"):
        time.sleep(0.2)
    return video


def idle(url: str, server: psutil.Process, pages: int, seconds: float, browsers: int) -> None:
    """Processor time and memory with no page, and with so many."""
    _show_cost("no page", server, seconds, server.memory_info().rss)
    before = server.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(pages):
            stack.enter_context(contextlib.closing(_stream(url)))
        if browsers:
            stack.enter_context(_browsers(url, browsers))
        time.sleep(SETTLE)
        _show_cost(f"{pages} streams and {browsers} browsers", server, seconds, before)


def _stream(url: str) -> socket.socket:
    """An event stream as a page holds it."""
    host, _, port = url.removeprefix("http://").partition(":")
    stream = socket.create_connection((host, int(port)))
    stream.sendall(f"GET /v1/events HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
    assert b" 200 " in stream.recv(4096)
    return stream


@contextlib.contextmanager
def _browsers(url: str, count: int) -> Generator[None]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for _ in range(count):
            page = browser.new_context().new_page()
            page.goto(url)
            page.wait_for_selector("html[data-ready]")
        yield
        browser.close()


def _show_cost(title: str, server: psutil.Process, seconds: float, before: int) -> None:
    first = server.cpu_times()
    time.sleep(seconds)
    last = server.cpu_times()
    share = (last.user + last.system - first.user - first.system) / seconds
    resident = server.memory_info().rss
    print(f"{title}: {share:.2%} of a core, {resident / 1e6:.0f} MB resident, {(resident - before) / 1e6:+.1f} MB")


def answers(url: str, count: int) -> None:
    """How long each answer takes while the worker makes videos, asked for one at a time."""
    videos = [make(url, steps=100, wait=False) for _ in range(3)]
    while httpx.get(f"{url}/v1/videos/{videos[0]}").json()["status"] == "queued":
        time.sleep(0.1)
    taken: dict[str, list[float]] = {path: [] for path in ANSWERS}
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(count):
            for path in ANSWERS:
                began = time.perf_counter()
                client.get(path).raise_for_status()
                taken[path].append((time.perf_counter() - began) * 1000)
        running = any(client.get(f"/v1/videos/{video}").json()["status"] == "in_progress" for video in videos)
        for video in videos:
            client.post(f"/v1/videos/{video}/cancel")
    print(f"{'answer':28} median    p95    max  ms, {count} times, a video being made: {running}")
    for path, times in taken.items():
        print(f"{path:28} {median(times):6.1f} {sorted(times)[int(count * 0.95)]:6.1f} {max(times):6.1f}")


if __name__ == "__main__":
    raise SystemExit(main())
