"""Client: a Wanreel somewhere else, reached through its HTTP API. Knows no queue, no model and no settings."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, cast

import httpx
from httpx_sse import SSEError, connect_sse

from wanreel.core.errors import (
    Cancelled,
    InvalidRequest,
    JobError,
    Problem,
    QueueFull,
    RemoteError,
    UnreadablePicture,
    WanreelError,
    error_of_code,
)
from wanreel.core.job import TERMINAL
from wanreel.core.request import VideoRequest
from wanreel.frontends.client_groups import RemoteGroups
from wanreel.storage.durable import arriving

Picture = str | Path | bytes  #: a file on this machine, or the bytes of one (PNG, JPEG, WebP)
Variant = Literal["video", "thumbnail", "spritesheet", "last_frame"]

_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
#: Seconds between tries while the server can't be reached; the last one repeats until patience ends.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Silence on an event stream after which it is taken up anew. The server sends a comment every 15 seconds.
_SILENCE = 45.0


@dataclass(frozen=True, slots=True)
class RemoteVideo:
    """A video on the server, as it was when it was asked for."""

    id: str
    status: str  #: queued, in_progress, completed, failed or cancelled
    progress: int  #: per cent
    stage: str  #: load, encode, denoise, decode or export; empty while queued
    step: int
    total_steps: int
    model: str
    prompt: str
    size: str  #: WIDTHxHEIGHT
    seconds: float  #: playing time
    seed: int
    position: int | None  #: place in line, 1 is next
    starts_in: float | None  #: seconds, where the server knows
    error: WanreelError | None
    facts: Mapping[str, Any]  #: the whole answer

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class RemoteEvent:
    """Something that happened to a video."""

    kind: str  #: "step_completed", "completed", …
    video_id: str
    seq: int
    data: Mapping[str, Any]


class Client:
    """Asks a Wanreel server for videos.

        with Client("https://gpu.example", api_key="…") as client:
            path = client.generate("the camera slowly pushes in", "clip.mp4", image="photo.jpg", seed=42)

    Every method raises the same errors as the product itself (`WanreelError`), and RemoteError where the server can't be
    reached or answers what no Wanreel answers. `patience`: seconds to go on trying while it can't be reached; a submit is
    repeated under one idempotency key, so it never makes two videos.
    """

    def __init__(self, url: str, api_key: str | None = None, *, patience: float = 30.0) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._patience = patience
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=_TIMEOUT)

    def models(self) -> list[Mapping[str, Any]]:
        """The models of the server."""
        return self._json("GET", "/v1/models")["data"]

    def plan(
        self,
        request: VideoRequest | str,
        *,
        image: Picture | None = None,
        last_image: Picture | None = None,
        **knobs: Any,
    ) -> Mapping[str, Any]:
        """What would run. Raises InvalidRequest naming every problem."""
        return self._json("POST", "/v1/plan", json=self._body(request, image, last_image, knobs))

    def submit(
        self,
        request: VideoRequest | str,
        *,
        image: Picture | None = None,
        last_image: Picture | None = None,
        idempotency_key: str | None = None,
        **knobs: Any,
    ) -> RemoteVideo:
        """Queue a video and return at once. Raises InvalidRequest, QueueFull, IdempotencyConflict."""
        body = self._body(request, image, last_image, knobs)
        headers = {"idempotency-key": idempotency_key or uuid.uuid4().hex}
        return _video(self._json("POST", "/v1/videos", json=body, headers=headers))

    def get(self, video_id: str) -> RemoteVideo:
        """How a video stands. Raises JobNotFound."""
        return _video(self._json("GET", f"/v1/videos/{_id(video_id)}"))

    def list(self, *, limit: int = 20, after: str | None = None, status: str | None = None) -> list[RemoteVideo]:
        """Your videos, newest first; `after` is the last id of the page before."""
        asked = {"limit": limit, "after": after, "status": status}
        query = {name: value for name, value in asked.items() if value is not None}
        return [_video(row) for row in self._json("GET", "/v1/videos", params=query)["data"]]

    def cancel(self, video_id: str) -> RemoteVideo:
        """Stop a video: a queued one at once, a running one within a step. Raises JobNotFound, IllegalTransition."""
        return _video(self._json("POST", f"/v1/videos/{_id(video_id)}/cancel"))

    def retry(self, video_id: str) -> RemoteVideo:
        """Queue a failed or cancelled video again. Raises JobNotFound, IllegalTransition."""
        return _video(self._json("POST", f"/v1/videos/{_id(video_id)}/retry"))

    def reduce(self, video_id: str) -> RemoteVideo:
        """Queue a smaller video for one that ran out of memory. Raises JobNotFound, IllegalTransition."""
        return _video(self._json("POST", f"/v1/videos/{_id(video_id)}/reduce"))

    def edit(self, video_id: str, **knobs: Any) -> RemoteVideo:
        """Change knobs of a queued video, which keeps its place. Raises InvalidRequest, IllegalTransition."""
        return _video(self._json("PATCH", f"/v1/videos/{_id(video_id)}", json=knobs))

    def move(self, video_id: str, *, before: str | None = None, priority: int | None = None) -> RemoteVideo:
        """Put a queued video before another one, or last, or give it a priority (admin). Raises IllegalTransition."""
        body = {"priority": priority} if priority is not None else {"before": before}
        return _video(self._json("POST", f"/v1/videos/{_id(video_id)}/move", json=body))

    def export(self, video_id: str, **knobs: Any) -> RemoteVideo:
        """Queue another export of a finished video: fps, output_format, quality and the knobs of finishing, of which
        audio is a file. Raises IllegalTransition."""
        audio = knobs.pop("audio", None)
        body = knobs if audio is None else knobs | {"audio": self.upload(audio, "audio")}
        return _video(self._json("POST", f"/v1/videos/{_id(video_id)}/export", json=body))

    def queue(self) -> Mapping[str, Any]:
        """The state of the line."""
        return self._json("GET", "/v1/queue")

    def pause(self, reason: str) -> Mapping[str, Any]:
        """Let no worker take another job (admin)."""
        return self._json("POST", "/v1/queue/pause", json={"reason": reason})

    def resume(self) -> Mapping[str, Any]:
        """Undo any pause (admin)."""
        return self._json("POST", "/v1/queue/resume")

    def delete(self, video_id: str) -> None:
        """Stop and forget a video. Raises JobNotFound."""
        self._json("DELETE", f"/v1/videos/{_id(video_id)}")

    def events(self, video_id: str, *, after: int = 0) -> Iterator[RemoteEvent]:
        """Every event with a seq above `after`, then new ones until the video has ended. Survives a lost connection."""
        tries, ended = _Tries(self._patience), False
        while not ended:
            try:
                for event in self._stream(video_id, after):
                    after, tries, ended = event.seq, _Tries(self._patience), event.kind in TERMINAL
                    yield event
                if not ended:
                    tries.wait(RemoteError("the stream of events ended before the video"))
            except (httpx.TransportError, SSEError) as exc:
                tries.wait(exc)

    def wait(self, video_id: str) -> RemoteVideo:
        """Returns when the video is done. Raises what it failed with, Cancelled when somebody stopped it."""
        for _ in self.events(video_id):
            pass
        video = self.get(video_id)
        if video.error is not None:
            raise video.error
        return video

    def download(self, video_id: str, to: str | Path, variant: Variant = "video") -> Path:
        """Save a finished video, or its thumbnail, spritesheet or last frame, to a file. Raises IllegalTransition."""
        return self._fetch(f"/v1/videos/{_id(video_id)}/content", Path(to), variant)

    def generate(self, request: VideoRequest | str, to: str | Path, **asked: Any) -> Path:
        """Submit, wait and download in one. Takes what `submit` takes."""
        video = self.submit(request, **asked)
        self.wait(video.id)
        return self.download(video.id, to)

    def upload(self, picture: Picture, knob: str = "image") -> str:
        """The id of a picture, or with `knob` "audio" of a sound, that the server took in. Raises InvalidRequest."""
        if isinstance(picture, bytes):
            name, data = "picture", picture
        else:
            name = Path(picture).name
            try:
                data = Path(picture).read_bytes()
            except OSError as exc:
                text = f"{picture} can't be read: {exc.strerror}."
                kind = InvalidRequest if knob == "audio" else UnreadablePicture
                raise kind.of(knob, "unreadable_picture", text) from exc
        return self._json("POST", "/v1/files", files={"file": (name, data)})["id"]

    @property
    def sweeps(self) -> RemoteGroups:
        """One request made many times, side by side."""
        return RemoteGroups("sweeps", self._json, self._fetch)

    @property
    def storyboards(self) -> RemoteGroups:
        """Scenes that become one video."""
        return RemoteGroups("storyboards", self._json, self._fetch)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _body(
        self, request: VideoRequest | str, image: Picture | None, last_image: Picture | None, knobs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A request as JSON, its pictures uploaded."""
        values = {"prompt": request} if isinstance(request, str) else _asked(request)
        body = {name: value for name, value in (values | dict(knobs)).items() if value is not None}
        for knob, picture in (("image", image), ("last_image", last_image), ("audio", body.pop("audio", None))):
            if picture is not None:
                body[knob] = self.upload(picture, knob)
        return body

    def _fetch(self, path: str, to: Path, variant: str) -> Path:
        """Saves a file whole or not at all."""
        tries = _Tries(self._patience)
        while True:
            try:
                with arriving(to) as part:
                    self._save(path, variant, part)
                return to
            except httpx.TransportError as exc:
                tries.wait(exc)

    def _stream(self, video_id: str, after: int) -> Iterator[RemoteEvent]:
        headers = {"last-event-id": str(after)}
        timeout = httpx.Timeout(_SILENCE, connect=10.0)
        path = f"/v1/videos/{_id(video_id)}/events"
        with connect_sse(self._http, "GET", path, headers=headers, timeout=timeout) as source:
            _check(source.response)
            for event in source.iter_sse():
                if event.data:  # a bare `retry:` is no event
                    data = json.loads(event.data)
                    yield RemoteEvent(event.event, video_id, int(data.get("seq", after)), data)

    def _save(self, path: str, variant: str, file: Path) -> None:
        query = {"variant": variant} if variant else {}
        with self._http.stream("GET", path, params=query) as answer, file.open("wb") as out:
            _check(answer)
            for chunk in answer.iter_bytes():
                out.write(chunk)

    def _json(self, method: str, path: str, **more: Any) -> Any:
        tries = _Tries(self._patience)
        while True:
            try:
                answer = self._http.request(method, path, **more)
            except httpx.TransportError as exc:
                tries.wait(exc)
                continue
            _check(answer)
            try:
                return answer.json()
            except ValueError as exc:
                raise RemoteError(f"{answer.url} answered what no Wanreel answers.", hint=_HINT) from exc


class _Tries:
    """How long to go on while the server can't be reached."""

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._pauses = iter(_PAUSES)

    def wait(self, cause: Exception) -> None:
        """Sleeps before the next try. Raises RemoteError when patience is at its end."""
        pause = next(self._pauses, _PAUSES[-1])
        if time.monotonic() + pause > self._until:
            raise RemoteError(f"The server can't be reached: {cause}.", hint=_HINT) from cause
        time.sleep(pause)


_HINT = "Check the address, and that `wanreel serve` runs there."


def _check(answer: httpx.Response) -> None:
    """Raises the server's error as ours."""
    if answer.is_success:
        return
    answer.read()
    try:
        error = cast("dict[str, Any]", answer.json()["error"])
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError) as exc:
        raise RemoteError(f"{answer.url} answered {answer.status_code}.", hint=_HINT) from exc
    _raise(answer, code, message, error)


def _raise(answer: httpx.Response, code: str, message: str, error: Mapping[str, Any]) -> NoReturn:
    kind = error_of_code(code)
    if kind is None:
        raise RemoteError(message, hint=str(error.get("hint", "")))
    if issubclass(kind, InvalidRequest):
        rows = cast("list[Mapping[str, str]]", error.get("problems") or [])
        named = [Problem(row["field"], row["code"], row["message"], row.get("hint", "")) for row in rows]
        raise kind(*(named or [Problem("request", code, message)]), hint=str(error.get("hint", "")))
    if issubclass(kind, QueueFull):
        raise kind(message, retry_after=float(answer.headers.get("retry-after", "30")))
    raise kind(message, hint=str(error.get("hint", "")))


def _video(row: Mapping[str, Any]) -> RemoteVideo:
    try:
        more = row["wanreel"]
        return RemoteVideo(
            id=row["id"],
            status=more["status"],
            progress=row["progress"],
            stage=more["stage"],
            step=more["step"],
            total_steps=more["total_steps"],
            model=row["model"],
            prompt=row["prompt"],
            size=row["size"],
            seconds=float(row["seconds"]),
            seed=row["seed"],
            position=more["position"],
            starts_in=more["starts_in"],
            error=_failure(row["error"]),
            facts=row,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise RemoteError("The server speaks OpenAI's API, but is no Wanreel.", hint=_HINT) from exc


def _failure(error: Mapping[str, str] | None) -> WanreelError | None:
    if error is None:
        return None
    kind = error_of_code(error["code"]) or JobError
    if issubclass(kind, InvalidRequest):
        return kind.of("request", error["code"], error["message"])
    return Cancelled(error["message"]) if error["code"] == Cancelled.code else kind(error["message"])


def _asked(request: VideoRequest) -> dict[str, Any]:
    """A request's values as JSON, without its pictures: they lie in another data directory."""
    values = asdict(request)
    for knob in ("image", "last_image", "audio"):
        if values.pop(knob) is not None:
            raise InvalidRequest.of(knob, "not_here", "lies on this machine.", f"Give it as {knob}=PATH.")
    return values


def _id(video_id: str) -> str:
    """The id, if it can be one: it becomes part of an address."""
    if not video_id.isalnum():
        raise InvalidRequest.of("id", "bad_id", f"{video_id!r} is no id of a video.")
    return video_id
