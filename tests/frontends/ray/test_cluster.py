"""A cluster on this machine, with the real Ray: FastVideo's shapes, pools from zero and back, an update, its end."""

from __future__ import annotations

import base64
import io
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from frontends.ray.clusters import SMALL, Running, cluster, wait_for
from wanreel.core.errors import SettingsError, WanreelError
from wanreel.core.settings import load_settings
from wanreel.frontends.ray import node
from wanreel.service import Service
from wanreel.wiring import build_runtime, build_service

pytestmark = pytest.mark.timeout(600)

POOLS = (
    "--pool", "t2v=tiny:t2v-1.3b workers=0-2 cpus=0.5",
    "--pool", "i2v=tiny:i2v-14b-480p workers=0-1 cpus=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    options = ("--idle", "1", "--replicas", "2")
    with cluster(tmp_path_factory.mktemp("cluster") / "data", *POOLS, *options) as started:
        yield started


@pytest.fixture(scope="module")
def queue(running: Running) -> Iterator[Service]:
    """The cluster's queue, looked at from here."""
    runtime = build_runtime(load_settings(data_dir=running.data))
    service = build_service(runtime)
    yield service
    service.close()
    runtime.close()


def process_of(running: Running) -> int:
    assert running.process is not None
    return running.process.pid


def picture() -> str:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


def test_text_and_picture_go_each_to_a_pool_that_comes_from_nothing_and_leaves(
    running: Running, queue: Service
) -> None:
    assert httpx.get(f"{running.url}/health").json() == {"status": "healthy"}
    assert httpx.get(f"{running.url}/ready").status_code == 200, "though no worker is there"
    text = running.make(model_type="t2v", return_frames=False, use_negative_prompt=False)
    assert text["success"] is True and text["error_message"] is None and text["seed"] == 7
    assert base64.b64decode(text["video_data"].removeprefix("data:video/mp4;base64,"))[4:8] == b"ftyp"
    assert {"generation_time", "model_load_time", "inference_time", "encoding_time", "total_time"} <= text.keys()
    assert len(text["stage_names"]) == len(text["stage_execution_times"]) > 0
    (attempt,) = queue.attempts(text["job_id"])
    assert attempt.worker.startswith("placed-")
    wait_for(lambda: not queue.store.workers())
    moving = running.make(model_type="i2v", image_data=picture())
    assert moving["success"] is True, moving
    models = {text["job_id"]: "tiny:t2v-1.3b", moving["job_id"]: "tiny:i2v-14b-480p"}
    for job_id, model in models.items():
        assert httpx.get(f"{running.url}/v1/videos/{job_id}").json()["model"] == model
    wait_for(lambda: not queue.store.workers())
    figures = figures_of_all(running)
    counted = r'fastvideo_requests_total{model_type="tiny:t2v-1.3b",replica="\w+",status="success"} 1.0'
    assert re.search(counted, figures), figures[-2000:]
    assert "fastvideo_request_duration_seconds_bucket" in figures and "fastvideo_video_generation_seconds" in figures


def figures_of_all(running: Running) -> str:
    """What both processes of the API tell of themselves: a new connection may come to either."""
    told: dict[str, str] = {}

    def ask() -> bool:
        text = httpx.get(f"{running.url}/metrics").text
        (name,) = set(re.findall(r'replica="(\w+)"', text))
        told[name] = text
        return len(told) == 2

    wait_for(ask)
    return "".join(told.values())


def test_each_of_the_apis_processes_knows_what_the_other_accepted(running: Running, queue: Service) -> None:
    body = {"prompt": "a red circle", "model": "tiny:t2v-1.3b", **SMALL}
    headers = {"Idempotency-Key": "one"}
    ids = {
        httpx.post(f"{running.url}/v1/videos", json=body, headers=headers, timeout=60.0).json()["id"] for _ in range(6)
    }
    (job_id,) = ids
    wait_for(lambda: queue.get(job_id).ended)
    answers = [httpx.get(f"{running.url}/v1/videos/{job_id}/content", timeout=60.0) for _ in range(6)]
    assert {(it.status_code, it.content[4:8]) for it in answers} == {(200, b"ftyp")}
    assert figures_of_all(running).count("# HELP wanreel_http_requests_total") == 2


def test_what_no_pool_makes_is_refused_in_fastvideos_words(running: Running) -> None:
    refused = running.make(model_path="Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert (refused["success"], refused["video_data"]) == (False, "")
    assert "does not make ti2v-5b" in refused["error_message"]
    listed = [row["id"] for row in httpx.get(f"{running.url}/v1/models").json()["data"]]
    assert listed[:2] == ["tiny:t2v-1.3b", "tiny:i2v-14b-480p"], listed


def test_rays_token_is_the_owners_alone_and_its_dashboard_off(running: Running) -> None:
    token = running.data / "ray.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600 and len(token.read_text()) == 64
    commands = [child.cmdline() for child in psutil.Process(process_of(running)).children(recursive=True)]
    assert any("--include-dashboard=false" in command for command in commands)


def test_the_status_tells_of_everything_and_the_end_leaves_nothing(running: Running) -> None:
    status = running.status()
    assert (status["generation"], status["api"]["status"], status["unserved"]) == (1, "RUNNING", 0)
    assert status["api"]["replicas"] == {"RUNNING": 2}
    assert [(row["name"], row["queued"], row["faults"]) for row in status["pools"]] == [("t2v", 0, []), ("i2v", 0, [])]
    rays = psutil.Process(process_of(running)).children(recursive=True)
    assert running.end() == 0, running.log()
    assert not [child for child in psutil.wait_procs(rays, timeout=20)[1] if child.status() != psutil.STATUS_ZOMBIE]
    assert not (running.data / "cluster.json").exists()


def test_ray_without_token_and_public_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(SettingsError, match="lets anybody"):
        node.guard(tmp_path, make=True)
    monkeypatch.delenv("RAY_AUTH_MODE")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=r"no ray\.token"):
        node.guard(tmp_path, make=False)
    node.refuse_public(["127.0.0.1", "10.0.0.5", "192.168.1.9", "::1"], private=False)
    with pytest.raises(SettingsError, match=r"8\.8\.8\.8"):
        node.refuse_public(["10.0.0.5", "8.8.8.8"], private=False)
    node.refuse_public(["8.8.8.8"], private=True)


@pytest.mark.parametrize("starts", [True, False])
def test_a_ray_that_missed_its_own_time_is_started_once_more(tmp_path: Path, starts: bool) -> None:
    last = "print('Ray runtime started', flush=True), time.sleep(60)" if starts else "sys.exit(1)"
    script = f"""
import pathlib, sys, time
tried = pathlib.Path(sys.argv[1])
if not tried.exists():
    tried.touch()
    sys.exit("The current node timed out during startup.")
{last}
"""
    command, log = [sys.executable, "-c", script, str(tmp_path / "tried")], tmp_path / "ray.log"
    log.write_text("Ray runtime started, at another time\n")
    if starts:
        started = node._started(command, "127.0.0.1:1", log)  # pyright: ignore[reportPrivateUsage]
        assert started.process.poll() is None
        started.close()
    else:
        with pytest.raises(WanreelError, match="ended with 1"):
            node._started(command, "127.0.0.1:1", log)  # pyright: ignore[reportPrivateUsage]
