"""A cluster on this machine, with the real Ray: FastVideo's shapes, pools from zero and back, an update, its end."""

from __future__ import annotations

import base64
import io
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from frontends.ray.clusters import Running, cluster, wait_for
from wanreel.core.errors import SettingsError
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
    with cluster(tmp_path_factory.mktemp("cluster") / "data", *POOLS, "--idle", "1") as started:
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
    figures = httpx.get(f"{running.url}/metrics").text
    assert 'fastvideo_requests_total{model_type="t2v-1.3b",status="success"} 1.0' in figures.replace("tiny:", "")
    assert "fastvideo_request_duration_seconds_bucket" in figures and "fastvideo_video_generation_seconds" in figures


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
