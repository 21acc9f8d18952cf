"""/v1/videos over a real store: OpenAI's shapes, statuses and errors, once whatever the client repeats."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from frontends.http.places import Open, Place

BODY = {"prompt": "a red circle", "model": "demo"}
STAINLESS = {"x-stainless-retry-count": "0"}
OPENAI_FIELDS = {
    "id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at", "size", "seconds",
    "prompt", "remixed_from_video_id", "error",
}  # fmt: skip


def error_of(answer: Any) -> Any:
    body = answer.json()
    assert set(body) == {"error"} and {"message", "type", "param", "code"} <= set(body["error"])
    return body["error"]


def test_a_video_as_openai_shows_it(place: Place) -> None:
    video = place.submit(seed=7, size="128x128")
    assert set(video) >= OPENAI_FIELDS
    assert video["object"] == "video" and video["status"] == "queued" and video["progress"] == 0
    assert video["size"] == "128x128" and isinstance(video["seconds"], str) and video["error"] is None
    assert video["seed"] == 7 and video["wanreel"]["position"] == 1
    drawn = place.submit()
    assert "seed" in [change["field"] for change in drawn["wanreel"]["adjustments"]]


def test_multipart_and_json_mean_the_same(place: Place, picture: bytes) -> None:
    form = place.client.post(
        "/v1/videos",
        data={"prompt": "x", "model": "tiny:ti2v-5b", "seed": "3", "num_frames": "17"},
        files={"input_reference": ("upload", picture, "application/octet-stream")},
    ).json()
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    body = {"prompt": "x", "model": "tiny:ti2v-5b", "seed": 3, "num_frames": 17, "input_reference": url}
    assert place.client.post("/v1/videos", json=body).json()["wanreel"]["request"] == form["wanreel"]["request"]
    assert form["wanreel"]["request"]["mode"] == "picture"


def test_progress_follows_the_steps(place: Place) -> None:
    video = place.submit()
    job = place.hand.claim()
    seen = []
    for step in (1, 6, 12):
        place.hand.step(job, step, 12)
        shown = place.client.get(f"/v1/videos/{video['id']}")
        assert shown.headers["openai-poll-after-ms"] == "1000"
        seen.append((shown.json()["status"], shown.json()["progress"]))
    assert seen == [("in_progress", 7), ("in_progress", 47), ("in_progress", 95)]
    place.hand.decode(job, 0.5)
    shown = place.client.get(f"/v1/videos/{video['id']}").json()
    assert (shown["progress"], shown["wanreel"]["stage"]) == (97, "decode")
    place.hand.decode(job, 1.0)
    assert place.client.get(f"/v1/videos/{video['id']}").json()["progress"] == 99
    place.hand.complete(job)
    shown = place.client.get(f"/v1/videos/{video['id']}").json()
    assert (shown["status"], shown["progress"]) == ("completed", 100) and shown["completed_at"] >= shown["created_at"]


def test_cancelled_is_failed_with_a_code(place: Place) -> None:
    video = place.submit()
    cancelled = place.client.post(f"/v1/videos/{video['id']}/cancel").json()
    assert cancelled["status"] == "failed" and cancelled["error"]["code"] == "cancelled"
    assert cancelled["wanreel"]["status"] == "cancelled"
    assert place.client.post(f"/v1/videos/{video['id']}/cancel").status_code == 200


def test_a_failure_says_what_to_do(place: Place) -> None:
    video = place.submit()
    place.hand.fail(place.hand.claim())
    failed = place.client.get(f"/v1/videos/{video['id']}").json()
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "out_of_memory", "message": "There was not enough memory. Ask for less."}
    again = place.client.post(f"/v1/videos/{video['id']}/retry").json()
    assert again["status"] == "queued" and again["error"] is None


def test_pages(place: Place) -> None:
    ids = [place.submit()["id"] for _ in range(5)]
    seen, after = [], None
    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        page = place.client.get("/v1/videos", params=query).json()
        assert (
            page["object"] == "list"
            and page["first_id"] == page["data"][0]["id"]
            and page["last_id"] == page["data"][-1]["id"]
        )
        seen += [video["id"] for video in page["data"]]
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert seen == ids[::-1]
    assert [video["id"] for video in place.client.get("/v1/videos?order=asc").json()["data"]] == ids
    assert place.client.get("/v1/videos?status=completed").json() == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }  # fmt: skip


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "status=done", "after=" + "x" * 65])
def test_bad_queries_are_400(shared: Place, query: Any) -> None:
    assert error_of(shared.client.get(f"/v1/videos?{query}"))["type"] == "invalid_request_error"


def test_files_of_a_video(place: Place) -> None:
    video = place.submit()
    path = f"/v1/videos/{video['id']}/content"
    assert error_of(place.client.get(path))["code"] == "not_ready"
    data = place.hand.complete(place.hand.claim())
    whole = place.client.get(path)
    assert whole.content == data and whole.headers["content-type"] == "video/mp4"
    assert whole.headers["content-disposition"].startswith("attachment;")
    assert whole.headers["x-content-type-options"] == "nosniff"
    part = place.client.get(path, headers={"Range": "bytes=10-19"})
    assert (
        part.status_code == 206
        and part.content == data[10:20]
        and part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    )
    assert place.client.get(path, headers={"Range": "bytes=-5"}).content == data[-5:]
    assert place.client.get(path, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    for several in ("bytes=0-1,5-6", "bytes=0-0," * 1000 + "1-1"):
        answer = place.client.get(path, headers={"Range": several})
        assert answer.status_code == 200 and answer.content == data
    kinds = {"thumbnail": "image/jpeg", "spritesheet": "image/jpeg", "last_frame": "image/png"}
    for variant, media_type in kinds.items():
        answer = place.client.get(path, params={"variant": variant})
        assert answer.status_code == 200 and answer.headers["content-type"] == media_type
    assert place.client.get(path, params={"variant": "../x"}).status_code == 400
    assert place.client.get(f"/v1/videos/{video['id']}/manifest").json()["job"] == video["id"]


def test_delete_forgets_job_and_files(place: Place) -> None:
    video = place.submit()
    place.hand.complete(place.hand.claim())
    assert list(place.service.results.glob(f"{video['id']}*"))
    answer = place.client.delete(f"/v1/videos/{video['id']}")
    assert answer.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert not list(place.service.results.glob(f"{video['id']}*"))
    assert place.client.get(f"/v1/videos/{video['id']}").status_code == 404


def test_delete_stops_a_running_job_first(place: Place) -> None:
    video = place.submit()
    job = place.hand.claim()
    with ThreadPoolExecutor() as pool:
        deleting = pool.submit(place.client.delete, f"/v1/videos/{video['id']}")
        while not place.hand.leases.heartbeat(job.id, job.attempt).cancel:
            pass
        place.hand.leases.confirm_cancel(job.id, job.attempt, seconds=1.0)
        assert deleting.result().status_code == 200
    assert place.client.get(f"/v1/videos/{video['id']}").status_code == 404


def test_remix_keeps_everything_but_the_prompt(place: Place) -> None:
    video = place.submit(seed=5)
    remixed = place.client.post(f"/v1/videos/{video['id']}/remix", json={"prompt": "a blue star"}).json()
    assert (
        remixed["remixed_from_video_id"] == video["id"] and remixed["prompt"] == "a blue star" and remixed["seed"] == 5
    )
    for body in ({}, {"prompt": 3}, {"prompt": ""}, {"prompt": "x", "more": 1}):
        assert place.client.post(f"/v1/videos/{video['id']}/remix", json=body).status_code == 400


def test_others_videos_do_not_exist(open_place: Open) -> None:
    place = open_place()
    mine, yours, admin = place.as_key("me"), place.as_key("you"), place.as_key("boss", "admin")
    video = place.client.post("/v1/videos", json=BODY, headers=mine).json()
    unknown = place.client.get("/v1/videos/" + "0" * 32, headers=yours)
    calls = [
        ("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/content"), ("GET", "/events"), ("GET", "/preview"),
        ("GET", "/manifest"), ("POST", "/cancel"), ("POST", "/retry"),
        ("POST", "/reduce"), ("POST", "/remix"), ("POST", "/move"), ("POST", "/export"),
    ]  # fmt: skip
    for method, path in calls:
        answer = place.client.request(
            method, f"/v1/videos/{video['id']}{path}", json={"prompt": "x"} if path == "/remix" else {}, headers=yours
        )
        assert answer.status_code == 404 and answer.json() == unknown.json(), (method, path)
    assert place.client.get("/v1/videos", headers=yours).json()["data"] == []
    assert place.client.get("/v1/videos", params={"after": video["id"]}, headers=yours).status_code == 404
    assert place.client.get("/v1/queue", headers=yours).json()["jobs"] == []
    assert place.client.get(f"/v1/videos/{video['id']}", headers=admin).status_code == 200
    same = place.keys.create("my other phone", owner="me")
    assert place.client.get(f"/v1/videos/{video['id']}", headers={"X-API-Key": same}).status_code == 200


@pytest.mark.parametrize(
    "video_id", ["x", "0" * 31, "0" * 33, "G" * 32, "..%2F..%2Fetc%2Fpasswd", "%00", "\u00e9", "0" * 4000]
)
def test_ids_that_are_none_are_404(shared: Place, video_id: Any) -> None:
    assert shared.client.get(f"/v1/videos/{video_id}").status_code == 404


def test_errors_never_repeat_what_was_sent(shared: Place) -> None:
    canary = "canary-4f9a"
    bodies = [
        {"prompt": {"secret": canary}, "model": "demo"},
        {"prompt": "x", "r2_secret_access_key": canary},
        {"prompt": "x", "seed": canary},
        {"prompt": "x", "image": canary},
        {"prompt": "x", "loras": [{"name": "a", "strength": canary}]},
        {"prompt": "x", "width": {"a": canary}},
        {"prompt": "x", "seed": 1, "extra_body": {"seed": canary}},
    ]
    for body in bodies:
        answer = shared.client.post("/v1/videos", json=body)
        assert answer.status_code == 400 and canary not in answer.text, answer.text
        assert error_of(answer)["type"] == "invalid_request_error"
    for answer in (
        shared.client.post("/v1/videos", content=f'{{"prompt": {canary}', headers={"Content-Type": "application/json"}),
        shared.client.get(f"/v1/videos?limit={canary}"),
        shared.client.get("/v1/videos/x", headers={"Last-Event-ID": canary}),
    ):
        assert answer.status_code in (400, 404) and canary not in answer.text


def test_every_problem_is_named(shared: Place) -> None:
    error = error_of(shared.client.post("/v1/videos", json={"prompt": "", "seed": -5, "model": "nope", "bogus": 1}))
    assert {problem["field"] for problem in error["problems"]} >= {"bogus"}
    error = error_of(shared.client.post("/v1/videos", json={"prompt": "", "seed": -5, "num_inference_steps": 0}))
    assert [problem["field"] for problem in error["problems"]] == ["prompt", "num_inference_steps", "seed"]
    missing = error_of(shared.client.post("/v1/videos", json={"prompt": "x", "model": "t2v-a14b"}))
    assert missing["code"] == "model_not_installed" and "/" not in missing["message"].replace("/v1/models", "")


def test_hostile_pictures_are_400(shared: Place, picture: bytes) -> None:
    for data in (b"", b"GIF89a" + b"x" * 100, picture[:40], b"<svg/>" * 40, b"\x00" * 500):
        answer = shared.client.post("/v1/videos", data=BODY, files={"input_reference": ("../x.png", data)})
        assert answer.status_code == 400 and "0x" not in answer.text
        assert error_of(answer)["param"] == "image"


def test_an_idempotency_key_makes_one_job_of_many_posts(place: Place) -> None:
    headers = {"Idempotency-Key": "k-1"}
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: place.client.post("/v1/videos", json=BODY, headers=headers), range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1 and place.service.queue().queued == 1
    other = place.client.post("/v1/videos", json=BODY | {"seed": 1}, headers=headers)
    assert other.status_code == 409 and error_of(other)["code"] == "idempotency_conflict"
    assert place.client.post("/v1/videos", json=BODY, headers={"Idempotency-Key": "x" * 256}).status_code == 400


def test_a_post_that_the_openai_client_repeats_is_the_same_job(place: Place) -> None:
    first = place.client.post("/v1/videos", data=BODY, headers=STAINLESS).json()["id"]
    again = place.client.post("/v1/videos", data=BODY, headers={"x-stainless-retry-count": "1"}).json()["id"]
    another = place.client.post("/v1/videos", data=BODY, headers=STAINLESS).json()["id"]
    other = place.client.post("/v1/videos", data=BODY | {"seed": "2"}, headers={"x-stainless-retry-count": "1"}).json()[
        "id"
    ]
    assert again == first and len({first, another, other}) == 3


def test_a_full_queue_says_when_to_come_back(open_place: Open) -> None:
    place = open_place(max_queue_size=2)
    place.submit()
    place.submit()
    full = place.client.post("/v1/videos", json=BODY)
    assert full.status_code == 429 and int(full.headers["retry-after"]) >= 1
    assert error_of(full)["code"] == "queue_full"


def test_a_key_that_submits_too_often_waits(open_place: Open) -> None:
    place = open_place()
    eager, other = place.as_key("eager", submits_per_minute=2), place.as_key("other")
    answers = [place.client.post("/v1/videos", json=BODY, headers=eager) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[2].headers["retry-after"]) in range(1, 31)
    assert place.client.post("/v1/videos", json=BODY, headers=other).status_code == 200
    assert place.client.get("/v1/videos", headers=eager).status_code == 200


def test_a_plan_queues_nothing(shared: Place) -> None:
    plan = shared.client.post("/v1/plan", json={"prompt": "x", "model": "demo", "num_frames": 10, "user": "me"}).json()
    assert plan["memory"]["fits"] and plan["memory"]["exact"] and plan["memory"]["reasons"]
    assert plan["request"]["num_frames"] == 9 and len(plan["notes"]) == 1
    assert "num_frames" in [change["field"] for change in plan["adjustments"]]
    assert shared.service.queue().queued == 0


def test_requests_of_every_knob_are_kept_to_the_letter(place: Place) -> None:
    asked = {
        "prompt": "  ü \u202e \U0001f600 ",
        "seed": 2**53 - 1,
        "guidance_high": 1.5,
        "output_format": "webm",
        "quality": "low",
    }
    request = place.submit(**asked)["wanreel"]["request"]
    assert {name: request[name] for name in asked} == asked
    assert json.loads(place.service.get(place.service.list()[0].id).request)["prompt"] == asked["prompt"]
