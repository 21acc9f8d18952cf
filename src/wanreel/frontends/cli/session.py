"""Opening a runtime for one command, and Ctrl-C as a cancel: the first is polite, the second is at once."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from wanreel.core.cancel import CancelToken
from wanreel.core.settings import Settings, load_settings
from wanreel.wiring import Runtime, build_runtime, build_service

if TYPE_CHECKING:
    from wanreel.frontends.telemetry import Tracing
    from wanreel.service import Service


@contextmanager
def open_runtime(*, out: Path | None = None, models_dir: Path | None = None, **more: Any) -> Generator[Runtime]:
    """The runtime of the settings, with what the command line overrides; None overrides nothing."""
    given = {name: value for name, value in more.items() if value is not None}
    for name, folder in (("outputs_dir", out), ("models_dir", models_dir)):
        if folder is not None:
            given[name] = folder.expanduser().resolve()
    runtime = build_runtime(load_settings(**given))
    try:
        yield runtime
    finally:
        runtime.close()


@contextmanager
def traced(settings: Settings, service: str) -> Generator[Tracing | None]:
    """Where spans go, if the operator wants any. Raises MissingDependency."""
    if not settings.otlp_endpoint:
        yield None
        return
    from wanreel.frontends.telemetry import open_tracing

    tracing = open_tracing(settings.otlp_endpoint, service)
    try:
        yield tracing
    finally:
        if tracing is not None:
            tracing.close()


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
