"""`wanreel serve` in a process of its own, as users start it, but without the page."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path


class Served:
    """A running `wanreel serve`."""

    def __init__(self, process: subprocess.Popen[str], url: str, data: Path) -> None:
        self.process, self.url, self.data = process, url, data


@contextlib.contextmanager
def serve(data: Path, *options: str) -> Generator[Served]:
    environment = os.environ | {"WANREEL_DATA_DIR": str(data), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    # Without the page, whose Gradio takes seconds to import: the tests of the page have servers of their own.
    command = [sys.executable, "-m", "wanreel", "serve", "--port", "0", "--quiet", "--no-page", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        assert found, f"{line!r}, exit code {process.poll()}"
        yield Served(process, found[0], data)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
