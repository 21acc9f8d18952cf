"""What RunPod's clients get: results and failures in the fields that they know. Knows nothing of how they came to be."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wanreel.core.drawing import Drawing
from wanreel.core.errors import InvalidRequest, RemoteError, WanreelError
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.video import Video

_LONGEST_ERROR = 2000  # characters
HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a file lies in object storage."""

    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of putting a result into storage."""

    stored: Mapping[str, Stored] = field(default_factory=dict[str, Stored])  #: by the kind of file
    error: RemoteError | None = None  #: why it is not there


class Result(Protocol):
    """Something finished."""

    def files(self) -> Mapping[str, Path]:
        """What is put into storage, by kind."""
        ...

    def to_record(self) -> dict[str, object]:
        """Plain JSON values, with the names of its files alone."""
        ...

    def answer(self, outcome: Outcome, limit: int) -> dict[str, object]:
        """The fields of at most `limit` bytes; what is too large is told by its address alone.

        Raises RemoteError where it is too large and has no address.
        """
        ...


_PATHS = ("path", "last_frame", "poster", "keyframe")  # of a Video


@dataclass(frozen=True, slots=True)
class VideoResult:
    """A finished video."""

    video: Video
    seconds: float  #: that making it took

    def files(self) -> Mapping[str, Path]:
        more = {"keyframe": self.video.keyframe} if self.video.keyframe is not None else {}
        return {"video": self.video.path, "last_frame": self.video.last_frame, **more}

    def to_record(self) -> dict[str, object]:
        facts: dict[str, Any] = asdict(self.video) | {"request": self.video.request.to_dict()}
        del facts["handoffs"]  # found beside the video by whoever goes on from it
        paths = {name: getattr(self.video, name) for name in _PATHS}
        names = {name: path.name if path is not None else None for name, path in paths.items()}
        return {**facts, **names, "seconds": self.seconds}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path) -> VideoResult | None:
        """The inverse of `to_record`, where the files are in `folder` and whole; else None. Raises KeyError, TypeError."""
        facts = dict(record)
        seconds = float(facts.pop("seconds"))
        facts |= {name: folder / Path(facts[name]).name for name in _PATHS if facts.get(name)}
        facts["request"] = ResolvedRequest.from_dict(facts["request"])
        video = Video(**facts)
        whole = all(path.is_file() for path in (video.last_frame, video.keyframe) if path is not None)
        whole = whole and video.path.is_file() and video.path.stat().st_size == video.size_bytes
        return cls(video, seconds) if whole else None

    def answer(self, outcome: Outcome, limit: int) -> dict[str, object]:
        facts = self.video
        answer: dict[str, object] = {
            "success": True,
            "video_base64": _base64(facts.path),
            "last_frame_base64": _base64(facts.last_frame),
            "seed": facts.request.seed,
            "inference_time_ms": round(self.seconds * 1000),
            "num_frames": facts.num_frames,
            "fps": int(facts.fps) if facts.fps.is_integer() else facts.fps,
            "resolution": f"{facts.width}x{facts.height}",
            "video_size_bytes": facts.size_bytes,
        }
        if facts.keyframe is not None:
            answer["keyframe_base64"] = _base64(facts.keyframe)
        for kind, stored in outcome.stored.items():
            answer |= {f"{kind}_url": stored.url, f"{kind}_r2_key": stored.key}
        if outcome.error is not None:
            answer["upload_error"] = str(outcome.error)
        for kind in outcome.stored:
            if size_of(answer) > limit:
                del answer[f"{kind}_base64"]
        return _fitting(answer, outcome, limit)


@dataclass(frozen=True, slots=True)
class PictureResult:
    """Finished pictures, told as RunPod's own SDXL worker does."""

    drawing: Drawing
    seconds: float

    def files(self) -> Mapping[str, Path]:
        return {kind: path for kind, path in self.drawing.files().items() if kind != "poster"}

    def to_record(self) -> dict[str, object]:
        facts: dict[str, Any] = asdict(self.drawing) | {"request": self.drawing.request.to_dict()}
        names = {"paths": [path.name for path in self.drawing.paths], "poster": self.drawing.poster.name}
        return {**facts, **names, "seconds": self.seconds}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path) -> PictureResult | None:
        """The inverse of `to_record`, where the files are in `folder` and whole; else None. Raises KeyError, TypeError."""
        facts = dict(record)
        seconds = float(facts.pop("seconds"))
        facts["paths"] = tuple(folder / Path(name).name for name in facts["paths"])
        facts["poster"] = folder / Path(facts["poster"]).name
        facts["request"] = ResolvedPicture.from_dict(facts["request"])
        drawing = Drawing(**facts)
        whole = all(path.is_file() for path in drawing.paths) and drawing.path.stat().st_size == drawing.size_bytes
        return cls(drawing, seconds) if whole else None

    def answer(self, outcome: Outcome, limit: int) -> dict[str, object]:
        kinds = list(self.files())
        stored = [outcome.stored[kind] for kind in kinds if kind in outcome.stored]
        inline = (f"data:image/png;base64,{_base64(path)}" for path in self.drawing.paths)
        images = [it.url for it in stored] or list(inline)
        answer: dict[str, object] = {
            "success": True,
            "images": images,
            "image_url": images[0],
            "seed": self.drawing.request.seed,
            "inference_time_ms": round(self.seconds * 1000),
            "resolution": f"{self.drawing.width}x{self.drawing.height}",
        }
        if stored:
            answer["image_r2_keys"] = [it.key for it in stored]
        if outcome.error is not None:
            answer["upload_error"] = str(outcome.error)
        return _fitting(answer, outcome, limit)


def _fitting(answer: dict[str, object], outcome: Outcome, limit: int) -> dict[str, object]:
    """The answer. Raises RemoteError where it is too large."""
    if (size := size_of(answer)) <= limit:
        return answer
    if outcome.error is not None:
        raise outcome.error
    raise RemoteError(
        f"The result has {size / 1e6:.1f} MB, more than the {limit / 1e6:g} MB that an answer may have.",
        hint="Send r2, or set a storage profile on the endpoint, and retry this job: it is not made again.",
    )


def size_of(answer: Mapping[str, object]) -> int:
    """Bytes of an answer as RunPod's SDK sends it."""
    return len(json.dumps({"output": answer}, ensure_ascii=False).encode())


def failure(error: WanreelError, secrets: Sequence[str] = ()) -> dict[str, object]:
    """The fields of a failure. The SDK takes `error` out and makes the job FAILED with it."""
    text = str(error) or error.code
    answer: dict[str, object] = {
        "success": False,
        "error": without(secrets, text)[:_LONGEST_ERROR],
        "error_code": error.code,
        "retryable": error.retryable,
    }
    if isinstance(error, InvalidRequest):
        rows = [asdict(problem) for problem in error.problems]
        answer["problems"] = [{key: without(secrets, value)[:200] for key, value in row.items()} for row in rows]
    return answer


def without(secrets: Sequence[str], text: str) -> str:
    """The text with every secret hidden."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
