"""What RunPod's clients get: results and failures in the fields that they know. Knows nothing of how they came to be."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wanreel.core.errors import InvalidRequest, RemoteError, WanreelError
from wanreel.core.resolve import ResolvedRequest
from wanreel.core.video import Video

_FILES = ("path", "last_frame", "poster")
_LONGEST_ERROR = 2000  # characters
HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a file lies in object storage."""

    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Made:
    """A finished video."""

    video: Video
    seconds: float  #: that making it took

    def to_record(self) -> dict[str, object]:
        """Plain JSON values, with the names of its files alone."""
        facts: dict[str, Any] = asdict(self.video) | {"request": self.video.request.to_dict()}
        return {**facts, **{name: getattr(self.video, name).name for name in _FILES}, "seconds": self.seconds}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path) -> Made | None:
        """The inverse of `to_record`, where the files are in `folder` and whole; else None. Raises KeyError, TypeError."""
        facts = dict(record)
        seconds = float(facts.pop("seconds"))
        facts |= {name: folder / Path(facts[name]).name for name in _FILES}
        facts["request"] = ResolvedRequest.from_dict(facts["request"])
        video = Video(**facts)
        whole = video.last_frame.is_file() and video.path.is_file() and video.path.stat().st_size == video.size_bytes
        return cls(video, seconds) if whole else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of putting a result into storage."""

    video: Stored | None = None
    last_frame: Stored | None = None
    error: RemoteError | None = None  #: why it is not there


def video_answer(made: Made, outcome: Outcome, limit: int) -> dict[str, object]:
    """The fields of a result of at most `limit` bytes; what is too large is told by its address alone.

    Raises RemoteError where it is too large and has no address.
    """
    facts = made.video
    answer: dict[str, object] = {
        "success": True,
        "video_base64": _base64(facts.path),
        "last_frame_base64": _base64(facts.last_frame),
        "seed": facts.request.seed,
        "inference_time_ms": round(made.seconds * 1000),
        "num_frames": facts.num_frames,
        "fps": int(facts.fps) if facts.fps.is_integer() else facts.fps,
        "resolution": f"{facts.width}x{facts.height}",
        "video_size_bytes": facts.size_bytes,
    }
    files = (("video", outcome.video), ("last_frame", outcome.last_frame))
    for name, stored in files:
        if stored is not None:
            answer |= {f"{name}_url": stored.url, f"{name}_r2_key": stored.key}
    if outcome.error is not None:
        answer["upload_error"] = str(outcome.error)
    for name, stored in files:
        if size_of(answer) > limit and stored is not None:
            del answer[f"{name}_base64"]
    if (size := size_of(answer)) > limit:
        if outcome.error is not None:
            raise outcome.error
        raise RemoteError(
            f"The result has {size / 1e6:.1f} MB, more than the {limit / 1e6:g} MB that an answer may have.",
            hint="Send r2, or set a storage profile on the endpoint, and retry this job: it is not made again.",
        )
    return answer


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
