"""Storyboards of a RunPod job: each scene made as a job of its own would be, kept by itself, and all joined at the end.

What an earlier delivery made of it is not made again: neither a scene that is whole, nor the steps of one that is not.
"""

from __future__ import annotations

import base64
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from wanreel.core.cancel import CancelToken
from wanreel.core.chain import PlannedScene, chain_of, frames_back, plan_scenes, seam_of
from wanreel.core.errors import GenerationError, RemoteError
from wanreel.core.events import Completed, Event
from wanreel.core.modes import mode_of
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.storyboard import Storyboard, parse_storyboard
from wanreel.frontends.picture_text import Fetch, picture_bytes
from wanreel.frontends.runpod.answers import Outcome, VideoResult, size_of
from wanreel.frontends.runpod.inputs import Asked, with_defaults, with_length
from wanreel.frontends.storyboard_file import with_first_picture
from wanreel.service.storyboards import pinned
from wanreel.storage.disk import Blobs
from wanreel.storage.ledger import Entry
from wanreel.wiring import Runtime
from wanreel.worker.assembly import Clip, assemble
from wanreel.worker.taking import drawn_together

_log = logging.getLogger(__name__)

_WHOLE = "film"  #: name of the joined file without suffix


@dataclass(frozen=True, slots=True)
class FilmResult:
    """Every scene, and all as one."""

    scenes: tuple[VideoResult, ...]
    whole: Path
    facts: Mapping[str, Any]  #: as `worker.assembly.Whole` says them

    def files(self) -> Mapping[str, Path]:
        parts = {f"segment_{n}": scene.video.path for n, scene in enumerate(self.scenes, 1)}
        return {"video": self.whole, "last_frame": self.scenes[-1].video.last_frame, **parts}

    def to_record(self) -> dict[str, object]:
        return {"facts": dict(self.facts), "whole": self.whole.name, "scenes": [it.to_record() for it in self.scenes]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path) -> FilmResult | None:
        """The inverse of `to_record`, where the files are in `folder` and whole; else None. Raises KeyError, TypeError."""
        found = [VideoResult.from_record(it, part_folder(folder, n)) for n, it in enumerate(record["scenes"])]
        scenes = tuple(it for it in found if it is not None)
        whole, facts = folder / Path(record["whole"]).name, cast("Mapping[str, Any]", record["facts"])
        there = len(scenes) == len(found) and whole.is_file() and whole.stat().st_size == facts["size"]
        return cls(scenes, whole, facts) if there else None

    def answer(self, outcome: Outcome, limit: int) -> dict[str, object]:
        """The stitched video in the fields of a single one, and each scene in `segments`."""
        facts, last = self.facts, self.scenes[-1]
        segments = [self._segment(n, outcome) for n in range(len(self.scenes))]
        answer: dict[str, object] = {
            "success": True,
            "video_base64": _base64(self.whole),
            "last_frame_base64": _base64(last.video.last_frame),
            "segments": segments,
            "inference_time_ms": round(1000 * sum(scene.seconds for scene in self.scenes)),
            "num_frames": facts["num_frames"],
            "fps": int(facts["fps"]) if float(facts["fps"]).is_integer() else facts["fps"],
            "resolution": f"{facts['width']}x{facts['height']}",
            "video_size_bytes": facts["size"],
            "copied": facts["copied"],
        }
        for kind in ("video", "last_frame"):
            if (stored := outcome.stored.get(kind)) is not None:
                answer |= {f"{kind}_url": stored.url, f"{kind}_r2_key": stored.key}
        if outcome.error is not None:
            answer["upload_error"] = str(outcome.error)
        self._shrink(answer, segments, outcome, limit)
        return answer

    def _segment(self, place: int, outcome: Outcome) -> dict[str, object]:
        video, clip = self.scenes[place].video, self.facts["clips"][place]
        segment: dict[str, object] = {
            "video_base64": _base64(video.path),
            "prompt": video.request.prompt,
            "seed": video.request.seed,
            "num_frames": video.num_frames,
            "start": clip["start"],
            "drift": clip["drift"],
        }
        if (stored := outcome.stored.get(f"segment_{place + 1}")) is not None:
            segment |= {"video_url": stored.url, "video_r2_key": stored.key}
        return segment

    def _shrink(
        self, answer: dict[str, object], segments: Sequence[dict[str, object]], outcome: Outcome, limit: int
    ) -> None:
        """Leaves out what can be fetched, the scenes first. Raises RemoteError where it is too large all the same."""
        for segment in (*reversed(segments), answer):
            if "video_url" in segment and size_of(answer) > limit:
                del segment["video_base64"]
        if "last_frame_url" in answer and size_of(answer) > limit:
            del answer["last_frame_base64"]
        if (size := size_of(answer)) <= limit:
            return
        if outcome.error is not None:
            raise outcome.error
        raise RemoteError(
            f"The result has {size / 1e6:.1f} MB, more than the {limit / 1e6:g} MB that an answer may have.",
            hint="Send r2, or set a storage profile on the endpoint, and retry this job: it is not made again.",
        )


@dataclass(frozen=True)
class Director:
    """Makes the film of one job."""

    runtime: Runtime
    entry: Entry
    pictures: Blobs
    token: CancelToken
    urgent: Callable[[], bool]
    see: Callable[[Event], object]

    def make(self, asked: Asked, fetch: Fetch | None) -> FilmResult:
        """Raises InvalidRequest by scene, and whatever generations raise."""
        board = self._board(asked, fetch)
        planned = [scene for scene in plan_scenes(board, self._resolve) if scene is not None]
        scenes: list[VideoResult] = []
        for place, scene in enumerate(planned):
            scenes.append(self._scene(board, place, scene, scenes))
        names = [str(place) for place in range(len(scenes))]
        clips = [
            Clip(name, it.video.path, it.video.last_frame, it.video.request)
            for name, it in zip(names, scenes, strict=True)
        ]
        path = self.entry.folder / f"{_WHOLE}{clips[0].path.suffix}"
        title = board.title or board.scenes[0].prompt
        whole = assemble(chain_of(board, names), clips, path, title, self.token)
        return FilmResult(tuple(scenes), path, whole.to_dict())

    def _board(self, asked: Asked, fetch: Fetch | None) -> Storyboard:
        """What an earlier delivery began to make, else what is asked now, written down. Pictures come with each."""

        def take(value: object, name: str) -> PictureRef:
            text = value.strip() if isinstance(value, str) else ""
            return self.runtime.take_picture(picture_bytes(text, "image", fetch), "image", self.pictures)

        board = pinned(parse_storyboard(with_first_picture(asked.values), take))
        begun = self.entry.begun()
        if begun is not None:
            with contextlib.suppress(KeyError, TypeError, ValueError):
                return parse_storyboard(begun["board"])
        self.entry.begin({"board": board.to_dict()})
        return board

    def _resolve(self, request: VideoRequest) -> Resolution:
        """As single videos are: with what the clients that exist expect where they say nothing."""
        request = with_defaults(request)
        if request.model is None:
            request = replace(request, model=self.runtime.defaults().model_for[mode_of(request)])
        longest = self.runtime.resolve(request).spec.hard_max_frames
        return self.runtime.resolve(with_length(request, longest))

    def _scene(self, board: Storyboard, place: int, scene: PlannedScene, before: Sequence[VideoResult]) -> VideoResult:
        part = self.entry.part(part_name(place))
        record = part.made()
        with contextlib.suppress(KeyError, TypeError):
            if record is not None and (done := VideoResult.from_record(record, part.folder)) is not None:
                return done
        request = scene.request
        if board.start(place) == "previous":
            request = self._bound(board, place, request, before)
        keeping = replace(part.keeping(self.pictures, self.urgent), handoffs=_wanted(board, place + 1))
        running = self.runtime.generate(replace(scene.resolution, request=request), self.token, keeping)
        with contextlib.closing(running):
            for event in running:
                self.see(event)
                if isinstance(event, Completed):
                    result = VideoResult(event.video, event.seconds)
                    part.finish(result.to_record())
                    _log.info("job %s: scene %d is there", self.entry.work, place + 1)
                    return result
        raise GenerationError("The generation ended without a result.")

    def _bound(
        self, board: Storyboard, place: int, request: ResolvedRequest, before: Sequence[VideoResult]
    ) -> ResolvedRequest:
        """With the picture that the scene before made for it."""
        video, seam, root = before[-1].video, seam_of(board, place), board.root(place)
        back = frames_back(seam.file)
        png = (video.last_frame if not back else video.path.with_suffix(f".{back}-before-last.png")).read_bytes()
        if board.colour_match and root != place - 1 and not board.edited(place):
            png = drawn_together(png, before[root].video.last_frame.read_bytes(), board.colour_match)
        picture = PictureRef(self.pictures.put(png), request.export_width, request.export_height)
        return replace(request, image=picture)


def part_name(place: int) -> str:
    return f"scene-{place + 1}"


def part_folder(folder: Path, place: int) -> Path:
    return folder / part_name(place)


def _wanted(board: Storyboard, place: int) -> tuple[int, ...]:
    """Frames of the scene before `place`, counted back, that it starts from."""
    if place >= len(board.scenes) or board.start(place) != "previous":
        return ()
    back = frames_back(seam_of(board, place).file)
    return (back,) if back else ()


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
