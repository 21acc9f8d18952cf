"""`wanreel serve` as users start it, with its worker and the demo model, and the official openai client against it."""

# pyright: reportDeprecated=false
from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import httpx
import openai
import psutil
import pytest
from openai import OpenAI
from openai.types import Video
from PIL import Image

from frontends.http.load import load
from frontends.http.started import Served, serve
from wanreel.host import open_file_limit

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Sora.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*[Vv]ideos API.*:DeprecationWarning"),
    pytest.mark.timeout(240),
]

#: Small and quick, whatever the model would do by default.
QUICK = {"num_frames": 5, "num_inference_steps": 2, "seed": 11}


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="unused", timeout=60) as made:
        yield made


def frames(data: bytes) -> int:
    with av.open(io.BytesIO(data), "r") as container:
        return sum(1 for _ in container.decode(video=0))


def test_create_poll_and_download_with_the_openai_client(client: OpenAI) -> None:
    video = client.videos.create(
        model=cast("Any", "demo"), prompt="a red circle moves right", size=cast("Any", "128x128"), extra_body=QUICK
    )
    assert video.status == "queued" and video.progress == 0
    done = client.videos.poll(video.id, poll_interval_ms=100)
    assert done.status == "completed" and done.progress == 100 and done.error is None
    assert done.size == "128x128" and float(done.seconds) == 5 / 8
    data = client.videos.download_content(video.id).read()
    assert frames(data) == 5
    with Image.open(io.BytesIO(client.videos.download_content(video.id, variant="thumbnail").read())) as thumbnail:
        assert thumbnail.size == (128, 128)
    with Image.open(io.BytesIO(client.videos.download_content(video.id, variant="spritesheet").read())) as sheet:
        assert sheet.size == (3 * 128, 2 * 128)
    remixed = client.videos.remix(video.id, prompt="a blue square moves left")
    assert remixed.remixed_from_video_id == video.id
    assert client.videos.poll(remixed.id, poll_interval_ms=100).status == "completed"


def test_a_video_is_extended_with_the_openai_client(client: OpenAI) -> None:
    video = client.videos.create_and_poll(
        model=cast("Any", "demo"), prompt="a red circle", size=cast("Any", "64x64"), extra_body=QUICK
    )
    # Its own `extend` takes the file alone: it refuses an id before it asks anybody.
    asked = {"video": {"id": video.id}, "prompt": "it falls", "seconds": "4", "num_inference_steps": 1}
    longer = client.post("/videos/extensions", body=asked, cast_to=Video)
    # 4 s are 33 frames of the demo model, of which the first is the last one of the video before.
    assert longer.status == "queued" and float(longer.seconds) == (5 + 33 - 1) / 8
    assert client.videos.poll(longer.id, poll_interval_ms=100).status == "completed"
    whole = client.videos.download_content(longer.id).read()
    assert frames(whole) == 5 + 33 - 1
    again = client.videos.extend(
        video=whole, prompt="it rises", seconds=cast("Any", "4"), extra_body={"num_inference_steps": 1}
    )
    assert client.videos.poll(again.id, poll_interval_ms=100).status == "completed"


def test_a_picture_and_nested_fields_with_the_openai_client(client: OpenAI, picture: bytes) -> None:
    video = client.videos.create_and_poll(
        model=cast("Any", "tiny:ti2v-5b"),
        prompt="it moves",
        input_reference=picture,
        extra_body={**QUICK, "extra_params": {"guidance_scale": 1.0}},
        poll_interval_ms=100,
    )
    assert video.status == "completed", video.error
    assert frames(client.videos.download_content(video.id).read()) == 5


def test_list_delete_and_errors_with_the_openai_client(client: OpenAI) -> None:
    made = [client.videos.create(model=cast("Any", "demo"), prompt=f"video {i}", extra_body=QUICK) for i in range(3)]
    ids = [video.id for video in client.videos.list(limit=2)]
    assert ids[:3] == [video.id for video in reversed(made)]
    for video in made:
        deleted = client.videos.delete(video.id)
        assert deleted.deleted and deleted.object == "video.deleted"
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(made[0].id)
    with pytest.raises(openai.BadRequestError) as error:
        client.videos.create(model=cast("Any", "nope"), prompt="x")
    assert error.value.param == "model" and error.value.type == "invalid_request_error"
    assert "demo" in [model.id for model in client.models.list()]


def test_cancel_frees_the_worker(served: Served, client: OpenAI) -> None:
    long = client.videos.create(model=cast("Any", "demo"), prompt="long", extra_body={"num_inference_steps": 100})
    with httpx.Client(base_url=served.url, timeout=60) as http:
        with http.stream("GET", f"/v1/videos/{long.id}/events") as stream:
            lines = stream.iter_lines()
            assert "event: step" in lines
            assert http.post(f"/v1/videos/{long.id}/cancel").status_code == 200
            kinds = [line for line in lines if line.startswith("event:")]
        assert kinds[-1] == "event: cancelled"
    ended = client.videos.retrieve(long.id)
    assert ended.status == "failed" and ended.error is not None and ended.error.code == "cancelled"


def test_sync_answers_the_bytes(served: Served) -> None:
    form = {"prompt": "a green star", "model": "demo", **{name: str(value) for name, value in QUICK.items()}}
    answer = httpx.post(f"{served.url}/v1/videos/sync", data=form, timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    assert frames(answer.content) == 5 and answer.headers["x-model"] == "demo"


CHAPTER = Path(__file__).parents[3] / "docs" / "api.md"
CAT = Path(__file__).parents[3] / "examples" / "cat.jpg"


def test_the_chapters_shell_examples_run(served: Served, tmp_path: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", CHAPTER.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    shutil.copy(CAT, tmp_path)
    quick = "\n".join(blocks).replace("-F model=demo", "-F model=demo -F num_frames=5")
    quick = quick.replace('"seed": 7', '"num_frames": 5')
    script = 'set -eu\ncurl() { command curl --fail-with-body "$@"; }\n' + quick
    ran = subprocess.run(
        ["bash", "-c", script],
        env=os.environ | {"URL": served.url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr
    assert frames((tmp_path / "video.mp4").read_bytes()) == 5
    assert "event: completed" in ran.stdout and '"deleted":true' in ran.stdout


def test_the_chapters_python_examples_run(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = re.findall(r"```python\n(.*?)```", CHAPTER.read_text(encoding="utf-8"), re.DOTALL)[:2]
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {"url": served.url}
    exec(first.replace('"seed": 7', '"num_frames": 5'), made)
    made["client"].close()
    exec(second.replace('model="demo"', 'model="demo", num_frames=5'), made)
    for name in ("video.mp4", "star.mp4"):
        assert frames((tmp_path / name).read_bytes()) == 5


def test_ready_while_the_worker_is_there(served: Served) -> None:
    assert httpx.get(f"{served.url}/ready").json() == {"status": "ready", "reasons": []}


def test_an_event_stream_goes_on_after_a_restart_and_the_exit_is_clean(tmp_path: Path) -> None:
    with serve(tmp_path, "--api-only") as first:
        url = f"{first.url}/v1/videos"
        video = httpx.post(url, json={"prompt": "x", "model": "demo"}).json()["id"]
        with httpx.stream("GET", f"{url}/{video}/events", timeout=20) as stream:
            lines = stream.iter_lines()
            last = next(line for line in lines if line.startswith("id: ")).removeprefix("id: ")
            first.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(httpx.RemoteProtocolError):
                list(lines)
        assert first.process.wait(20) == 0
    with serve(tmp_path, "--api-only") as second:
        url = f"{second.url}/v1/videos/{video}"
        httpx.post(f"{url}/cancel")
        events = httpx.get(f"{url}/events", headers={"Last-Event-ID": last}).text
        assert re.findall(r"event: (\w+)", events) == ["cancelled"]


def test_it_answers_soon_and_refuses_what_is_unsafe(tmp_path: Path) -> None:
    environment = os.environ | {"WANREEL_DATA_DIR": str(tmp_path)}
    refused = subprocess.run(
        [sys.executable, "-m", "wanreel", "serve", "--host", "0.0.0.0", "--port", "0"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2 and "no API key" in refused.stderr and "wanreel keys create" in refused.stderr
    assert not (tmp_path / "wanreel.db").exists()


def test_the_log_is_json_and_holds_no_key(tmp_path: Path) -> None:
    secret = "operator-key-canary-0123456789"
    log = tmp_path / "log"
    environment = os.environ | {"WANREEL_DATA_DIR": str(tmp_path / "data"), "WANREEL_HTTP__API_KEY": secret}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "wanreel", "serve", "--port", "0", "--api-only", "--no-page", "--json-log"],
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "every request needs an API key" in line and secret not in line
        url = line.split()[3]
        assert httpx.get(f"{url}/v1/videos").status_code == 401
        assert httpx.get(f"{url}/v1/videos?k={secret}", headers={"X-API-Key": secret}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process.stdout.close()
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    assert [line["status"] for line in lines if line["logger"] == "wanreel.access"] == [401, 200]
    everything = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert secret not in everything


def resident_bytes(process: subprocess.Popen[str]) -> int:
    return psutil.Process(process.pid).memory_info().rss


def test_an_answer_is_not_held_back(served: Served) -> None:
    seconds: list[float] = []
    with httpx.Client(base_url=served.url) as http:
        for _ in range(60):
            began = time.monotonic()
            assert http.get("/live").status_code == 200
            seconds.append(time.monotonic() - began)
    # A body that waits for the headers to be acknowledged comes 40 ms late, every time once the connection is warm.
    assert min(seconds[-20:]) < 0.03


def test_a_crowd_is_answered(tmp_path: Path) -> None:
    with serve(tmp_path, "--api-only") as crowded:
        port = int(crowded.url.rpartition(":")[2])
        outcome = asyncio.run(load(port, connections=100, streams=30, rate=40, seconds=3))
    assert outcome.faults == 0 and set(outcome.statuses) == {200}
    assert outcome.events >= 30


@pytest.mark.deep
@pytest.mark.skipif(sys.platform == "win32", reason="opens more files than Windows allows")
def test_a_thousand_clients_for_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_file_limit()
    monkeypatch.setenv("WANREEL_MAX_QUEUE_SIZE", "10000")
    with serve(tmp_path, "--api-only") as crowded:
        port = int(crowded.url.rpartition(":")[2])
        asyncio.run(load(port, connections=10, streams=1, rate=20, seconds=1))
        before = resident_bytes(crowded.process)
        outcome = asyncio.run(load(port, connections=1000, streams=300, rate=40, seconds=60))
        grown = resident_bytes(crowded.process) - before
    slowest = sorted(outcome.submit_seconds)[int(len(outcome.submit_seconds) * 0.99)]
    print(
        f"{outcome.statuses}, submit p99 {slowest:.3f} s, {grown / 1e6:.0f} MB more, open in {outcome.opening_seconds:.1f} s"
    )
    assert outcome.faults == 0 and set(outcome.statuses) == {200}
    assert slowest <= 1.0
    assert grown < 200e6
