"""diagnose: what this machine has, what is wrong with it for Wanreel, and the cure. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wanreel.core.errors import WanreelError
from wanreel.core.settings import Settings
from wanreel.host import free_bytes, is_network_filesystem
from wanreel.wiring import build_runtime, specs_with_state

Status = Literal["ok", "warning", "broken"]

GB = 1e9
PACKAGES = ("diffusers", "transformers", "accelerate", "safetensors", "av", "pillow", "numpy")
ENOUGH_DISK = 5 * GB  #: for results and checkpoints; weights want far more
CUDNN_BY_ITSELF = (2, 11)  #: from this torch on, SDPA takes cuDNN on Hopper, 1.5 times as fast as FlashAttention 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis."""

    subject: str
    status: Status
    text: str
    cure: str = ""


def diagnose(settings: Settings) -> Iterator[Finding]:
    """One finding after the other, quick ones first."""
    yield from _python()
    yield from _packages()
    yield from _torch(settings)
    yield from _data_directory(settings)
    yield from _codecs()
    yield from _models(settings)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    fit = sys.version_info >= (3, 11)
    yield Finding(
        "Python",
        "ok" if fit else "broken",
        f"{version} on {platform.platform(terse=True)}",
        "" if fit else "Use Python 3.11 or newer.",
    )


def _packages() -> Iterator[Finding]:
    versions: list[str] = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                "packages", "broken", f"{name} is missing.", "Run ./launch.sh again; it completes the set-up."
            )
    yield Finding("packages", "ok", ", ".join(versions))


def _torch(settings: Settings) -> Iterator[Finding]:
    try:
        from wanreel.models.machine import HOPPER, choose_device, machine_facts
    except (ImportError, OSError) as exc:
        yield Finding("torch", "broken", f"can't be imported: {exc}.", "Reinstall torch for this machine.")
        return
    facts = machine_facts()
    yield Finding("torch", "ok", f"{facts.torch}, {f'CUDA {facts.cuda}' if facts.cuda else 'CPU build'}")
    if not facts.gpus:
        cure = (
            "Install a CUDA build of torch if this machine has an NVIDIA GPU."
            if not facts.cuda
            else "Check the NVIDIA driver."
        )
        yield Finding("GPU", "warning", "none that torch can use: only the demo model is practical.", cure)
    for gpu in facts.gpus:
        yield Finding(
            "GPU", "ok", f"{gpu.index}: {gpu.name}, {gpu.free_bytes / GB:.1f} of {gpu.total_bytes / GB:.1f} GB free"
        )
    release = tuple(int(part) for part in facts.torch.split("+")[0].split(".")[:2])
    if release < CUDNN_BY_ITSELF and any(gpu.capability == HOPPER for gpu in facts.gpus):
        yield Finding(
            "attention",
            "warning",
            f"torch {facts.torch} uses a slower attention on this GPU.",
            "Install torch 2.11 or newer.",
        )
    try:
        choose_device(settings.device, settings.memory_gb, settings.threads)
    except WanreelError as error:
        yield Finding("device", "broken", error.message, error.hint)


def _data_directory(settings: Settings) -> Iterator[Finding]:
    root = settings.data_dir
    existing = next((folder for folder in (root, *root.parents) if folder.exists()), Path("/"))
    if not os.access(existing, os.W_OK):
        yield Finding("data", "broken", f"{existing} is not writable.", "Set WANREEL_DATA_DIR to a folder of yours.")
        return
    free = free_bytes(existing)
    enough = free >= ENOUGH_DISK
    yield Finding(
        "data",
        "ok" if enough else "warning",
        f"{root}, {free / GB:.0f} GB free",
        "" if enough else "Free some disk space.",
    )
    if is_network_filesystem(existing):
        yield Finding("data", "warning", f"{root} is on a network file system.", "The job database needs a local disk.")


def _codecs() -> Iterator[Finding]:
    from wanreel.media.video import missing_encoders

    missing = missing_encoders()
    if missing:
        yield Finding(
            "video", "broken", f"the encoders {', '.join(missing)} are missing.", "Reinstall av (PyAV) from its wheel."
        )
    else:
        yield Finding("video", "ok", "H.264, VP9, WebP and GIF can be written")


def _models(settings: Settings) -> Iterator[Finding]:
    runtime = build_runtime(settings)
    names = [spec.name for spec, installed in specs_with_state(runtime) if installed]
    alone = names == ["demo"]
    cure = f"Put weights in {runtime.shelf.root} to use the real models." if alone else ""
    yield Finding("models", "ok", f"installed: {', '.join(names) or 'none'}", cure)
