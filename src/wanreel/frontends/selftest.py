"""selftest: whether a running server does what it should, asked from outside as its clients ask.

It makes small videos, looks at what is answered, and takes away what it made.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import av
import av.error
import httpx
from PIL import Image

from wanreel.core.errors import JobNotFound, RemoteError, WanreelError
from wanreel.frontends.client import Client, RemoteVideo

_PROMPT = "a red circle moves right over a blue background"
_FRAMES, _STEPS, _SEED = 5, 4, 7
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
#: What the native answer of a video must hold, with the type of each.
_VIDEO: Mapping[str, type | tuple[type, ...]] = {
    "id": str,
    "object": str,
    "model": str,
    "status": str,
    "progress": int,
    "created_at": int,
    "size": str,
    "seconds": str,
    "prompt": str,
    "seed": int,
    "wanreel": dict,
}
#: The same of FastVideo's /generate_video.
_FASTVIDEO: Mapping[str, type | tuple[type, ...]] = {
    "success": bool,
    "video_data": str,
    "seed": int,
    "generation_time": (int, float),
    "inference_time": (int, float),
    "stage_names": list,
    "stage_execution_times": list,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    text: str


class CheckFailed(Exception):
    """What the server did is not what it should."""


class Skipped(Exception):
    """The model can't do that."""


@dataclass
class SelfTest:
    """The checks, over one server. `run` goes on after a failure and always takes away what it made."""

    url: str
    api_key: str | None = None
    model: str | None = None  #: the demo model by default, or the first that is installed
    time_limit: float = 1800.0  #: seconds for one video through /generate_video
    _made: list[str] = field(default_factory=list[str], repr=False)
    _uploads: list[str] = field(default_factory=list[str], repr=False)
    _modes: tuple[str, ...] = ()
    _steps: int = _STEPS

    def run(self) -> Iterator[Check]:
        """One check after the other. A server that can't be reached ends it at the first."""
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        with (
            Client(self.url, self.api_key, patience=5.0) as client,
            httpx.Client(base_url=self.url.rstrip("/"), headers=headers, timeout=_TIMEOUT) as http,
            TemporaryDirectory() as folder,
        ):
            health = _tried("health", lambda: self._health(http))
            yield health
            if health.outcome == "failed":
                return
            models = _tried("models", lambda: self._choose(client))
            yield models
            if models.outcome == "passed":
                yield _tried("text to video", lambda: self._text(client, Path(folder)))
                yield _tried("picture to video", lambda: self._picture(client, http, Path(folder)))
                yield _tried("/generate_video", lambda: self._fastvideo(http))
            yield _tried("clean-up", lambda: self._clean_up(client, http))

    def _health(self, http: httpx.Client) -> str:
        for path, expected in (("/live", {"status": "live"}), ("/health", {"status": "healthy"})):
            if _json(http.get(path)) != expected:
                raise CheckFailed(f"{path} does not answer {expected}")
        ready = http.get("/ready")
        if ready.status_code != 200:
            raise CheckFailed(f"not ready: {', '.join(ready.json().get('reasons', ['it does not say why']))}")
        return "live and ready"

    def _choose(self, client: Client) -> str:
        installed = {row["id"]: row for row in client.models() if row["installed"]}
        name = self.model or ("demo" if "demo" in installed else next(iter(installed), None))
        if name is None or name not in installed:
            raise CheckFailed(f"{name or 'no model'} is not installed; there: {', '.join(installed) or 'nothing'}")
        self.model, self._modes = name, tuple(installed[name]["modes"])
        self._steps = min(_STEPS, installed[name]["num_inference_steps"])
        return f"using {name}, of {len(installed)} installed"

    def _knobs(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "num_frames": _FRAMES,
            "num_inference_steps": self._steps,
            "seed": _SEED,
        }

    def _text(self, client: Client, folder: Path) -> str:
        if "text" not in self._modes:
            raise Skipped(f"{self.model} needs a picture")
        return self._made_whole(client, client.submit(_PROMPT, **self._knobs()), folder)

    def _picture(self, client: Client, http: httpx.Client, folder: Path) -> str:
        if "picture" not in self._modes:
            raise Skipped(f"{self.model} takes no picture")
        file = _json(http.post("/v1/files", files={"file": ("selftest.png", _png())}))["id"]
        self._uploads.append(file)
        video = client.submit(_PROMPT, **self._knobs(), input_reference=file)
        if video.facts["wanreel"]["request"]["mode"] != "picture":
            raise CheckFailed("the uploaded picture was not used")
        return self._made_whole(client, video, folder)

    def _made_whole(self, client: Client, video: RemoteVideo, folder: Path) -> str:
        """Follow a video to its end and look at its files."""
        self._made.append(video.id)
        _check_fields(video.facts, _VIDEO)
        kinds = {event.kind for event in client.events(video.id)}
        done = client.wait(video.id)
        if done.progress != 100 or not {"claimed", "step", "completed"} <= kinds:
            raise CheckFailed(f"progress {done.progress} % and the events {sorted(kinds)}")
        path = client.download(video.id, folder / f"{video.id}.mp4")
        frames = _frames(path.read_bytes())
        if frames != _FRAMES:
            raise CheckFailed(f"{frames} frames instead of {_FRAMES}")
        still = client.download(video.id, folder / f"{video.id}.jpg", "thumbnail").read_bytes()
        with Image.open(io.BytesIO(still)) as picture:
            size = picture.size
        return f"{done.size}, {frames} frames, {path.stat().st_size / 1000:.0f} kB, thumbnail {size[0]}x{size[1]}"

    def _fastvideo(self, http: httpx.Client) -> str:
        if "text" not in self._modes:
            raise Skipped(f"{self.model} needs a picture")
        body = {"prompt": _PROMPT, **self._knobs(), "guidance_scale": 3.0, "randomize_seed": False}
        answer = _json(http.post("/generate_video", json=body, timeout=self.time_limit))
        if not answer.get("success"):
            raise CheckFailed(str(answer.get("error_message", "it answers no success")))
        self._made.append(str(answer["job_id"]))
        _check_fields(answer, _FASTVIDEO)
        start, _, data = answer["video_data"].partition(",")
        frames = _frames(base64.b64decode(data))
        if not start.startswith("data:video/") or frames != _FRAMES or answer["seed"] != _SEED:
            raise CheckFailed(f"{start}, {frames} frames, seed {answer['seed']}")
        return f"{frames} frames in {answer['generation_time']:.1f} s"

    def _clean_up(self, client: Client, http: httpx.Client) -> str:
        for video in self._made:
            with suppress(JobNotFound):
                client.delete(video)
        for file in self._uploads:
            http.delete(f"/v1/files/{file}")
        left = [path for path in self._paths() if http.get(path).status_code != 404]
        if left:
            raise CheckFailed(f"still there: {', '.join(left)}")
        return f"{len(self._made)} videos and {len(self._uploads)} files taken away"

    def _paths(self) -> list[str]:
        return [f"/v1/videos/{video}" for video in self._made] + [f"/v1/files/{file}" for file in self._uploads]


def _tried(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "passed", check())
    except Skipped as reason:
        return Check(name, "skipped", str(reason))
    except (CheckFailed, WanreelError, OSError) as error:
        return Check(name, "failed", str(error))
    except httpx.HTTPError as error:
        return Check(name, "failed", f"the server can't be reached: {error}")
    except (KeyError, TypeError, ValueError) as error:
        return Check(name, "failed", f"the answer is not what a Wanreel answers: {type(error).__name__}: {error}")


def _check_fields(answer: Mapping[str, Any], expected: Mapping[str, type | tuple[type, ...]]) -> None:
    wrong = [name for name, kind in expected.items() if not isinstance(answer.get(name), kind)]
    if wrong:
        raise CheckFailed(f"missing or of another type in the answer: {', '.join(wrong)}")


def _json(answer: httpx.Response) -> Any:
    if not answer.is_success:
        raise RemoteError(f"{answer.request.method} {answer.url.path} answered {answer.status_code}.")
    return answer.json()


def _frames(data: bytes) -> int:
    try:
        with av.open(io.BytesIO(data), "r") as container:
            return sum(1 for _ in container.decode(video=0))
    except av.error.FFmpegError as exc:
        raise CheckFailed(f"the video can't be decoded: {exc}") from exc


def _png() -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize((160, 96)).convert("RGB").save(data, "PNG")
    return data.getvalue()
