"""RunPodClient: videos from an endpoint on RunPod, through its /run, /status and /cancel. Knows no settings."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import httpx

from wanreel.core.errors import (
    Cancelled,
    IllegalTransition,
    InvalidRequest,
    JobError,
    JobNotFound,
    JobTimeout,
    RemoteError,
    UnreadablePicture,
    WanreelError,
    error_of_code,
)
from wanreel.storage.durable import arriving

Picture = str | Path | bytes  #: a file on this machine, or the bytes of one (PNG, JPEG, WebP)
Variant = Literal["video", "last_frame"]

LARGEST = 10 * 1000 * 1000  #: bytes that /run takes
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
#: Seconds between tries while RunPod can't be reached, is busy or failing; the last one repeats until patience ends.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
_BUSY = frozenset({429, 500, 502, 503, 504})
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
#: RunPod's words for how a job stands, and ours.
_STATUSES: Mapping[str, str] = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "in_progress",
    "RUNNING": "in_progress",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "TIMED_OUT": "failed",
    "CANCELLED": "cancelled",
}
_PICTURES: Mapping[str, str] = {"image": "image_base64", "last_image": "last_image_base64"}


@dataclass(frozen=True, slots=True)
class RunPodJob:
    """A job as it was when it was asked for."""

    id: str
    status: str  #: queued, in_progress, completed, failed or cancelled
    progress: int  #: per cent
    stage: str  #: downloading, encode, denoise or decode; empty while queued
    step: int
    total_steps: int
    output: Mapping[str, Any]  #: the result of a completed job
    error: WanreelError | None
    facts: Mapping[str, Any]  #: the whole answer

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")


class RunPodClient:
    """Asks one endpoint for videos.

    Every method raises RemoteError where RunPod can't be reached for `patience` seconds. A submit is repeated only where it
    certainly did not arrive, so it never makes two jobs. `pause`: seconds between two looks at a job.
    """

    def __init__(self, endpoint_id: str, api_key: str, *, url: str, patience: float = 30.0, pause: float = 2.0) -> None:
        if _ID.fullmatch(endpoint_id) is None:
            raise InvalidRequest.of("endpoint", "bad_id", f"{endpoint_id!r} is no id of an endpoint.")
        self._patience = patience
        self._pause = pause
        self._http = httpx.Client(
            base_url=f"{url.rstrip('/')}/{endpoint_id}",
            headers={"authorization": f"Bearer {api_key}"},
            timeout=_TIMEOUT,
        )

    def submit(
        self, prompt: str, *, image: Picture | None = None, last_image: Picture | None = None, **knobs: Any
    ) -> RunPodJob:
        """Queue a video and return at once. Raises UnreadablePicture, InvalidRequest for pictures that are too large."""
        values = {name: value for name, value in knobs.items() if value is not None} | {"prompt": prompt}
        for knob, picture in (("image", image), ("last_image", last_image)):
            if picture is not None:
                values[_PICTURES[knob]] = base64.b64encode(_bytes(picture, knob)).decode()
        if image is None:
            values["mode"] = "text"
        request = self._http.build_request("POST", "run", json={"input": values})
        if len(request.read()) > LARGEST:
            text = f"makes the request larger than the {LARGEST / 1e6:g} MB that RunPod takes."
            raise InvalidRequest.of("image", "too_large", text, "Save it smaller.")
        return _job(self._answer(request))

    def get(self, job_id: str) -> RunPodJob:
        """How a job stands. Raises JobNotFound: RunPod forgets jobs half an hour after their end."""
        return _job(self._answer(self._http.build_request("GET", f"status/{_id(job_id)}")))

    def cancel(self, job_id: str) -> RunPodJob:
        """Stop a job. Raises JobNotFound."""
        return _job(self._answer(self._http.build_request("POST", f"cancel/{_id(job_id)}")))

    def retry(self, job_id: str) -> RunPodJob:
        """Queue a failed job again, which goes on from what is kept. Raises JobNotFound, IllegalTransition."""
        row = self._answer(self._http.build_request("POST", f"retry/{_id(job_id)}"))
        if "status" not in row:
            raise IllegalTransition(f"RunPod does not retry {job_id}.", hint="Only failed jobs can be retried.")
        return _job(row)

    def follow(self, job_id: str) -> Iterator[RunPodJob]:
        """The job each time that something about it has changed, until it has ended."""
        last: RunPodJob | None = None
        while last is None or not last.ended:
            if last is not None:
                time.sleep(self._pause)
            now = self.get(job_id)
            if last is None or now.facts != last.facts:
                yield now
            last = now

    def wait(self, job_id: str) -> RunPodJob:
        """Returns when the job is done. Raises what it failed with, Cancelled when somebody stopped it."""
        *_, job = self.follow(job_id)
        if job.error is not None:
            raise job.error
        return job

    def save(self, job: RunPodJob, to: str | Path, variant: Variant = "video") -> Path:
        """Write a completed job's video, or its last frame, to a file. Raises IllegalTransition, RemoteError."""
        if job.status != "completed":
            raise IllegalTransition(f"{job.id} is {job.status.replace('_', ' ')}: there is nothing to save.")
        to = Path(to)
        with arriving(to) as part:
            self._write(job, variant, part)
        return to

    def _write(self, job: RunPodJob, variant: Variant, file: Path) -> None:
        inline, url = job.output.get(f"{variant}_base64"), job.output.get(f"{variant}_url")
        if isinstance(inline, str):
            try:
                file.write_bytes(base64.b64decode(inline, validate=True))
            except (binascii.Error, ValueError) as exc:
                raise RemoteError(f"The endpoint's {variant} is no base64.") from exc
        elif isinstance(url, str):
            _download(url, file)
        else:
            raise RemoteError(f"The endpoint's answer holds no {variant}.", hint=_HINT)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, request: httpx.Request) -> Mapping[str, Any]:
        """What RunPod says. Where it is busy, or did not hear the question, it is asked again."""
        until, pauses = time.monotonic() + self._patience, iter(_PAUSES)
        makes_a_job = request.url.path.endswith("/run")
        while True:
            said = ""
            try:
                answer = self._http.send(request)
            except httpx.TransportError as exc:
                said = f"RunPod can't be reached: {exc}."
                if makes_a_job and not isinstance(exc, httpx.ConnectError):
                    raise RemoteError(said, hint="Whether the job was taken is not known.") from exc
            else:
                if answer.status_code not in _BUSY:
                    return _read(answer)
                said = f"RunPod answers {answer.status_code}."
            pause = next(pauses, _PAUSES[-1])
            if time.monotonic() + pause > until:
                raise RemoteError(said)
            time.sleep(pause)


_HINT = "Check the endpoint's id, and that it runs `wanreel runpod`."


def _read(answer: httpx.Response) -> Mapping[str, Any]:
    if answer.status_code in (401, 403):
        raise RemoteError("RunPod does not take the key.", hint="Check RUNPOD_API_KEY.")
    if answer.status_code == 404:
        raise JobNotFound("RunPod does not know it, or no longer.", hint=_HINT)
    try:
        row: object = answer.json()
    except ValueError as exc:
        raise RemoteError(f"RunPod answered {answer.status_code} and no JSON.") from exc
    if not answer.is_success or not isinstance(row, dict):
        raise RemoteError(f"RunPod answered {answer.status_code}.", hint=_HINT)
    return cast("Mapping[str, Any]", row)


def _job(row: Mapping[str, Any]) -> RunPodJob:
    try:
        status = _STATUSES[row["status"]]
        job_id = str(row["id"])
    except (KeyError, TypeError) as exc:
        raise RemoteError("RunPod answers in words that are not known.") from exc
    said: object = row.get("output")
    output = cast("Mapping[str, Any]", said) if isinstance(said, dict) else {}
    running = output if status == "in_progress" else {}
    return RunPodJob(
        id=job_id,
        status=status,
        progress=100 if status == "completed" else int(running.get("progress", 0)),
        stage=str(running.get("stage", "")),
        step=int(running.get("step", 0)),
        total_steps=int(running.get("total_steps", 0)),
        output=output if status == "completed" else {},
        error=_failure(row, output),
        facts=row,
    )


def _failure(row: Mapping[str, Any], output: Mapping[str, Any]) -> WanreelError | None:
    """What an ended job is to be told as. Our own workers say the code."""
    match row["status"]:
        case "CANCELLED":
            return Cancelled("The job was cancelled.")
        case "TIMED_OUT":
            return JobTimeout("The job ran past the endpoint's execution limit.", hint="A retry goes on from there.")
        case "FAILED":
            text = str(row.get("error") or output.get("error") or "The job failed.")
            kind = error_of_code(str(output.get("error_code", ""))) or JobError
            if issubclass(kind, InvalidRequest):
                return kind.of("request", kind.code, text)
            return kind(text) if kind.__init__ is WanreelError.__init__ else JobError(text)
        case _:
            return None


def _download(url: str, file: Path) -> None:
    """Without RunPod's key: the address is another server's."""
    try:
        with httpx.stream("GET", url, timeout=_TIMEOUT) as answer, file.open("wb") as out:
            if not answer.is_success:
                raise RemoteError(f"The storage answers {answer.status_code}.", hint="Its address may have run out.")
            for chunk in answer.iter_bytes():
                out.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise RemoteError(f"The storage can't be reached: {exc}.") from exc


def _bytes(picture: Picture, knob: str) -> bytes:
    if isinstance(picture, bytes):
        return picture
    try:
        return Path(picture).read_bytes()
    except OSError as exc:
        raise UnreadablePicture.of(knob, "unreadable_picture", f"{picture} can't be read: {exc.strerror}.") from exc


def _id(job_id: str) -> str:
    """The id, if it can be one: it becomes part of an address."""
    if _ID.fullmatch(job_id) is None:
        raise InvalidRequest.of("id", "bad_id", f"{job_id!r} is no id of a job.")
    return job_id
