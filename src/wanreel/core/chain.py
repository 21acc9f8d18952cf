"""Chain: clips that go on from one another and are shown as one. Knows nothing of jobs' states, files or pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Resolution
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.storyboard import Storyboard

LAST_FRAME = "last_frame"  #: the file that a continuing clip starts from
_HANDOFF = "handoff"

#: How a clip meets the one before: it goes on from its last frame, or from one before that and is blended over the frames
#: that both have; it follows without a link; or it is blended with the other's end.
Kind = Literal["continue", "overlap", "cut", "crossfade"]


@dataclass(frozen=True, slots=True)
class Seam:
    """Where a clip meets the one before."""

    kind: Kind = "cut"
    frames: int = 0  #: over which both are blended

    @property
    def continues(self) -> bool:
        return self.kind in ("continue", "overlap")

    @property
    def skip(self) -> int:
        """How many of the clip's first frames are not shown: one that continues begins with the picture it starts from."""
        return 1 if self.continues else 0

    @property
    def file(self) -> str:
        """Which of the earlier clip's files the later one starts from."""
        return handoff(self.frames) if self.kind == "overlap" else LAST_FRAME


@dataclass(frozen=True, slots=True)
class Link:
    """One clip of a chain."""

    job: str  #: who made it; any name that the caller understands
    seam: Seam = Seam()


@dataclass(frozen=True, slots=True)
class Chain:
    """Clips in order, and how they are joined."""

    links: tuple[Link, ...]
    colour: float = 0.0  #: 0 to 1: how far later clips were brought back to the first one's colours

    def then(self, job: str, seam: Seam) -> Chain:
        return replace(self, links=(*self.links, Link(job, seam)))

    def root(self, place: int) -> int:
        """The clip that begins the run of continuing ones that this one is in."""
        while place and self.links[place].seam.continues:
            place -= 1
        return place

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Chain:
        """The inverse of `to_dict`. Raises KeyError, TypeError."""
        links = tuple(Link(link["job"], Seam(**link["seam"])) for link in data["links"])
        return cls(links, float(data["colour"]))


def handoff(frames: int) -> str:
    """Kind of the file with the frame that is so many frames before the last one."""
    return f"{_HANDOFF}-{frames}"


def frames_back(file: str) -> int | None:
    """The inverse: how far before the last frame; 0 for the last one itself, None for a file that is no frame."""
    if file == LAST_FRAME:
        return 0
    name, _, count = file.partition("-")
    return int(count) if name == _HANDOFF and count.isdecimal() else None


def pending(width: int, height: int, of: str) -> PictureRef:
    """A picture that another clip has yet to make: known by its size alone."""
    return PictureRef("", width, height, (f"the frame that {of} ends with",))


@dataclass(frozen=True, slots=True)
class PlannedScene:
    """What becomes of a scene."""

    resolution: Resolution  #: its picture is `pending` where it starts from the scene before
    seam: Seam

    @property
    def request(self) -> ResolvedRequest:
        return self.resolution.request


def plan_scenes(
    board: Storyboard, resolve: Callable[[VideoRequest], Resolution], known: Mapping[int, ResolvedRequest] | None = None
) -> tuple[PlannedScene | None, ...]:
    """What each scene becomes, all in the size and rate of the first. Raises InvalidRequest by scene, ModelError.

    `known` are scenes that need no plan as they are there already; they come out as None.
    """
    known, problems = known or {}, list[Problem]()
    planned: list[PlannedScene | None] = []
    first: ResolvedRequest | None = known.get(0)
    before: ResolvedRequest | None = None
    for place in range(len(board.scenes)):
        if (request := known.get(place)) is not None:
            planned.append(None)
            before = request
            continue
        try:
            scene = _planned(board, place, resolve, first, before)
            first, before = first or scene.request, scene.request
            planned.append(scene)
            _check_lengths(board, place, planned, known)
        except InvalidRequest as error:
            problems += [replace(it, field=f"scenes[{place + 1}].{_as_asked(it.field)}") for it in error.problems]
            if first is None:
                break
    if problems:
        raise InvalidRequest(*problems)
    return tuple(planned)


def _as_asked(name: str) -> str:
    return {"image": "keyframe", "last_image": "end_keyframe"}.get(name, name)


def _planned(
    board: Storyboard,
    place: int,
    resolve: Callable[[VideoRequest], Resolution],
    first: ResolvedRequest | None,
    before: ResolvedRequest | None,
) -> PlannedScene:
    scene, start = board.scenes[place], board.start(place)
    values = board.values(place)
    if first is not None:
        for name in ("width", "height", "resolution", "fps", "output_format", "quality"):
            values.pop(name, None)
        values |= {"width": first.export_width, "height": first.export_height, "fps": first.fps}
        values |= {"output_format": first.output_format, "quality": first.quality}
    picture = scene.keyframe
    if start == "anchor":
        picture = board.scenes[0].keyframe
    elif start == "previous" and before is not None:
        picture = pending(before.export_width, before.export_height, f"scene {place}")
    resolution = resolve(replace(VideoRequest.from_mapping(values), image=picture, last_image=scene.end_keyframe))
    return PlannedScene(resolution, seam_of(board, place))


def seam_of(board: Storyboard, place: int) -> Seam:
    """How a scene meets the one before."""
    fade, continues = board.fade(place), board.start(place) == "previous" and not board.edited(place)
    if fade:
        return Seam("overlap" if continues else "crossfade", fade)
    return Seam("continue" if continues else "cut")


def chain_of(board: Storyboard, jobs: Sequence[str]) -> Chain:
    """The chain of a storyboard's first scenes, made by these jobs."""
    links = tuple(Link(job, seam_of(board, place)) for place, job in enumerate(jobs))
    return Chain(links, board.colour_match)


def _check_lengths(
    board: Storyboard, place: int, planned: Sequence[PlannedScene | None], known: Mapping[int, ResolvedRequest]
) -> None:
    """That no frame is in two cross-fades. Raises InvalidRequest."""
    for n in (place - 1, place):
        scene = planned[n] if 0 <= n < len(planned) else None
        request = scene.request if scene is not None else known.get(n)
        if request is None:
            continue
        following = board.fade(n + 1) if n + 1 <= place else 0
        taken = board.fade(n) + following + seam_of(board, n).skip
        if taken >= request.num_frames:
            text = f"{taken} frames of scene {n + 1} are in cross-fades, and it has {request.num_frames}."
            raise InvalidRequest.of("transition_frames", "out_of_range", text, "Fade over fewer frames.")


def colour_detail(strength: float) -> dict[str, float]:
    """What a worker must know to bring a frame back to another clip's colours."""
    return {"strength": strength}


def strength_in(detail: Mapping[str, object]) -> float:
    return float(cast("Any", detail.get("strength", 0.0)))
