"""The RunPod handler in this process, where time and machine can be played: limits, faults, sizes, kept work."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import Cancelled, DeviceFault, StorageRefused, StorageUnavailable
from wanreel.core.events import Event, StepCompleted
from wanreel.core.settings import Settings, load_settings
from wanreel.frontends.fetcher import build_fetcher
from wanreel.frontends.own_storage import build_own_storage
from wanreel.frontends.runpod import storing
from wanreel.frontends.runpod.deadline import SAFE, TIMEOUT, Deadline
from wanreel.frontends.runpod.handler import Handler
from wanreel.frontends.runpod.progress import Progress
from wanreel.frontends.runpod.storing import Storing
from wanreel.host import FileLock
from wanreel.media.video import probe
from wanreel.storage.ledger import Ledger
from wanreel.storage.objects import MemoryObjects, Parcel
from wanreel.wiring import Runtime, build_runtime

PHOTO = (Path(__file__).parents[2] / "examples" / "cat.jpg").read_bytes()
QUICK: dict[str, Any] = {
    "image_base64": base64.b64encode(PHOTO).decode(),
    "prompt": "a cat",
    "model": "tiny:i2v-a14b",
    "num_frames": 5,
    "num_inference_steps": 2,
    "width": 64,
    "height": 64,
}
PROFILE = {"shelf": {"bucket": "videos", "prefix": "wan-i2v/results", "endpoint": "https://s3.example"}}


class Bench:
    """Handlers over one runtime, told of through `reports`."""

    def __init__(self, runtime: Runtime, objects: MemoryObjects) -> None:
        self.runtime = runtime
        self.objects = objects
        self.reports: list[dict[str, Any]] = []
        self.on_report: Callable[[dict[str, Any]], object] = lambda facts: None
        self.replaced = 0

    def handler(self, settings: Settings | None = None) -> Handler:
        chosen = settings or self.runtime.settings
        own = build_own_storage(chosen.outbound, build_fetcher(chosen.outbound))
        return Handler(
            self.runtime, Storing(chosen, own, lambda destination: self.objects), report=self._report, replace_worker=self._replace
        )  # fmt: skip

    def _report(self, job_id: str, facts: dict[str, object]) -> None:
        self.reports.append(facts)
        self.on_report(facts)

    def _replace(self) -> None:
        self.replaced += 1

    def answer(self, job_id: str, values: Any, settings: Settings | None = None) -> dict[str, Any]:
        handler = self.handler(settings)
        try:
            return asyncio.run(handler.answer({"id": job_id, "input": values}))
        finally:
            handler.close()

    @property
    def steps(self) -> list[int]:
        return [report["step"] for report in self.reports if "step" in report and report["stage"] == "denoise"]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    made = build_runtime(
        load_settings(
            data_dir=tmp_path_factory.mktemp("handler"), device="cpu", storage=PROFILE, runpod={"progress_seconds": 0}
        )
    )
    yield made
    made.close()


@pytest.fixture
def bench(runtime: Runtime) -> Bench:
    return Bench(runtime, MemoryObjects())


def _with(runtime: Runtime, **runpod: Any) -> Settings:
    """The settings with some of RunPod's changed, in the runtime too."""
    changed = runtime.settings.runpod.model_copy(update=runpod)
    runtime.settings = runtime.settings.model_copy(update={"runpod": changed})
    return runtime.settings


@pytest.fixture(autouse=True)
def settings_stay(runtime: Runtime) -> Iterator[None]:
    before = runtime.settings
    yield
    runtime.settings = before


# The limit


def test_a_state_is_saved_half_a_minute_before_the_limit() -> None:
    """Whatever a step takes: the last state that was saved in time leaves no further step that could have been, too."""
    for step in (0.5, 7.0, 40.0, 100.0):
        now = 0.0
        deadline = Deadline(600.0, lambda: now)  # noqa: B023 - called before the loop goes on
        saved: list[float] = []
        for number in range(1, int(600 / step)):
            now += step
            if deadline.urgent():
                saved.append(now)
            deadline.see(StepCompleted(number, 1000, step, 0.0))
        in_time = [at for at in saved if at <= 600 - SAFE]
        assert in_time and max(in_time) + step > 600 - SAFE - 3.0, step
        assert min(saved) > 600 - SAFE - 3.0 - 2 * step, "saved long before there was need"


def test_the_work_stops_shortly_before_the_limit() -> None:
    token = CancelToken()
    with Deadline(5.1).stopping(token):
        assert token.wait(5.0)
    assert token.reason == TIMEOUT
    with Deadline(600.0).stopping(other := CancelToken()):
        pass
    assert not other.cancelled


def test_a_job_that_ran_into_its_limit_goes_on_when_it_is_retried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same id again, as RunPod's /retry does it; the seed that was drawn is kept too."""
    values = {**QUICK, "num_inference_steps": 8}
    monkeypatch.setattr("wanreel.frontends.runpod.deadline.SAFE", 600.0)  # each state is the last one in time
    tokens: list[CancelToken] = []
    generate = Runtime.generate

    def noted(self: Runtime, resolution: Any, cancel: CancelToken, keeping: Any) -> Any:
        tokens.append(cancel)
        return generate(self, resolution, cancel, keeping)

    def stop_at_five(facts: dict[str, Any]) -> None:
        if facts.get("step") == 5:
            tokens[-1].cancel(TIMEOUT)  # as `Deadline.stopping` does

    monkeypatch.setattr(Runtime, "generate", noted)
    bench.on_report = stop_at_five
    stopped = bench.answer("limited", values)
    assert stopped["success"] is False and stopped["error_code"] == "timeout"
    assert "execution limit of 600 s" in stopped["error"] and "step 5" in stopped["error"]
    bench.on_report, bench.reports = lambda facts: None, []
    first = bench.answer("limited", values)
    assert first["success"] is True, first
    assert min(bench.steps) >= 5, bench.steps
    whole = bench.answer("whole", {**values, "seed": first["seed"]})
    assert whole["video_base64"] == first["video_base64"]


def test_sigterm_lets_every_step_be_saved(bench: Bench) -> None:
    """A worker that is told to end may be killed at any moment; the SDK's own handler runs too."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    def told(facts: dict[str, Any]) -> None:
        if facts.get("step") == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the handler runs in the main thread
        if facts.get("step") == 5:
            raise SystemExit  # as good as killed

    bench.on_report = told
    try:
        with pytest.raises(SystemExit):
            bench.answer("terminated", {**QUICK, "num_inference_steps": 8, "seed": 3})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    bench.on_report, bench.reports = lambda facts: None, []
    assert bench.answer("terminated", {**QUICK, "num_inference_steps": 8, "seed": 3})["success"] is True
    assert min(bench.steps) >= 4, bench.steps


# Faults


def test_a_fault_of_the_device_or_of_ours_replaces_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a-secret-of-the-request"
    values = {**QUICK, "r2": {"secret_access_key": secret}, "seed": 1}

    def failing(error: Exception) -> Callable[..., Iterator[Event]]:
        def generate(*given: Any) -> Iterator[Event]:
            raise error
            yield

        return generate

    monkeypatch.setattr(Storing, "place", lambda self, r2, profile: None)
    monkeypatch.setattr(Runtime, "generate", failing(DeviceFault("the GPU fell off the bus")))
    answer = bench.answer("device", dict(values))
    assert answer["refresh_worker"] is True and answer["error"] == "the GPU fell off the bus" and bench.replaced == 1
    monkeypatch.setattr(Runtime, "generate", failing(KeyError(secret)))
    answer = bench.answer("ours", dict(values))
    assert answer["refresh_worker"] is True and "KeyError: a fault in Wanreel" in answer["error"]
    assert secret not in json.dumps(answer) and bench.replaced == 2
    monkeypatch.setattr(Runtime, "generate", failing(MemoryError()))
    answer = bench.answer("memory", dict(values))
    assert answer["error_code"] == "out_of_memory" and "refresh_worker" not in answer


def test_no_secret_is_logged(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    secret = "another-secret-of-the-request"

    def generate(*given: Any) -> Iterator[Event]:
        raise ValueError(f"botched with {secret}")
        yield

    monkeypatch.setattr(Storing, "place", lambda self, r2, profile: None)
    monkeypatch.setattr(Runtime, "generate", generate)
    given = {**QUICK, "r2": {"secret_access_key": secret}}
    job = {"id": "logged", "input": given}
    handler = bench.handler()
    asyncio.run(handler.answer(job))
    handler.close()
    assert "botched with [hidden]" in caplog.text and secret not in caplog.text
    assert job["input"] == {}, "the SDK holds the keys for as long as the job runs"


# Results


def test_the_built_in_model_takes_no_other_ones_place(bench: Bench) -> None:
    """Elsewhere a missing default falls back to it. Here somebody pays for the model that the endpoint is named after."""
    values = {name: value for name, value in QUICK.items() if name != "model"}
    answer = bench.answer("unnamed", values)
    assert answer["success"] is False and answer["error_code"] in ("model_not_installed", "hub_unavailable")
    assert "ti2v-5b" in answer["error"]


def test_past_the_limit_of_an_answer_the_address_is_told(bench: Bench) -> None:
    _with(bench.runtime, inline_mb=0.002)
    small = bench.answer("large", {**QUICK, "seed": 9})
    assert small["success"] is False and "more than the 0.002 MB" in small["error"] and "retry" in small["error"]
    reports = len(bench.reports)
    stored = bench.answer("large", {**QUICK, "seed": 9, "storage": "shelf"})
    assert len(bench.reports) == reports, "it was made again"
    assert "video_base64" not in stored and stored["video_r2_key"] == "wan-i2v/results/large_video.mp4"
    assert stored["last_frame_r2_key"] == "wan-i2v/results/large_lastframe.png"
    assert len(bench.objects.objects[stored["video_r2_key"]]) == stored["video_size_bytes"]


def test_the_endpoints_own_storage_is_taken_when_it_is_set(bench: Bench) -> None:
    settings = bench.runtime.settings.model_copy(update={"default_storage": "shelf"})
    answer = bench.answer("own", {**QUICK, "seed": 9}, settings)
    assert answer["video_url"] == "memory:wan-i2v/results/own_video.mp4" and "video_base64" in answer
    assert "video_url" not in bench.answer("own", {**QUICK, "seed": 9, "storage": "local"}, settings)
    assert bench.answer("own", {**QUICK, "storage": "nowhere"})["error_code"] == "invalid_request"


def test_storage_that_is_away_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "_PAUSES", (0.0, 0.0))
    tries: list[str] = []
    put = MemoryObjects.put

    def away_twice(self: MemoryObjects, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        tries.append(key)
        if len(tries) < 3:
            raise StorageUnavailable("It is away.")
        put(self, key, parcel, cancel)

    monkeypatch.setattr(MemoryObjects, "put", away_twice)
    answer = bench.answer("away", {**QUICK, "seed": 9, "storage": "shelf"})
    assert "video_url" in answer and len(tries) == 4

    def refuse(*given: Any) -> None:
        raise StorageRefused("The keys are wrong.")

    monkeypatch.setattr(MemoryObjects, "put", refuse)
    answer = bench.answer("away", {**QUICK, "seed": 9, "storage": "shelf"})
    assert answer["success"] is True and "The keys are wrong." in answer["upload_error"] and "video_url" not in answer


def test_a_kept_result_that_is_damaged_is_made_again(bench: Bench) -> None:
    first = bench.answer("damaged", {**QUICK, "seed": 9})
    folder = bench.runtime.settings.data.root / "runpod" / "damaged"
    (folder / "video.mp4").write_bytes(b"half")
    assert bench.answer("damaged", {**QUICK, "seed": 9})["video_base64"] == first["video_base64"]
    (folder / "result.json").write_text("{")
    assert bench.answer("damaged", {**QUICK, "seed": 9})["video_base64"] == first["video_base64"]
    assert not (folder / "checkpoints").exists()


def test_one_worker_makes_an_id_at_a_time(bench: Bench) -> None:
    """Another one, on the same volume, has it: this one waits, and stops waiting when RunPod stops the job."""
    root = bench.runtime.settings.data.root / "runpod"
    root.mkdir(exist_ok=True)
    other = FileLock(root / "shared.lock")
    assert other.acquire()

    async def cancelled() -> None:
        handler = bench.handler()
        work = asyncio.create_task(handler.answer({"id": "shared", "input": {**QUICK, "seed": 9}}))
        await asyncio.sleep(0.3)
        assert not work.done()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        handler.close()

    asyncio.run(cancelled())
    assert not bench.reports
    other.release()
    assert bench.answer("shared", {**QUICK, "seed": 9})["success"] is True


def test_what_is_old_goes(tmp_path: Path) -> None:
    now = time.time()
    ledger = Ledger(tmp_path, keep=100.0, clock=lambda: now)
    for name in ("old", "busy", "young/with a slash"):
        with ledger.open(name, "asked", lambda seconds: None) as entry:
            entry.begin({"seed": 1})
    names = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert {"old", "busy"} < names and len(names) == 3
    busy = FileLock(tmp_path / "busy.lock")
    assert busy.acquire()
    for path in (*tmp_path.glob("old*"), *tmp_path.glob("busy*")):
        os.utime(path, (now - 200, now - 200))
    ledger.sweep()
    left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == names - {"old"}
    busy.release()
    with ledger.open("busy", "another request", lambda seconds: None) as entry:
        assert entry.begun() is None and entry.made() is None

    def impatient(seconds: float) -> None:
        raise Cancelled("no more")

    assert busy.acquire()
    with pytest.raises(Cancelled), ledger.open("busy", "asked", impatient):
        pass
    busy.release()


def test_reports_are_few_and_numbered() -> None:
    now, sent = 0.0, list[dict[str, object]]()
    progress = Progress(sent.append, 2.0, lambda: now)
    for step in range(1, 41):
        now += 0.5
        progress.see(StepCompleted(step, 40, 0.5, 20 - step / 2))
    assert len(sent) == 10
    assert [report["number"] for report in sent] == list(range(1, 11))
    assert sent[-1] == {
        "number": 10, "stage": "denoise", "progress": 83, "step": 37, "total_steps": 40, "eta_seconds": 1.5,
    }  # fmt: skip


BOARD: dict[str, Any] = {
    "mode": "storyboard",
    "model": "demo",
    "num_frames": 5,
    "num_inference_steps": 1,
    "width": 64,
    "height": 64,
    "colour_match": 0.5,
    "reference_image": base64.b64encode(PHOTO).decode(),
    "scenes": [
        {"motion_prompt": "a cat", "seed": 1},
        {"motion_prompt": "it sits down"},
        {"motion_prompt": "it sleeps", "transition": "crossfade", "transition_frames": 2},
    ],
}


def _frames(text: str, folder: Path) -> int:
    path = folder / "got.mp4"
    path.write_bytes(base64.b64decode(text))
    return probe(path).num_frames


def test_a_storyboard_answers_each_scene_and_the_whole(bench: Bench, tmp_path: Path) -> None:
    answer = bench.answer("film", BOARD)
    assert answer["success"], answer
    assert [_frames(segment["video_base64"], tmp_path) for segment in answer["segments"]] == [5, 5, 5]
    assert _frames(answer["video_base64"], tmp_path) == answer["num_frames"] == 15 - 2 - 2
    assert [segment["prompt"] for segment in answer["segments"]] == ["a cat", "it sits down", "it sleeps"]
    assert answer["segments"][0]["seed"] == 1 and answer["resolution"] == "64x64" and not answer["copied"]
    assert base64.b64decode(answer["last_frame_base64"]).startswith(b"\x89PNG")
    steps = len(bench.steps)
    again = bench.answer("film", BOARD)
    assert again["video_base64"] == answer["video_base64"] and len(bench.steps) == steps, "nothing is made again"


def test_a_storyboard_that_was_stopped_goes_on_at_its_scene(bench: Bench) -> None:
    def stop(facts: dict[str, Any]) -> None:
        if facts["stage"] == "denoise" and len(bench.steps) == 2:
            raise DeviceFault("the GPU fell off the bus")

    bench.on_report = stop
    failed = bench.answer("film-2", BOARD)
    assert (failed["error_code"], bench.replaced) == ("device_fault", 1)
    bench.on_report, before = lambda facts: None, len(bench.steps)
    assert bench.answer("film-2", BOARD)["success"]
    assert len(bench.steps) - before <= 2, "the first scene is not made again"


def test_what_is_wrong_with_a_storyboard_is_said_by_scene(bench: Bench) -> None:
    answer = bench.answer("film-3", {**BOARD, "scenes": [{"motion_prompt": "a"}, {"seconds": 99, "prompt": "b"}, {}]})
    assert [problem["field"] for problem in answer["problems"]] == ["scenes[2].seconds", "scenes[3].prompt"]


def test_a_storyboard_in_storage_is_told_by_addresses_where_it_is_too_large(bench: Bench, runtime: Runtime) -> None:
    answer = bench.answer("film-4", {**BOARD, "storage": "shelf"}, _with(runtime, inline_mb=0.004))
    assert answer["success"], answer
    assert all("video_url" in segment and "video_base64" not in segment for segment in answer["segments"])
    assert answer["video_url"].endswith(".mp4") and len(bench.objects.objects) == 5


EDITOR = "tiny:qwen-image-edit-2509"


def test_a_picture_is_edited_and_an_edited_picture_animated(bench: Bench) -> None:
    asked = {"image_base64": QUICK["image_base64"], "prompt": "make it night", "num_inference_steps": 2, "seed": 4}
    edited = bench.answer("edit", {"mode": "edit", "model": EDITOR, "width": 64, "height": 64, **asked})
    assert edited["success"] and edited["images"][0].startswith("data:image/png;base64,"), edited
    assert bench.answer("none", {"mode": "edit", "prompt": "make it night"})["problems"][0]["field"] == "image_base64"
    chained = {**QUICK, "seed": 4, "edit_prompt": "make it night", "edit_model": EDITOR}
    made = bench.answer("chain", chained)
    assert made["success"] and made["video_base64"] and made["last_frame_base64"] and made["keyframe_base64"], made
    assert "keyframe" in {report["stage"] for report in bench.reports}
    bench.reports.clear()
    assert bench.answer("chain", chained)["keyframe_base64"] == made["keyframe_base64"]  # delivered again
    assert not bench.steps
