"""`wanreel runpod` under RunPod's own SDK, against a RunPod on loopback: what comes in, what goes out, what happens when
it is stopped, killed or asked twice. The tests share one worker and run in this order."""

from __future__ import annotations

import base64
import io
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from frontends.runpod_plane import (
    ENDPOINT,
    KEY,
    Bucket,
    Plane,
    WorkerProcess,
    bucket_serving,
    environment_of,
    plane_serving,
)
from wanreel.core.errors import Cancelled, IllegalTransition, InvalidRequest, JobNotFound, RemoteError
from wanreel.frontends.cli import main
from wanreel.frontends.runpod_client import RunPodClient

ROOT = Path(__file__).parents[2]
PHOTO = (ROOT / "examples" / "cat.jpg").read_bytes()
BASE64 = base64.b64encode(PHOTO).decode()
#: Sent as request-borne keys; nothing may hold them afterwards.
ACCESS, SECRET = "AKIACANARYCANARY0001", "canary/SecretOfTheRequest+0123456789abcdef"

#: The fields of the first contract's example, with a video that is quickly made.
SEED_003: dict[str, Any] = {
    "image_base64": BASE64,
    "prompt": "Person speaking naturally with subtle hand gestures",
    "negative_prompt": "blurry, distorted, static",
    "num_frames": 5,
    "num_inference_steps": 2,
    "guidance_scale": 5.0,
    "seed": 42,
    "fps": 16,
    "height": 64,
    "width": 96,
}
SEED_004: dict[str, Any] = {
    "image_url": f"data:image/jpeg;base64,{BASE64}",
    "prompt": "A cat walking in a garden, cinematic shot",
    "mode": "video",
    "num_frames": 5,
    "fps": 16,
    "guidance_scale": 5.0,
}
FIELDS = {
    "success", "video_base64", "last_frame_base64", "seed", "inference_time_ms", "num_frames", "fps", "resolution",
    "video_size_bytes",
}  # fmt: skip
STORED = {"video_url", "video_r2_key", "last_frame_url", "last_frame_r2_key"}


@dataclass
class Stage:
    plane: Plane
    url: str
    bucket: Bucket
    folder: Path
    worker: WorkerProcess

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def start(self) -> None:
        """Another worker, where the last one died."""
        self.worker = WorkerProcess(_environment(self), self.folder / "worker.log")
        self.plane.alive = self.worker.alive

    def made(self, values: Any) -> dict[str, Any]:
        """The output of a job that must complete."""
        job = self.plane.run(values)
        answer = self.plane.answer(job)
        assert job.status == "COMPLETED", answer
        return answer["output"]


def _environment(stage: Stage) -> dict[str, str]:
    uploads = {
        "WANREEL_OUTBOUND__UPLOADS": "true",
        "WANREEL_OUTBOUND__ALLOW_HTTP": "true",
        "WANREEL_OUTBOUND__PRIVATE_ORIGINS": json.dumps([stage.bucket.url]),
        "WANREEL_OUTBOUND__UPLOAD_ENDPOINTS": json.dumps([stage.bucket.url]),
    }
    return environment_of(stage.url, stage.folder / "data", stage.scratch, **uploads)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("runpod")
    (folder / "scratch").mkdir()
    with plane_serving() as (plane, url), bucket_serving() as bucket:
        made = Stage(plane, url, bucket, folder, None)  # type: ignore[arg-type]
        made.start()
        try:
            yield made
        finally:
            made.worker.end()


def _frames(output: dict[str, Any]) -> tuple[int, int, int, float]:
    """(frames, width, height, rate) of the video in an answer."""
    data = base64.b64decode(output["video_base64"])
    assert len(data) == output["video_size_bytes"]
    with av.open(io.BytesIO(data), "r") as video:
        pictures = [frame.to_image() for frame in video.decode(video=0)]
        rate = video.streams.video[0].average_rate
    assert rate is not None
    return len(pictures), *pictures[0].size, float(rate)


def _last_frame(output: dict[str, Any]) -> Image.Image:
    with Image.open(io.BytesIO(base64.b64decode(output["last_frame_base64"]))) as picture:
        assert picture.format == "PNG"
        return picture.convert("RGB")


def test_the_image_to_video_contract(stage: Stage) -> None:
    output = stage.made(SEED_003)
    assert set(output) == FIELDS
    facts = {name: output[name] for name in ("success", "seed", "num_frames", "fps", "resolution")}
    assert facts == {"success": True, "seed": 42, "num_frames": 5, "fps": 16, "resolution": "96x64"}
    assert isinstance(output["fps"], int) and isinstance(output["inference_time_ms"], int)
    assert output["inference_time_ms"] > 0
    assert _frames(output) == (5, 96, 64, 16.0)
    assert _last_frame(output).size == (96, 64)


def test_the_sdxl_workers_contract(stage: Stage) -> None:
    """The size follows the picture, 451×300, at 480P's area; what is left out is official."""
    output = stage.made(SEED_004 | {"model": "demo", "num_inference_steps": 2})
    assert set(output) == FIELDS
    assert output["resolution"] == "160x96"
    assert _frames(output)[1:3] == (160, 96)
    aliased = stage.made(
        SEED_004 | {"mode": "video_generation", "model": "demo", "num_inference_steps": 2, "seed": output["seed"]}
    )
    assert aliased["video_base64"] == output["video_base64"]


def test_reports_are_numbered_and_none_comes_after_the_result(stage: Stage) -> None:
    stage.plane.slow_reports = 0.2  # longer than the result needs
    try:
        job = stage.plane.run(SEED_003 | {"seed": 43})
        stage.plane.answer(job)
        time.sleep(0.4)
    finally:
        stage.plane.slow_reports = 0.0
    assert job.late == 0
    by_number = {report["number"]: report for report in job.progress}
    assert sorted(by_number) == list(range(1, len(job.progress) + 1))
    told = [by_number[number] for number in sorted(by_number)]
    assert [report["step"] for report in told if report["stage"] == "denoise"] == [1, 2]
    assert told[-1]["stage"] == "decode"
    assert [report["progress"] for report in told] == sorted(report["progress"] for report in told)


def test_an_id_that_comes_twice_is_made_once(stage: Stage) -> None:
    job = stage.plane.run({name: value for name, value in SEED_003.items() if name != "seed"})
    first = stage.plane.answer(job)["output"]
    reports = len(job.progress)
    stage.plane.hand_out(job)
    assert stage.plane.answer(job, 2)["output"] == first
    assert len(job.progress) == reports, "it was made again"
    # The same id with another request, as in local tests, is another job.
    job.input = SEED_003 | {"seed": 7}
    stage.plane.hand_out(job)
    assert stage.plane.answer(job, 3)["output"]["seed"] == 7


def test_a_cancelled_job_stops_and_the_next_one_is_made(stage: Stage) -> None:
    """RunPod's stop signal arrives while the job runs: the SDK's loop is not blocked."""
    job = stage.plane.run(SEED_003 | {"num_inference_steps": 100, "num_frames": 33, "width": 192, "height": 128})
    stage.plane.wait(lambda: any("step" in report for report in job.progress))
    assert list(stage.scratch.rglob(".runpod_jobs.pkl")), "the SDK notes running jobs elsewhere now"
    assert not _holding(stage.scratch, BASE64[:40].encode())
    stage.plane.cancel(job)
    output = stage.made(SEED_003 | {"seed": 44})
    assert output["seed"] == 44
    assert job.answers == []
    assert len(job.progress) < 100


def test_a_killed_worker_loses_nothing(stage: Stage) -> None:
    """SIGKILL while denoising; the same id goes to a new worker, which ends up with the same bits as an unbroken run."""
    values = SEED_003 | {"num_inference_steps": 16, "num_frames": 17, "seed": 45}
    job = stage.plane.run(values)
    stage.plane.wait(lambda: any(report.get("step", 0) >= 2 for report in job.progress))
    stage.worker.end()
    assert not job.answers
    before = len(job.progress)
    stage.plane.hand_out(job)
    stage.start()
    output = stage.plane.answer(job)["output"]
    steps = [report["step"] for report in job.progress[before:] if "step" in report]
    assert min(steps) >= 2, f"it began anew: {steps}"
    assert stage.made(values)["video_base64"] == output["video_base64"]
    assert any(ping.get("job_id") == [job.id] for ping in stage.plane.pings)


def test_storage_that_comes_with_a_request(stage: Stage) -> None:
    output = stage.made(SEED_003 | {"r2": _r2(stage)})
    assert set(output) == FIELDS | STORED
    key = output["video_r2_key"]
    assert key.startswith("wan-i2v/results/") and key.endswith("_video.mp4")
    assert output["last_frame_r2_key"] == key.replace("_video.mp4", "_lastframe.png")
    assert stage.bucket.objects[f"/results/{key}"] == base64.b64decode(output["video_base64"])
    assert stage.bucket.objects[f"/results/{output['last_frame_r2_key']}"] == base64.b64decode(
        output["last_frame_base64"]
    )
    assert output["video_url"].startswith(f"{stage.bucket.url}/results/{key}?")
    assert any(ACCESS in shown for shown in stage.bucket.authorizations)


def test_storage_that_refuses_costs_no_video(stage: Stage) -> None:
    stage.bucket.refuses = 403
    try:
        output = stage.made(SEED_003 | {"seed": 46, "r2": _r2(stage)})
    finally:
        stage.bucket.refuses = 0
    assert set(output) == FIELDS | {"upload_error"}
    assert SECRET not in json.dumps(output) and ACCESS not in json.dumps(output)


def test_warm_up(stage: Stage) -> None:
    output = stage.made({"warmup": True})
    assert output["success"] is True and output["model"] == "tiny:i2v-a14b"


WRONG: list[tuple[Any, str]] = [
    ({"prompt": "no picture"}, "a picture is needed"),
    ({"image_base64": BASE64}, "prompt: is empty"),
    ({**SEED_003, "num_frames": "many"}, "num_frames: 'many' is not a whole number"),
    ({**SEED_003, "guidance_scal": 5.0}, "guidance_scal: there is no knob"),
    ({**SEED_003, "image_base64": "data"}, "image: is no picture"),
    ({**SEED_003, "image_base64": "/etc/passwd"}, "image: "),
    ({**SEED_003, "image_base64": None, "image_url": "https://example.com/cat.png"}, "does not read addresses"),
    ({**SEED_003, "image_url": "file:///etc/passwd"}, "does not read addresses"),
    ({**SEED_003, "mode": "text"}, 'mode "text" takes no picture'),
    ({**SEED_003, "mode": "podcast"}, "mode: is not offered"),
    ({**SEED_003, "mode": ["video"]}, "mode: is not offered"),
    ({**SEED_003, "seed": {"secret_access_key": SECRET}, "r2": {"secret_access_key": SECRET}}, "r2: "),
    ({**SEED_003, "r2": SECRET}, "r2: must be an object"),
    ({**SEED_003, "r2": {"endpoint_url": "https://s3.elsewhere.example"}}, "r2: "),
    ("a prompt", "input: must be an object"),
    ({"warmup": "yes"}, "warmup: must be"),
]


@pytest.mark.parametrize(("values", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_refusal_says_what_is_wrong(stage: Stage, values: Any, said: str) -> None:
    job = stage.plane.run(values)
    answer = stage.plane.answer(job)
    assert job.status == "FAILED"
    assert said in answer["error"]
    assert answer["output"]["success"] is False and answer["output"]["error_code"]
    text = json.dumps(answer)
    assert "Traceback" not in text and SECRET not in text and len(text) < 20_000


def test_pictures_from_the_same_endpoint(stage: Stage) -> None:
    """mode "image" answers as RunPod's own SDXL worker, and what it made can be animated as it is."""
    asked = {"mode": "image", "prompt": "a lighthouse", "model": "tiny:sdxl-base", "num_inference_steps": 2, "seed": 5}
    output = stage.made({**asked, "width": 128, "height": 64, "num_images": 2, "scheduler": "DDIM"})
    assert set(output) == {"success", "images", "image_url", "seed", "inference_time_ms", "resolution"}
    assert (output["seed"], output["resolution"], len(output["images"])) == (5, "128x64", 2)
    assert output["image_url"] == output["images"][0] != output["images"][1]
    video = stage.made({**SEED_004, "image_url": output["image_url"], "model": "demo", "num_inference_steps": 2})
    assert video["success"] is True
    stored = stage.made({**asked, "width": 64, "height": 64, "r2": _r2(stage)})
    (key,) = stored["image_r2_keys"]
    assert key.startswith("wan-i2v/results/") and key.endswith("_picture.png")
    assert stored["images"] == [stored["image_url"]] and stage.bucket.objects[f"/results/{key}"][:4] == b"\x89PNG"


@pytest.fixture
def client(stage: Stage) -> Iterator[RunPodClient]:
    with RunPodClient(ENDPOINT, KEY, url=stage.url, patience=1.0, pause=0.05) as made:
        yield made


def _asked(**more: Any) -> dict[str, Any]:
    return {name: SEED_003[name] for name in ("prompt", "num_frames", "num_inference_steps", "width", "height")} | more


def test_the_client_makes_a_video(stage: Stage, client: RunPodClient, tmp_path: Path) -> None:
    job = client.submit(**_asked(image=PHOTO, seed=42))
    assert job.status == "queued"
    seen = list(client.follow(job.id))
    assert seen[-1].status == "completed" and seen[-1].progress == 100
    done = client.wait(job.id)
    path = client.save(done, tmp_path / "clip.mp4")
    assert path.stat().st_size == done.output["video_size_bytes"]
    with Image.open(client.save(done, tmp_path / "last.png", "last_frame")) as picture:
        assert picture.size == (96, 64)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mp4", "last.png"]


def test_the_client_fetches_from_storage_without_runpods_key(
    stage: Stage, client: RunPodClient, tmp_path: Path
) -> None:
    stage.bucket.objects["/results/clip.mp4"] = b"a video"
    stage.bucket.authorizations.clear()
    job = stage.plane.run({"warmup": True})
    stage.plane.answer(job)
    job.answers[-1]["output"] = {"video_url": f"{stage.bucket.url}/results/clip.mp4"}
    assert client.save(client.get(job.id), tmp_path / "clip.mp4").read_bytes() == b"a video"
    assert stage.bucket.authorizations == [""]
    del stage.bucket.objects["/results/clip.mp4"]
    with pytest.raises(RemoteError, match="404"):
        client.save(client.get(job.id), tmp_path / "other.mp4")
    assert not (tmp_path / "other.mp4").exists()


def test_the_client_hears_what_was_wrong(stage: Stage, client: RunPodClient, tmp_path: Path) -> None:
    wrong = client.submit(**_asked(image=PHOTO, num_frames=0))
    with pytest.raises(InvalidRequest, match="num_frames"):
        client.wait(wrong.id)
    with pytest.raises(IllegalTransition):
        client.save(client.get(wrong.id), tmp_path / "clip.mp4")
    with pytest.raises(JobNotFound):
        client.get("no-such-job")
    with pytest.raises(InvalidRequest, match="10 MB"):
        client.submit(**_asked(image=bytes(9 * 10**6)))
    with pytest.raises(InvalidRequest, match="no id"):
        client.get("../run")
    with RunPodClient(ENDPOINT, "another", url=stage.url) as stranger, pytest.raises(RemoteError, match="key"):
        stranger.get(wrong.id)
    with RunPodClient(ENDPOINT, KEY, url="http://127.0.0.1:9/v2", patience=0.1) as lost, pytest.raises(RemoteError):
        lost.submit(**_asked())


def test_the_client_cancels_and_retries(stage: Stage, client: RunPodClient) -> None:
    job = client.submit(**_asked(image=PHOTO, num_inference_steps=100, num_frames=33))
    stage.plane.wait(lambda: stage.plane.jobs[job.id].progress)
    assert client.cancel(job.id).status == "cancelled"
    with pytest.raises(Cancelled):
        client.wait(job.id)
    with pytest.raises(IllegalTransition):
        client.retry(job.id)
    failed = client.submit(**_asked(image=PHOTO, num_frames=0))
    stage.plane.answer(stage.plane.jobs[failed.id])
    assert client.retry(failed.id).status == "queued"
    stage.plane.answer(stage.plane.jobs[failed.id], 2)


def test_the_command_line_asks_runpod(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Key and endpoint come from `.env`, as the endpoint's own page tells people to write it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANREEL_REMOTE__RUNPOD_URL", stage.url)
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--server", *words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    assert run("runpod", "show", "x")[0] == 2
    (tmp_path / ".env").write_text(f"RUNPOD_API_KEY={KEY}\nRUNPOD_WAN_I2V_ENDPOINT_ID={ENDPOINT}\nOTHER=1\n")
    (tmp_path / "cat.jpg").write_bytes(PHOTO)
    knobs = ("--steps", "2", "--frames", "5", "--width", "96", "--height", "64", "--seed", "42")
    code, out, err = run("runpod", "generate", "cat.jpg", str(SEED_003["prompt"]), *knobs, "--json", "-o", "made")
    assert code == 0, err
    told = json.loads(out)
    assert Path(told["path"]).stat().st_size == told["video_size_bytes"] and "video_base64" not in told
    code, out, _ = run(f"runpod:{ENDPOINT}", "show", told["id"])
    assert code == 0 and "is completed" in out
    assert run("runpod", "watch", told["id"])[0] == 0
    assert run("runpod", "download", told["id"], "-o", "again/it.mp4")[0] == 0
    assert (tmp_path / "again" / "it.mp4").stat().st_size == told["video_size_bytes"]
    code, out, _ = run("runpod", "submit", "a red circle", "--steps", "0", "--json")
    assert code == 0
    assert run("runpod", "watch", json.loads(out)["id"])[0] == 5
    code, _, err = run("runpod", "jobs")
    assert code == 2 and "not on RunPod" in err


def test_no_secret_is_anywhere(stage: Stage) -> None:
    """After everything above: log, data directory, scratch files, and all that was sent to RunPod."""
    assert stage.bucket.tries, "no secret was used"
    assert not _holding(stage.folder, SECRET.encode())
    assert SECRET not in "".join(stage.plane.received)
    log = (stage.folder / "worker.log").read_text()
    assert "Started." in log, "the SDK's log is not in it"
    assert ACCESS not in log and "X-Amz-Signature" not in log and BASE64[:40] not in log
    assert not _holding(stage.folder / "data", ACCESS.encode())


def test_a_device_fault_replaces_the_worker(stage: Stage, tmp_path: Path) -> None:
    """The job fails with a word, RunPod is told to replace the worker, and the worker takes no other job."""
    broken = "\n".join([
        "from wanreel.core.errors import DeviceFault",
        "from wanreel.core.settings import load_settings",
        "from wanreel.frontends.runpod.worker import run_worker",
        "from wanreel.wiring import Runtime, build_runtime",
        "def generate(self, *given):",
        "    raise DeviceFault('the GPU fell off the bus')",
        "    yield",
        "Runtime.generate = generate",
        "run_worker(build_runtime(load_settings()), None)",
    ])  # fmt: skip
    (tmp_path / "scratch").mkdir()
    with plane_serving() as (plane, url):
        environment = environment_of(url, tmp_path / "data", tmp_path / "scratch")
        worker = WorkerProcess(environment, tmp_path / "log", [sys.executable, "-c", broken])
        try:
            job = plane.run(SEED_003)
            answer = plane.answer(job)
            assert answer["stopPod"] is True and answer["error"] == "the GPU fell off the bus"
            assert worker.process.wait(20) == 0
        finally:
            worker.end()


def test_the_hubs_own_test_runs_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """.runpod/handler.py with the inputs of .runpod/tests.json, as RunPod's hub does it."""
    tests = json.loads((ROOT / ".runpod" / "tests.json").read_text())
    for variable in tests["config"]["env"]:
        monkeypatch.setenv(variable["key"], variable["value"])
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    for name in [name for name in os.environ if name.startswith("RUNPOD_")]:
        monkeypatch.delenv(name)
    interrupt = signal.getsignal(signal.SIGINT)  # the SDK sets a handler of its own
    try:
        for test in [*tests["tests"], {"input": {}}]:
            monkeypatch.setattr(sys, "argv", ["handler.py", "--test_input", json.dumps({"input": test["input"]})])
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(ROOT / ".runpod" / "handler.py"), run_name="__main__")
            said = capsys.readouterr().out
            assert ended.value.code == (0 if test["input"] else 1), said
            assert ("'success': True" if test["input"] else "a picture is needed") in said
    finally:
        signal.signal(signal.SIGINT, interrupt)


def _r2(stage: Stage) -> dict[str, str]:
    return {
        "endpoint_url": stage.bucket.url,
        "access_key_id": ACCESS,
        "secret_access_key": SECRET,
        "bucket_name": "results",
    }


def _holding(folder: Path, text: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]
