"""LoRAs over HTTP: what is here and fits, taking one in, names that are never paths, clear words before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frontends.http.places import Open, Place
from models.lora_files import RandomLora
from wanreel import demo
from wanreel.frontends.http import guard
from wanreel.frontends.http import loras as routes
from wanreel.testing import build_tiny
from wanreel.wiring import Runtime

GOLD = demo.lora_paths()["gold"].read_bytes()
QUICK = {"prompt": "a red circle", "model": "demo", "num_frames": 5, "seed": 1}


def lora_for(runtime: Runtime, model: str) -> RandomLora:
    return RandomLora.of(build_tiny(runtime.catalog.get(model)).experts[0].transformer)


def upload(place: Place, data: bytes = GOLD, file: str = "more gold.safetensors", **fields: Any) -> Any:
    headers = fields.pop("headers", None)
    return place.client.post("/v1/loras", files={"file": (file, data)}, data=fields, headers=headers)


def test_the_list_says_what_fits(shared: Place) -> None:
    body = shared.client.get("/v1/loras").json()
    (gold,) = body["data"]
    assert (gold["name"], gold["builtin"], gold["target"], gold["fault"]) == ("gold", True, "both", None)
    assert (gold["format"], gold["base"], gold["rank"], gold["layers"]) == ("Diffusers", "width 160", [8, 8], 64)
    assert gold["fits"] == [{"model": "demo", "ok": True, "matched": 64, "unmatched": 0, "examples": [], "fault": None}]


def test_one_is_inspected_for_any_model(shared: Place) -> None:
    (fit,) = shared.client.get("/v1/loras/gold?model=i2v-a14b").json()["fits"]
    assert not fit["ok"] and fit["fault"] == "it is for models of width 160, i2v-a14b has width 5120"
    assert shared.client.get("/v1/loras/gold.safetensors").json()["name"] == "gold"
    assert shared.client.get("/v1/loras/silver").status_code == 404
    assert shared.client.get("/v1/loras/..%2f..%2fconfig").status_code == 404
    assert shared.client.get("/v1/loras/gold?model=nonsense").status_code == 400


def test_from_upload_to_removal(place: Place) -> None:
    answer = upload(place)
    assert answer.status_code == 200, answer.text
    lora = answer.json()
    assert lora["name"] == "more-gold" and len(lora["sha256"]) == 64
    assert (place.folder / "loras" / "more-gold.safetensors").read_bytes() == GOLD
    assert upload(place, name="more-gold").json() == lora  # the same file again
    assert {it["name"] for it in place.client.get("/v1/loras").json()["data"]} == {"gold", "more-gold"}
    assert place.client.delete("/v1/loras/more-gold").json()["deleted"]
    assert place.client.get("/v1/loras/more-gold").status_code == 404
    assert not list((place.folder / "loras").iterdir())


def test_another_file_does_not_take_a_name(place: Place, tmp_path: Path) -> None:
    other = lora_for(place.runtime, "tiny:t2v-14b").save(tmp_path / "x.safetensors").read_bytes()
    assert upload(place, name="mine").status_code == 200
    for name in ("mine", "gold"):
        answer = upload(place, other, name=name)
        assert answer.status_code == 400 and answer.json()["error"]["problems"][0]["code"] == "taken"
    assert (place.folder / "loras" / "mine.safetensors").read_bytes() == GOLD


@pytest.mark.parametrize(
    ("data", "file", "fields", "code"),
    [
        (b"\x80\x04evil", "x.safetensors", {}, "broken_lora"),
        (b"PK\x03\x04", "x.safetensors", {}, "broken_lora"),
        (GOLD, "x.pt", {}, "broken_lora"),
        (GOLD[:-1], "x.safetensors", {}, "broken_lora"),
        (b"", "x.safetensors", {}, "broken_lora"),
        (GOLD, "x.safetensors", {"name": "../x"}, "bad_name"),
        (GOLD, "x.safetensors", {"name": "a/b"}, "bad_name"),
        (GOLD, "x.safetensors", {"name": "x" * 65}, "bad_name"),
        (GOLD, "x.safetensors", {"path": "x"}, "unknown_field"),
    ],
)
def test_bad_uploads_leave_nothing(shared: Place, data: bytes, file: str, fields: dict[str, str], code: str) -> None:
    answer = upload(shared, data, file, **fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["problems"][0]["code"] == code
    assert str(shared.folder) not in answer.text
    assert not list((shared.folder / "loras").glob("*")) and not (shared.folder / "x.safetensors").exists()


def test_nan_is_refused_at_the_door(shared: Place, tmp_path: Path) -> None:
    lora = lora_for(shared.runtime, "tiny:t2v-14b")
    next(iter(lora.weights.values()))[1][0, 0] = float("inf")
    answer = upload(shared, lora.save(tmp_path / "x.safetensors").read_bytes())
    assert "NaN or infinity" in answer.json()["error"]["message"]


def test_taking_in_and_forgetting_are_the_operators(open_place: Open) -> None:
    place = open_place(keys={"boss": ("admin",), "user": ("read", "submit")})
    boss = place.as_key("boss2", "admin", "read", "submit")
    user = place.as_key("user2", "read", "submit")
    assert upload(place).status_code == 401
    assert upload(place, headers=user).status_code == 403
    assert upload(place, headers=boss).status_code == 200
    assert place.client.get("/v1/loras", headers=user).status_code == 200
    assert place.client.delete("/v1/loras/more-gold", headers=user).status_code == 403
    assert place.client.delete("/v1/loras/gold", headers=boss).status_code == 400  # ships with it


def test_only_a_lora_of_the_operators_may_be_large(open_place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual limit of a form is lifted for nobody else and for nothing else."""
    monkeypatch.setattr(guard, "MULTIPART_LIMIT", 100_000)
    place = open_place(keys={"boss": ("admin",)})
    boss, user = place.as_key("boss2", "admin", "read", "submit"), place.as_key("user2", "read", "submit")
    assert upload(place, headers=boss).status_code == 200
    assert upload(place, headers=user).status_code == 403  # without a byte of it being read
    assert place.client.post("/v1/files", files={"file": ("x.png", GOLD)}, headers=boss).status_code == 413


def test_a_full_disk_is_said_before_the_body_is_read(shared: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "free_bytes", lambda _: 1000)
    answer = upload(shared)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "insufficient_storage"


# In requests


def test_a_request_names_a_lora_and_pins_its_hash(shared: Place) -> None:
    request = shared.submit(**QUICK, loras=[{"name": "gold", "strength": 0.5, "schedule": "0,1"}])["wanreel"]["request"]
    (lora,) = request["loras"]
    assert (lora["name"], lora["strength_high"], lora["schedule"], len(lora["sha256"])) == ("gold", 0.5, "0,1", 64)


@pytest.mark.parametrize(
    "fields",
    [
        {"loras[][name]": "gold", "loras[][strength]": "0.5"},
        {"loras[][path]": "gold", "loras[][scale]": "0.5"},
        {"loras[0][path]": "gold", "loras[0][scale]": "0.5"},
        {"loras": json.dumps([{"name": "gold", "strength": 0.5}])},
        {"lora": json.dumps({"name": "gold", "scale": 0.5})},
    ],
)
def test_every_way_a_form_can_say_it(shared: Place, fields: dict[str, str]) -> None:
    form = {name: str(value) for name, value in QUICK.items()} | fields
    answer = shared.client.post("/v1/videos", data=form)
    assert answer.status_code == 200, answer.text
    (lora,) = answer.json()["wanreel"]["request"]["loras"]
    assert (lora["name"], lora["strength_high"]) == ("gold", 0.5)


def test_lightx2v_clients(shared: Place) -> None:
    body = {"prompt": "a red circle", "model": "demo", "lora_name": "gold.safetensors", "lora_strength": 0.7}
    answer = shared.client.post("/v1/tasks/", json=body)
    assert answer.status_code == 200, answer.text
    request = json.loads(shared.service.get(answer.json()["task_id"]).request)
    assert [(lora["name"], lora["strength_high"]) for lora in request["loras"]] == [("gold", 0.7)]


@pytest.mark.parametrize(
    ("loras", "model", "code"),
    [
        (["silver"], "demo", "no_lora"),
        (["../../etc/passwd"], "demo", "bad_name"),
        ([{"path": "/data/loras/gold.safetensors"}], "demo", "bad_name"),
        ([{"path": "C:\\gold"}], "demo", "bad_name"),
        (["gold"], "tiny:t2v-14b", "wrong_base"),
        ([{"name": "gold", "sha256": "0" * 64}], "demo", "changed"),
        ([{"name": "gold", "strength": 11}], "demo", "out_of_range"),
        ([{"name": "gold", "schedule": "fast"}], "demo", "bad_schedule"),
        (["gold", "gold"], "demo", "contradiction"),
    ],
)
def test_wrong_loras_are_refused_before_any_work(shared: Place, loras: Any, model: str, code: str) -> None:
    before = shared.service.queue().queued
    answer = shared.client.post("/v1/videos", json=QUICK | {"model": model, "loras": loras})
    assert answer.status_code == 400, answer.text
    problems = answer.json()["error"]["problems"]
    assert [(problem["field"], problem["code"]) for problem in problems] == [("loras", code)]
    assert shared.service.queue().queued == before
    assert str(shared.folder) not in answer.text


def test_a_damaged_file_on_the_shelf_is_shown_and_refused(place: Place) -> None:
    upload(place)
    path = place.folder / "loras" / "more-gold.safetensors"
    path.write_bytes(GOLD[:100])
    damaged = place.client.get("/v1/loras/more-gold").json()
    assert damaged["fault"] and damaged["fits"] == [] and damaged["layers"] is None
    answer = place.client.post("/v1/videos", json=QUICK | {"loras": ["more-gold"]})
    assert answer.json()["error"]["problems"][0]["code"] == "broken_lora"


def test_fast_without_its_loras_says_what_to_install(shared: Place, picture: bytes) -> None:
    form = {"prompt": "a cat", "model": "tiny:i2v-a14b", "preset": "fast"}
    answer = shared.client.post("/v1/videos", data=form, files={"input_reference": ("a.png", picture)})
    assert answer.status_code == 400
    assert "wanreel loras add" in answer.json()["error"]["problems"][0]["hint"]


def test_fast_with_them_is_a_request_of_four_steps(place: Place, picture: bytes, tmp_path: Path) -> None:
    lora = lora_for(place.runtime, "tiny:i2v-a14b").save(tmp_path / "x.safetensors").read_bytes()
    name = "wan2.2_i2v_A14b_%s_noise_lora_rank64_lightx2v_4step_1022"
    for expert in ("high", "low"):
        assert upload(place, lora, f"{name % expert}.safetensors").json()["partner"] == (
            None if expert == "high" else name % "high"
        )
    form = {"prompt": "a cat", "model": "tiny:i2v-a14b", "preset": "fast", "seed": "1"}
    answer = place.client.post("/v1/videos", data=form, files={"input_reference": ("a.png", picture)})
    assert answer.status_code == 200, answer.text
    request = answer.json()["wanreel"]["request"]
    assert (request["num_inference_steps"], request["guidance_high"], request["flow_shift"]) == (4, 1, 5)
    assert [(it["strength_high"], it["strength_low"]) for it in request["loras"]] == [(1, 0), (0, 1)]
