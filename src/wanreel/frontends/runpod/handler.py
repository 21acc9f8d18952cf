"""Handler: one RunPod job, from its input to its answer. Only translates; `Runtime.generate` does the work.

Knows nothing of RunPod's SDK but the shape of a job. Jobs run one at a time in a thread of their own, so that the SDK's
loop goes on fetching, cancelling and reporting meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import (
    Cancelled,
    DeviceFault,
    GenerationError,
    InvalidRequest,
    JobTimeout,
    OutOfMemory,
    WanreelError,
)
from wanreel.core.events import Completed, Drawn, Event, Resumed
from wanreel.core.modes import mode_of
from wanreel.core.picture import PictureRef
from wanreel.core.picture_request import PictureRequest, ResolvedPicture
from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.request import VideoRequest
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.sound import SoundRef
from wanreel.frontends.picture_text import Fetch
from wanreel.frontends.runpod.answers import PictureResult, Result, VideoResult, failure, without
from wanreel.frontends.runpod.deadline import TIMEOUT, Deadline
from wanreel.frontends.runpod.film import Director, FilmResult
from wanreel.frontends.runpod.inputs import Asked, read_input, secrets_in, with_length
from wanreel.frontends.runpod.progress import Progress
from wanreel.frontends.runpod.storing import Storing
from wanreel.storage.disk import MemoryBlobs
from wanreel.storage.ledger import Entry, Ledger, digest_of
from wanreel.wiring import Runtime

_log = logging.getLogger(__name__)

Answer = dict[str, object]
Found = TypeVar("Found", Resolution, PictureResolution)
Report = Callable[[str, dict[str, object]], object]  #: tells RunPod how far the job of that id is


class Handler:
    """Answers the jobs of one worker. `answer` is what RunPod's SDK calls."""

    def __init__(
        self,
        runtime: Runtime,
        storing: Storing,
        *,
        fetch: Fetch | None = None,  #: None: pictures at http(s) addresses are not read
        report: Report = lambda job_id, facts: None,
        settle: Callable[[], object] = lambda: None,  #: returns when every report has been sent
        replace_worker: Callable[[], object] = lambda: None,  #: this process is not to take another job
    ) -> None:
        settings = runtime.settings.runpod
        self._runtime = runtime
        self._storing = storing
        self._fetch = fetch
        self._report = report
        self._settle = settle
        self._replace = replace_worker
        self._ledger = Ledger(runtime.settings.data.root / "runpod", settings.keep_hours * 3600)
        self._thread = ThreadPoolExecutor(1, "job")

    async def answer(self, job: dict[str, Any]) -> Answer:
        """The answer to a job. Raises nothing but CancelledError, when RunPod stops the job."""
        token, deadline = CancelToken(), Deadline(self._runtime.settings.runpod.execution_limit)
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, job, token, deadline)
        with _hurried_by_sigterm(deadline):
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                token.cancel()
                await asyncio.wait([work])  # the GPU must be free before the next job
                raise

    def close(self) -> None:
        self._thread.shutdown()

    def _answer(self, job: dict[str, Any], token: CancelToken, deadline: Deadline) -> Answer:
        given: object = job.get("input")
        secrets = secrets_in(given)
        if isinstance(given, dict):
            job["input"] = {}  # the SDK keeps the job for as long as it runs
        try:
            with deadline.stopping(token):
                return self._done(str(job.get("id", "")), read_input(given), token, deadline)
        except Cancelled:
            return failure(_stopped(token, deadline), secrets)
        except WanreelError as error:
            _log.warning("job %s: %s: %s", job.get("id"), error.code, without(secrets, str(error)))
            return self._failed(error, secrets)
        except MemoryError:
            return self._failed(OutOfMemory("The machine ran out of memory."), secrets)
        except Exception as error:  # noqa: BLE001 - the worker must answer: an escaping error is sent with its traceback
            _log.error("job %s: a fault in Wanreel\n%s", job.get("id"), without(secrets, traceback.format_exc()))
            said = f"{type(error).__name__}: a fault in Wanreel; the worker's log has the details."
            return self._failed(GenerationError(said), secrets, replace_worker=True)
        finally:
            self._settle()

    def _failed(self, error: WanreelError, secrets: Sequence[str], *, replace_worker: bool = False) -> Answer:
        answer = failure(error, secrets)
        if replace_worker or isinstance(error, DeviceFault):
            self._replace()
            answer["refresh_worker"] = True
        return answer

    def _done(self, job_id: str, asked: Asked, token: CancelToken, deadline: Deadline) -> Answer:
        if asked.kind == "warmup":
            return self._warm_up(asked, deadline)
        self._ledger.sweep()
        # Before anything is made: whether it can be handed over.
        place = self._storing.place(asked.r2, asked.storage)

        def wait(seconds: float) -> None:
            token.wait(seconds)
            token.check()

        with self._ledger.open(job_id, digest_of({"kind": asked.kind, **asked.values}), wait) as entry:
            result = _earlier(entry, asked) or self._make(entry, asked, token, deadline, job_id)
            outcome = self._storing.store(place, entry.work, result.files(), token)
            return result.answer(outcome, int(self._runtime.settings.runpod.inline_mb * 1e6))

    def _warm_up(self, asked: Asked, deadline: Deadline) -> Answer:
        """Loads the model that is named, or the one that a picture without a model gets."""
        name = asked.values.get("model") or self._runtime.settings.default_picture_model
        if not isinstance(name, str):
            raise InvalidRequest.of("model", "wrong_type", "must be text.")
        self._runtime.load(name)
        return {"success": True, "model": self._runtime.held, "load_time_ms": round(deadline.seconds * 1000)}

    def _make(self, entry: Entry, asked: Asked, token: CancelToken, deadline: Deadline, job_id: str) -> Result:
        pause = self._runtime.settings.runpod.progress_seconds
        progress = Progress(lambda facts: self._report(job_id, facts), pause)
        if asked.kind == "storyboard":

            def see(event: Event) -> None:
                deadline.see(event)
                progress.see(event)

            director = Director(self._runtime, entry, MemoryBlobs(), token, deadline.urgent, see)
            return _finished(entry, director.make(asked, self._fetch))
        with contextlib.closing(self._running(entry, asked, token, deadline)) as running:
            for event in running:
                deadline.see(event)
                progress.see(event)
                match event:
                    case Resumed(step=step, notes=notes):
                        _log.info("job %s: goes on after step %d %s", job_id, step, "; ".join(notes))
                    case Completed(video=video, seconds=seconds):
                        return _finished(entry, VideoResult(video, seconds))
                    case Drawn(drawing=drawing, seconds=seconds):
                        return _finished(entry, PictureResult(drawing, seconds))
                    case _:
                        pass
        raise GenerationError("The generation ended without a result.")

    def _running(self, entry: Entry, asked: Asked, token: CancelToken, deadline: Deadline) -> Generator[Event]:
        """The events of making it, what an earlier delivery did left out."""
        pictures = MemoryBlobs()  # the input brings them with every delivery

        def take(data: bytes, knob: str) -> PictureRef:
            return self._runtime.take_picture(data, knob, pictures)

        def hear(data: bytes, knob: str) -> SoundRef:
            return self._runtime.take_sound(data, knob, pictures)

        keeping = entry.keeping(pictures, deadline.urgent)
        if asked.kind == "image":
            drawing = self._drawing(entry, asked.drawing(take, self._fetch))
            return self._runtime.draw(drawing, token, keeping)
        return self._runtime.generate(self._video(entry, asked.video(take, self._fetch, hear)), token, keeping)

    def _video(self, entry: Entry, request: VideoRequest) -> Resolution:
        """What an earlier delivery began to make, else what is asked now, written down."""
        begun = entry.begun()
        if begun is not None:
            with contextlib.suppress(KeyError, TypeError, InvalidRequest):
                return self._runtime.resolve(ResolvedRequest.from_dict(begun).as_request())
        if request.model is None:
            # By name: what is not here is downloaded or refused, and nobody pays for the built-in model instead.
            request = replace(request, model=self._runtime.defaults().model_for[mode_of(request)])
        longest = self._runtime.resolve(request).spec.hard_max_frames
        return _begun(entry, self._runtime.resolve(with_length(request, longest)))

    def _drawing(self, entry: Entry, request: PictureRequest) -> PictureResolution:
        begun = entry.begun()
        if begun is not None:
            with contextlib.suppress(KeyError, TypeError, InvalidRequest):
                return self._runtime.resolve_picture(ResolvedPicture.from_dict(begun).as_request())
        return _begun(entry, self._runtime.resolve_picture(request))


def _begun(entry: Entry, resolution: Found) -> Found:
    for adjustment in resolution.adjustments:
        _log.info("job %s: %s", entry.work, adjustment)
    entry.begin(resolution.request.to_dict())
    return resolution


def _finished(entry: Entry, result: Result) -> Result:
    entry.finish(result.to_record())
    return result


_READERS: Mapping[str, Callable[[Mapping[str, Any], Path], Result | None]] = {
    "video": VideoResult.from_record,
    "image": PictureResult.from_record,
    "storyboard": FilmResult.from_record,
}


def _earlier(entry: Entry, asked: Asked) -> Result | None:
    """What an earlier delivery made, if it is whole."""
    record = entry.made()
    if record is None:
        return None
    read = _READERS[asked.kind]
    try:
        return read(record, entry.folder)
    except (KeyError, TypeError) as exc:
        _log.warning("job %s: the earlier result can't be read and is made again: %s", entry.work, exc)
        return None


def _stopped(token: CancelToken, deadline: Deadline) -> WanreelError:
    if token.reason != TIMEOUT:
        return Cancelled("The job was stopped.")
    return JobTimeout(
        f"The job stopped at {deadline.seconds:.0f} s, before the endpoint's execution limit of {deadline.limit:g} s.",
        hint=f"What was done until step {deadline.step} is kept: a retry of this job goes on from there.",
    )


@contextlib.contextmanager
def _hurried_by_sigterm(deadline: Deadline) -> Generator[None]:
    """Within the block, a request to end this process also lets every step be saved. The SDK's own handler runs too."""
    former = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or not callable(former):
        yield
        return

    def ended(number: int, frame: FrameType | None) -> None:
        deadline.hurry()
        former(number, frame)

    signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
