"""Health that tells the truth, figures, models, and an OpenAPI document that follows from the knobs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from frontends.http.places import Open, Place
from wanreel.core.request import KNOBS
from wanreel.frontends.http.body_schema import request_schema
from wanreel.jobs import Liveness


def test_live_always_ready_only_with_a_worker_that_lives(place: Place) -> None:
    assert place.client.get("/live").json() == {"status": "live"}
    not_yet = place.client.get("/ready")
    assert not_yet.status_code == 503 and not_yet.json() == {"status": "not_ready", "reasons": ["no worker is running"]}
    name, lock = Liveness(place.service.data.workers).new_worker("test")
    place.service.store.leases.register(name)
    assert place.client.get("/ready").json() == {"status": "ready", "reasons": []}
    lock.release()
    assert place.client.get("/ready").status_code == 503


def test_not_ready_when_the_queue_or_the_disk_is_full(open_place: Open) -> None:
    place = open_place(max_queue_size=1, min_free_gb=10**6)
    place.submit()
    reasons = place.client.get("/ready").json()["reasons"]
    assert "the disk is nearly full" in reasons and "the queue is full" in reasons
    assert place.client.get("/live").status_code == 200


def test_not_ready_from_the_moment_it_stops(place: Place) -> None:
    place.stop()
    assert place.client.get("/ready").json()["reasons"] == ["the server is stopping"]


def test_figures(place: Place) -> None:
    video = place.submit()
    for path in ("/nope", "/" + "x" * 300, f"/v1/videos/{video['id']}"):
        place.client.get(path)
    place.client.request("BREW", "/live")
    text = place.client.get("/metrics").text
    assert 'wanreel_jobs{status="queued"} 1.0' in text
    assert 'wanreel_http_requests_total{method="GET",route="/v1/videos/{video_id}",status="200"} 1.0' in text
    assert 'wanreel_http_requests_total{method="GET",route="other",status="404"} 2.0' in text
    assert 'method="other"' in text and "BREW" not in text and video["id"] not in text


def test_models(place: Place) -> None:
    models = {model["id"]: model for model in place.client.get("/v1/models").json()["data"]}
    assert models["demo"]["installed"] and not models["t2v-a14b"]["installed"]
    assert models["t2v-a14b"]["owned_by"] == "Wan-AI" and models["t2v-a14b"]["fps"] == 16.0
    assert place.client.get("/v1/models/demo").json() == models["demo"]
    assert place.client.get("/v1/models/nope").json()["error"]["code"] == "model_not_found"


def test_the_request_schema_is_the_knobs() -> None:
    schema = request_schema(multipart=False)
    assert set(schema["properties"]) == set(KNOBS) | {"size", "input_reference", "webhook_url", "upload"}
    steps = schema["properties"]["num_inference_steps"]
    assert (steps["type"], steps["minimum"], steps["maximum"]) == (["integer", "string", "null"], 1, 100)
    assert schema["properties"]["quality"]["enum"] == [*KNOBS["quality"].choices, None]
    assert all(knob.help in schema["properties"][name]["description"] for name, knob in KNOBS.items())


def test_the_document_describes_every_route(shared: Place) -> None:
    document = shared.client.get("/openapi.json").json()
    operations = [(path, method, call) for path, calls in document["paths"].items() for method, call in calls.items()]
    assert len(operations) >= 30
    for path, method, call in operations:
        assert call["summary"] and (path == "/live" or call["description"]), (method, path)
        taken = set(re.findall(r"{(\w+)}", path))
        assert {item["name"] for item in call.get("parameters", []) if item["in"] == "path"} == taken
        bodies = call.get("requestBody", {}).get("content", {})
        for body in bodies.values():
            for schema in body["schema"].get("anyOf", [body["schema"]]):
                named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)
                assert named["type"] == "object", (method, path)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_the_api_process_never_imports_torch(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import wanreel.frontends.cli.serve
from wanreel.core.settings import load_settings
from wanreel.frontends.http.app import create_app
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.http.server import build_server
from wanreel.wiring import build_runtime, build_service
from starlette.testclient import TestClient
folder = Path(sys.argv[1])
runtime = build_runtime(load_settings(data_dir=folder))
service = build_service(runtime)
app = create_app(runtime, service, Entrance(), KeyRing(folder / "keys.json"))
build_server(app, app.begin_to_stop)
with TestClient(app, base_url="http://127.0.0.1") as client:
    assert client.post("/v1/videos", json={"prompt": "x", "model": "demo"}).status_code == 200
    assert client.get("/v1/models").status_code == client.get("/openapi.json").status_code == 200
heavy = {"torch", "diffusers", "transformers", "accelerate", "gradio", "ray"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
