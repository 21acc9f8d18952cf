"""Assembly: the clips of a chain as one file, and how far each has drifted. Knows nothing of groups or attempts.

The drift of a clip is how far the colours of its last frame are from those of the first clip of its run (`media.colour`,
in ΔE): as it was made, and as it is shown where colours were drawn together. Other things that come into the picture
count too, so it says most of clips that show the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wanreel import __version__
from wanreel.core.cancel import CancelToken
from wanreel.core.chain import Chain
from wanreel.core.resolved import ResolvedRequest
from wanreel.media.colour import Look, Shift
from wanreel.media.join import Joined, Piece, join
from wanreel.media.pictures import pixels_of
from wanreel.media.recipe import MARK, recipe_metadata


@dataclass(frozen=True, slots=True)
class Clip:
    """A finished clip on this machine."""

    job: str
    path: Path
    last_frame: Path
    request: ResolvedRequest

    @property
    def num_frames(self) -> int:
        return self.request.finished.num_frames


@dataclass(frozen=True, slots=True)
class Placed:
    """A clip within the whole."""

    job: str
    start: int  #: its first frame there
    num_frames: int  #: shown of it, blended ones included
    drift: float  #: ΔE, as it was made
    shown_drift: float  #: ΔE, as it is shown

    def to_dict(self) -> dict[str, object]:
        return {
            "job": self.job,
            "start": self.start,
            "num_frames": self.num_frames,
            "drift": round(self.drift, 3),
            "shown_drift": round(self.shown_drift, 3),
        }


@dataclass(frozen=True, slots=True)
class Whole:
    """All clips in one file."""

    joined: Joined
    clips: tuple[Placed, ...]
    fps: float
    width: int
    height: int

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values; the file by its name alone."""
        written = self.joined.written
        return {
            "name": written.path.name,
            "sha256": written.sha256,
            "size": written.size_bytes,
            "num_frames": written.num_frames,
            "fps": self.fps,
            "width": self.width,
            "height": self.height,
            "copied": self.joined.copied,
            "why": self.joined.why,
            "clips": [clip.to_dict() for clip in self.clips],
        }


def assemble(
    chain: Chain,
    clips: Sequence[Clip],
    path: Path,
    title: str,
    cancel: CancelToken,
    progress: Callable[[int], object] = lambda done: None,
) -> Whole:
    """Joins the clips, in the chain's order, into `path`. Raises what `join` raises, and ExportFailed."""
    looks = [Look.of(pixels_of(clip.last_frame.read_bytes())) for clip in clips]
    shifts = [_shift(chain, place, looks) for place in range(len(clips))]
    pieces = [
        Piece(clip.path, clip.num_frames, link.seam.skip, link.seam.frames, shift)
        for clip, link, shift in zip(clips, chain.links, shifts, strict=True)
    ]
    first = clips[0].request
    metadata = recipe_metadata(_recipe(chain, clips), title) if first.metadata else None
    joined = join(pieces, path, first.quality, metadata, cancel, progress)
    placed = tuple(
        Placed(
            clip.job,
            start,
            piece.num_frames - piece.skip,
            looks[place].distance(looks[chain.root(place)]),
            _after(clip, shifts[place]).distance(looks[chain.root(place)]),
        )
        for place, (clip, piece, start) in enumerate(zip(clips, pieces, joined.starts, strict=True))
    )
    shape = first.finished
    return Whole(joined, placed, shape.fps, shape.width, shape.height)


def _shift(chain: Chain, place: int, looks: Sequence[Look]) -> Shift:
    """What the next clip's first frame was made of this one's last frame with; the last one of a run is treated alike."""
    root = chain.root(place)
    if not chain.colour or place == root:
        return Shift()
    return Shift.between(looks[place], looks[root], chain.colour)


def _after(clip: Clip, shift: Shift) -> Look:
    return Look.of(shift(pixels_of(clip.last_frame.read_bytes())))


def _recipe(chain: Chain, clips: Sequence[Clip]) -> str:
    """From which each clip can be made again, and the whole put together."""
    facts: Mapping[str, object] = {
        MARK: __version__,
        "clips": [clip.request.to_dict() for clip in clips],
        "seams": [{"kind": link.seam.kind, "frames": link.seam.frames} for link in chain.links],
        "colour_match": chain.colour,
    }
    return json.dumps(facts, ensure_ascii=False)
