"""Opening a runtime for one command, and Ctrl-C as a cancel: the first is polite, the second is at once."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from wanreel.core.cancel import CancelToken
from wanreel.core.settings import load_settings
from wanreel.wiring import Runtime, build_runtime, build_service

if TYPE_CHECKING:
    from wanreel.service import Service


@contextmanager
def open_runtime(
    *, out: Path | None = None, device: str | None = None, download: bool | None = None
) -> Generator[Runtime]:
    """The runtime of the settings, with what the command line overrides."""
    given: dict[str, Any] = {}
    if out is not None:
        given["outputs_dir"] = out.expanduser().resolve()
    if device is not None:
        given["device"] = device
    if download is not None:
        given["download"] = download
    runtime = build_runtime(load_settings(**given))
    try:
        yield runtime
    finally:
        runtime.close()


@contextmanager
def interruptible() -> Generator[CancelToken]:
    """A token that Ctrl-C or SIGTERM sets. A second one interrupts at once."""
    cancel = CancelToken()

    def ask(signum: int, frame: FrameType | None) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel("interrupted")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def open_service(*, download: bool | None = None) -> Generator[tuple[Runtime, Service]]:
    """The queue of the data directory, and the runtime beside it."""
    with open_runtime(download=download) as runtime:
        service = build_service(runtime)
        try:
            yield runtime, service
        finally:
            service.close()
