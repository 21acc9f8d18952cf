"""Names of the files that an attempt writes, and clearing up after it. Knows nothing of what is in them."""

from __future__ import annotations

import contextlib
import glob
import time
from collections.abc import Iterable
from pathlib import Path

from wanreel.core.job import Job
from wanreel.storage.outputs import slug

#: How files end that another export needs: finished latents, the keyframe that they were made from.
_KEPT = ("-latents.safetensors", "keyframe.png")


def stem_of(job: Job, prompt: str) -> str:
    """20261121-072340_a-red-circle_5f3c9a01-2: when it was accepted, what was asked, which job and attempt.

    It follows from the record alone, so that whoever finds an attempt dead can find its files.
    """
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(job.created_at))
    return "_".join(part for part in (when, slug(prompt), f"{job.id[:8]}-{job.attempt}") if part)


def discard(results: Path, stem: str, recorded: Iterable[str]) -> None:
    """Delete the files of an attempt, whole and half-written ones, but for the names that a record holds."""
    kept = set(recorded)
    found = [path for dot in ("", ".") for path in results.glob(f"{dot}{glob.escape(stem)}*")]
    for path in found:
        if path.name not in kept:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def keep_latents(checkpoints: Path) -> None:
    """Delete all but the finished latents and their keyframe, from which the video can be exported again."""
    with contextlib.suppress(OSError):
        for path in checkpoints.iterdir():
            if not path.name.endswith(_KEPT):
                path.unlink(missing_ok=True)
