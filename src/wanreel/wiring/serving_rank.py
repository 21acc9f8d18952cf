"""A further rank, joined: a process that computes a part of what a worker runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from wanreel.core.importing import without_collecting
from wanreel.core.settings import load_settings
from wanreel.storage.digests import Digests
from wanreel.wiring.runtime import build_runtime


def serve_rank(reading: BinaryIO, writing: BinaryIO, device: str) -> int:
    """Be a rank on `device` until rank 0 says to leave. Returns the exit code."""
    with without_collecting():
        from wanreel.models.load import Memory
        from wanreel.models.open import ModelOpener
        from wanreel.models.parallel.rank import Rank
        from wanreel.models.parallel.wire import Wire
        from wanreel.models.shared import SharedParts
    wire = Wire(reading, writing)
    hello = wire.receive()
    if hello is None:
        return 1
    given: Mapping[str, Any] = hello["settings"]
    runtime = build_runtime(load_settings(**{**given, "device": device}))
    # So that the text encoder, which rank 0 alone has use for, is not loaded.
    memory = Memory(SharedParts(Digests(runtime.settings.data.digests).known))
    opener = ModelOpener(runtime.shelf, runtime.device, memory=memory)
    return Rank(
        wire,
        hello,
        runtime.device,
        lambda name, placement: opener.open_video(runtime.catalog.get(name), placement),
        runtime.loras,
    ).serve()
