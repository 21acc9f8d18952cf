"""How long it takes from the start of a process to a job's first step: a real worker, cold from the disk and warm from memory.

Times are those of the job's own record, so what is measured is what a user waits for.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wanreel.core.bench import Figure
from wanreel.core.errors import GenerationError
from wanreel.core.job import JobEvent
from wanreel.core.request import VideoRequest
from wanreel.core.settings import environment_with, load_settings
from wanreel.host import forget_cached
from wanreel.wiring.queue import build_service
from wanreel.wiring.runtime import Runtime, build_runtime

#: Packages whose files a worker reads.
_PACKAGES = (
    "wanreel", "torch", "diffusers", "transformers", "tokenizers", "safetensors", "accelerate", "numpy", "av", "PIL",
    "sqlalchemy", "pydantic", "pydantic_core",
)  # fmt: skip
_TIMES = 3


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds of one process until its first step was done."""

    claim: float  #: from its start until it had the job: the interpreter, small libraries, the database
    libraries: float  #: torch, Diffusers and what they bring in
    model: float
    prompts: float
    step: float  #: the first one

    @classmethod
    def of(cls, began: float, events: tuple[JobEvent, ...]) -> Start:
        """From the record of its job. `began`: wall clock."""
        found = {event.kind: event for event in events}
        claimed, loaded, encoded = (found[kind] for kind in ("claimed", "loaded", "encoded"))
        model = float(loaded.data["seconds"])
        return cls(
            claim=claimed.at - began,
            libraries=loaded.at - claimed.at - model,
            model=model,
            prompts=encoded.at - loaded.at,
            step=float(found["measured"].data["denoise"]),
        )

    @property
    def total(self) -> float:
        """Until the first step began."""
        return self.claim + self.libraries + self.model + self.prompts


_NOTES = {
    "claim": "the interpreter, small libraries, the job database",
    "libraries": "torch, Diffusers",
    "model": "",
    "prompts": "the text encoder",
    "step": "the first one, with what it warms up",
}


def start(runtime: Runtime, model: str, say: Callable[[str], None]) -> list[Figure]:
    """Start workers for one job each, and tell of the quickest. Raises GenerationError where a job is not made."""
    figures: list[Figure] = []
    files = list(_files(runtime, model))
    for state in ("cold", "warm"):
        say(f"{_TIMES} workers, {state} …")
        found: list[Start] = []
        for _ in range(_TIMES):
            forgotten = [forget_cached(path) for path in files] if state == "cold" else [True]
            if not all(forgotten):
                break
            found.append(_started(runtime, model))
        if found:
            best = min(found, key=lambda it: it.total)
            figures += [
                Figure(f"{state}: {it.name}", getattr(best, it.name), note=_NOTES[it.name]) for it in fields(best)
            ]
            figures.append(Figure(f"{state}: start to first step", best.total, note=f"the least of {len(found)}"))
    return figures


def _started(runtime: Runtime, model: str) -> Start:
    """One worker with a queue of its own."""
    settings = runtime.settings
    with TemporaryDirectory() as scratch:
        given: dict[str, Any] = {
            "data_dir": Path(scratch),
            "models_dir": settings.weights_dir,
            "device": settings.device,
        }
        if settings.threads is not None:
            given["threads"] = settings.threads
        with closing(build_service(build_runtime(load_settings(**given)))) as service:
            asked = {"prompt": "A red circle moves right.", "model": model, "seed": 0, "num_inference_steps": 1}
            job = service.submit(VideoRequest.from_mapping(asked))
            command = [sys.executable, "-m", "wanreel", "worker", "--once", "--quiet"]
            began = time.time()
            subprocess.run(command, env=environment_with(**given), check=True, capture_output=True)
            events = tuple(service.watch(job.id))
        if events[-1].kind != "completed":
            raise GenerationError(f"The worker made nothing: {events[-1].kind}.")
        return Start.of(began, events)


def _files(runtime: Runtime, model: str) -> Iterator[Path]:
    """What such a worker reads."""
    folders = [runtime.weights_folder(runtime.catalog.get(model))]
    for package in _PACKAGES:
        with suppress(ImportError, ValueError):
            spec = find_spec(package)
            folders += [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file()) if folder is not None else ()
