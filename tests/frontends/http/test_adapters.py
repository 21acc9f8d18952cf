"""FastVideo's and LightX2V's clients find what they look for; no path they send is ever read."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from frontends.http.places import Open, Place
from wanreel.core.catalog import Catalog
from wanreel.frontends.http.fastvideo import _translated
from wanreel.frontends.http.forms import Body


@pytest.fixture
def worked(place: Place) -> Iterator[Place]:
    """A place where somebody completes every job; a prompt that says "fail" fails."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            if place.service.queue().queued:
                job = place.hand.claim()
                if json.loads(job.request)["prompt"] == "fail":
                    place.hand.fail(job)
                else:
                    place.hand.complete(job)

    thread = threading.Thread(target=work)
    thread.start()
    yield place
    over.set()
    thread.join()


def generate(place: Place, **values: Any) -> dict[str, Any]:
    answer = place.client.post("/generate_video", json={"prompt": "x", "model": "demo", **values})
    assert answer.status_code == 200
    return answer.json()


def test_fastvideos_request_and_answer(worked: Place) -> None:
    made = generate(
        worked, negative_prompt="", use_negative_prompt=False, seed=42, randomize_seed=False, guidance_scale=3.0,
        num_frames=17, height=128, width=128, return_frames=False, model_type="t2v",
    )  # fmt: skip
    assert made["success"] is True and made["error_message"] is None and made["seed"] == 42
    head, _, data = made["video_data"].partition(",")
    assert head == "data:video/mp4;base64" and b"ftyp" in base64.b64decode(data)[:16]
    assert made["generation_time"] >= 0 and len(made["stage_names"]) == len(made["stage_execution_times"])
    assert worked.client.get("/health").json() == {"status": "healthy"}


def test_fastvideos_clients_name_models_as_the_hub_does() -> None:
    named = {
        "FastVideo/FastWan2.1-T2V-1.3B-Diffusers": "fastwan2.1-t2v-1.3b",
        "/weights/demo/": "demo",
        "../demo": "demo",
    }
    for path, model in named.items():
        values = _translated(Body({"prompt": "x", "model_path": path}, {})).values
        assert Catalog().get(str(values["model"])).name == model


def test_fastvideos_failures_are_told_in_the_body(worked: Place) -> None:
    for values in (
        {"prompt": ""},
        {"model": "nope"},
        {"model_type": "v2v"},
        {"model_type": "i2v"},
        {"image_path": "/etc/passwd", "model_type": "i2v"},
        {"return_frames": True},
        {"prompt": "fail"},
    ):
        failed = generate(worked, **values)
        assert failed["success"] is False and failed["error_message"], values
        assert "passwd" not in failed["error_message"]
    figures = worked.client.get("/metrics").text
    assert 'fastvideo_requests_total{model_type="unknown",status="error"}' in figures
    assert "fastvideo_request_duration_seconds_bucket" in figures and "fastvideo_video_generation_seconds" in figures


def test_fastvideos_pictures(worked: Place, picture: bytes) -> None:
    text = base64.b64encode(picture).decode()
    kept = worked.client.post("/v1/files", files={"file": ("cat.png", picture)}).json()["id"]
    for values in (
        {"image_data": text},
        {"image_data": f"data:image/png;base64,{text}"},
        {"image_path": kept},
        {"image_path": "cat.png"},
    ):
        made = generate(worked, model="tiny:ti2v-5b", model_type="i2v", num_frames=5, **values)
        assert made["success"] is True, made
    assert generate(worked, randomize_seed=True, model=None, model_path="FastVideo/demo")["success"] is True


def test_lightx2vs_tasks(worked: Place) -> None:
    body = {
        "prompt": "x",
        "model": "demo",
        "infer_steps": 5,
        "target_video_length": 17,
        "seed": 3,
        "save_result_path": "/etc/x.mp4",
    }
    made = worked.client.post("/v1/tasks/video/", json=body).json()
    assert made["task_status"] == "pending" and "save_result_path" in made["notes"][0]
    task = made["task_id"]
    while (state := worked.client.get(f"/v1/tasks/{task}/status").json())["status"] not in ("completed", "failed"):
        time.sleep(0.02)
    assert state["status"] == "completed" and state["progress"] == 100 and state["end_time"] >= state["start_time"]
    assert worked.client.get(f"/v1/tasks/{task}/result").headers["content-type"] == "video/mp4"
    assert task in worked.client.get("/v1/tasks/").json()
    assert worked.client.delete(f"/v1/tasks/{task}").json()["stop_status"] == "do_nothing"
    assert worked.client.delete("/v1/tasks/all/running").json()["stop_status"] == "do_nothing"


def test_lightx2vs_queue_and_forms(place: Place, picture: bytes) -> None:
    form = {"prompt": "x", "model": "tiny:ti2v-5b", "target_video_length": "17"}
    made = place.client.post("/v1/tasks/video/form", data=form, files={"image_file": ("x.png", picture)}).json()
    queue = place.client.get("/v1/tasks/queue/status").json()
    assert (queue["pending_count"], queue["active_count"], queue["is_processing"]) == (1, 1, False)
    assert place.client.delete(f"/v1/tasks/{made['task_id']}").json()["stop_status"] == "success"
    assert place.client.get(f"/v1/tasks/{made['task_id']}/status").json()["status"] == "cancelled"
    for more in (
        {"image_path": "/etc/passwd"},
        {"presigned_url": "http://127.0.0.1/"},
        {"video_path": "/x"},
        {"num_fragments": 2},
    ):
        assert place.client.post("/v1/tasks/", json={"prompt": "x", "model": "demo", **more}).status_code == 400, more
    shaped = place.client.post("/v1/tasks/", json={"prompt": "x", "model": "demo", "target_shape": [128, 128]}).json()[
        "task_id"
    ]
    assert place.client.get(f"/v1/videos/{shaped}").json()["size"] == "128x128"


def test_others_tasks_do_not_exist(open_place: Open) -> None:
    place = open_place()
    me, you = place.as_key("me"), place.as_key("you")
    task = place.client.post("/v1/tasks/", json={"prompt": "x", "model": "demo"}, headers=me).json()["task_id"]
    assert place.client.get(f"/v1/tasks/{task}/status", headers=you).status_code == 404
    assert place.client.delete(f"/v1/tasks/{task}", headers=you).status_code == 404
    assert place.client.get("/v1/tasks/", headers=you).json() == {}
    assert place.client.post("/generate_video", json={"prompt": "x"}).status_code == 401


def test_all_that_runs_of_ones_own_is_stopped(open_place: Open) -> None:
    place = open_place()
    me, you = place.as_key("me"), place.as_key("you")
    mine, yours, waiting = (
        place.client.post("/v1/tasks/", json={"prompt": "x", "model": "demo"}, headers=who).json()["task_id"]
        for who in (me, you, me)
    )
    assert {place.hand.claim().id for _ in range(2)} == {mine, yours}
    assert place.client.delete("/v1/tasks/all/running", headers=me).json()["stop_status"] == "success"
    wanted = {task: place.service.get(task).cancel_requested for task in (mine, yours, waiting)}
    assert wanted == {mine: True, yours: False, waiting: False}
