"""Verify: makes a video again and says in what it differs. Knows nothing of queues or of how it is made."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import GenerationError, InvalidRequest, UnreadableRecipe
from wanreel.core.events import Completed, Event
from wanreel.core.manifest import Difference, Manifest, differences
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.video import Video
from wanreel.media.video import read_frames
from wanreel.worker.manifests import Findings


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of making a video again."""

    same: bool  #: the same bytes
    differences: tuple[Difference, ...]  #: causes before effects
    recorded: bool  #: whether a manifest was found; without one only the video itself is compared
    recorded_sha256: str  #: of the file that was given
    now_sha256: str  #: of the one made again


def verify(
    video: Path,
    recipe: Callable[[], ResolvedRequest],
    make: Callable[[ResolvedRequest], tuple[Resolution, Iterator[Event]]],
    weights_of: Callable[[ModelSpec], Mapping[str, str]],
) -> Verdict:
    """Makes what the manifest beside it says, or else its `recipe`, by `make`, and compares.

    Raises UnreadableRecipe, and what generating raises.
    """
    sha256 = _sha256(video)
    recorded = _manifest_beside(video)
    asked = recorded.request if recorded else recipe()
    if not isinstance(asked, ResolvedRequest):
        raise UnreadableRecipe.of("manifest", "no_video", f"{video} is a picture; videos are made again and compared.")
    resolution, running = make(asked)
    findings = Findings()
    again = _run(running, findings)
    now = findings.manifest(resolution.request, weights_of(resolution.spec), again)
    found: list[Difference] = []
    if recorded is not None:
        if sha256 != recorded.video_sha256:
            found.append(Difference("file", recorded.video_sha256, f"{sha256} (changed since it was made)"))
        found.extend(differences(recorded, now))
    elif sha256 != now.video_sha256:
        found.append(Difference("video_sha256", sha256, now.video_sha256))
    if sha256 != again.sha256:
        found.append(_frames(video, again.path))
    return Verdict(sha256 == again.sha256, tuple(found), recorded is not None, sha256, again.sha256)


def _run(running: Iterator[Event], findings: Findings) -> Video:
    for event in running:
        findings.see(event)
        if isinstance(event, Completed):
            return event.video
    raise GenerationError("The generation ended without a result.")


def _manifest_beside(video: Path) -> Manifest | None:
    path = video.with_suffix(".json")
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise UnreadableRecipe.of("manifest", "unreadable", f"{path} can't be read: {exc.strerror}.") from exc


def _frames(before: Path, after: Path) -> Difference:
    """How far the pictures themselves are apart."""
    largest, total, pixels = 0, 0.0, 0
    try:
        for one, other in itertools.zip_longest(read_frames(before), read_frames(after)):
            if one is None or other is None or one.shape != other.shape:
                return Difference("frames", "another number or size of frames", "")
            apart = np.abs(one.astype(np.int16) - other)
            largest = max(largest, int(apart.max()))
            total, pixels = total + float(apart.sum()), pixels + apart.size
    except InvalidRequest:
        return Difference("frames", "not compared", "not compared: files of this kind can't be read frame by frame")
    if largest == 0:
        return Difference("frames", "equal", "equal: only the file around them differs")
    return Difference("frames", "0", f"at most {largest}, on average {total / pixels:.3g} of 255 apart")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise UnreadableRecipe.of("video", "unreadable", f"{path} can't be read: {exc.strerror}.") from exc
