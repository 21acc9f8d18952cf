"""Native routes: edit, reorder, pause, events that are taken up again, previews, uploads."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from frontends.http.places import Open, Place
from wanreel.frontends.http import news


def events_of(text: str) -> list[tuple[int, str, dict]]:
    """(id, kind, data) of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((int(fields.get("id", 0)), fields["event"], json.loads(fields["data"])))
    return found


def test_events_of_an_ended_job_and_from_the_middle(place: Place) -> None:
    video = place.submit()
    job = place.hand.claim()
    place.hand.step(job, 3, 12)
    place.hand.complete(job)
    answer = place.client.get(f"/v1/videos/{video['id']}/events")
    assert (
        answer.headers["content-type"].startswith("text/event-stream") and answer.headers["cache-control"] == "no-cache"
    )
    events = events_of(answer.text)
    assert [kind for _, kind, _ in events] == ["queued", "claimed", "step", "completed"]
    assert events[2][2]["step"] == 3 and events[2][2]["total_steps"] == 12
    rest = place.client.get(f"/v1/videos/{video['id']}/events", headers={"Last-Event-ID": str(events[1][0])})
    assert events_of(rest.text) == events[2:]
    odd = place.client.get(f"/v1/videos/{video['id']}/events", headers={"Last-Event-ID": "x"})
    assert events_of(odd.text) == events


def test_a_running_job_is_followed_to_its_end(place: Place) -> None:
    video = place.submit()
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(place.client.get, f"/v1/videos/{video['id']}/events")
        while not place.app.house.news.listeners:
            pass
        job = place.hand.claim()
        place.hand.step(job, 1, 2)
        place.hand.fail(job)
        events = events_of(reading.result().text)
    assert [kind for _, kind, _ in events][0 :: len(events) - 1] == ["queued", "failed"]
    assert [number for number, _, _ in events] == sorted({number for number, _, _ in events})
    assert place.app.house.news.listeners == 0


def test_a_stream_ends_when_its_job_is_deleted_and_when_the_server_stops(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "_KEEPALIVE", 0.2)
    one, other = place.submit(), place.submit()
    with ThreadPoolExecutor() as pool:
        deleted = pool.submit(place.client.get, f"/v1/videos/{one['id']}/events")
        stopped = pool.submit(place.client.get, f"/v1/videos/{other['id']}/events")
        while place.app.house.news.listeners < 2:
            pass
        place.client.delete(f"/v1/videos/{one['id']}")
        assert deleted.result().text.endswith("event: deleted\ndata: {}\n\n")
        place.stop()
        assert "completed" not in stopped.result().text
    assert place.client.get("/ready").status_code == 503


def test_edit_keeps_the_place_and_says_what_changed(place: Place) -> None:
    first, second = place.submit(), place.submit()
    edited = place.client.patch(f"/v1/videos/{first['id']}", json={"prompt": "a green star", "seed": 4}).json()
    assert edited["prompt"] == "a green star" and edited["seed"] == 4 and edited["wanreel"]["position"] == 1
    only_seed = place.client.patch(f"/v1/videos/{second['id']}", json={"seed": 5}).json()
    assert only_seed["prompt"] == "a red circle" and only_seed["seed"] == 5
    assert place.client.patch(f"/v1/videos/{first['id']}", json={"bogus": 1}).status_code == 400
    place.hand.claim()
    assert place.client.patch(f"/v1/videos/{first['id']}", json={"seed": 1}).status_code == 409


def test_move_and_queue(place: Place) -> None:
    ids = [place.submit()["id"] for _ in range(3)]
    line = lambda: place.client.get("/v1/queue").json()["jobs"]  # noqa: E731
    assert line() == ids
    assert place.client.post(f"/v1/videos/{ids[2]}/move", json={"before": ids[0]}).status_code == 200
    assert line() == [ids[2], ids[0], ids[1]]
    place.client.post(f"/v1/videos/{ids[2]}/move")
    assert line() == ids
    place.client.post(f"/v1/videos/{ids[1]}/move", json={"priority": 5})
    assert line() == [ids[1], ids[0], ids[2]]
    for body in (
        {"before": 3},
        {"before": "0" * 32},
        {"priority": 101},
        {"priority": True},
        {"x": 1},
        {"before": ids[0], "priority": 1},
    ):
        assert place.client.post(f"/v1/videos/{ids[1]}/move", json=body).status_code in (400, 404), body


def test_no_key_gets_ahead_of_others(open_place: Open) -> None:
    place = open_place()
    me, you = place.as_key("me"), place.as_key("you")
    body = {"prompt": "x", "model": "demo"}
    mine = place.client.post("/v1/videos", json=body, headers=me).json()["id"]
    yours = place.client.post("/v1/videos", json=body, headers=you).json()["id"]
    assert place.client.post(f"/v1/videos/{yours}/move", json={"before": mine}, headers=you).status_code == 404
    assert place.client.post(f"/v1/videos/{yours}/move", json={"priority": 1}, headers=you).status_code == 403


def test_pause_and_resume(place: Place) -> None:
    paused = place.client.post("/v1/queue/pause", json={"reason": "new disk"}).json()
    assert paused["paused"] and paused["reason"] == "new disk"
    place.submit()
    assert place.service.store.leases.claim("hand") is None
    assert not place.client.post("/v1/queue/resume").json()["paused"]
    assert place.hand.claim()
    for reason in ("", "x" * 201, "a\nb", 3):
        assert place.client.post("/v1/queue/pause", json={"reason": reason}).status_code == 400


def test_previews(place: Place) -> None:
    video = place.submit()
    path = f"/v1/videos/{video['id']}/preview"
    assert place.client.get(path).json()["error"]["code"] == "no_preview"
    data = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    frames[0].save(data, "WEBP", save_all=True, append_images=frames[1:])
    place.service.data.previews.mkdir(parents=True)
    (place.service.data.previews / f"{video['id']}.webp").write_bytes(data.getvalue())
    animated = place.client.get(path)
    assert animated.headers["content-type"] == "image/webp" and animated.content == data.getvalue()
    still = place.client.get(path, params={"format": "jpeg"})
    red, _, blue = np.asarray(Image.open(io.BytesIO(still.content)).convert("RGB"))[16, 16]
    assert still.headers["content-type"] == "image/jpeg" and blue > 200 > red


def test_uploads(place: Place, picture: bytes) -> None:
    kept = place.client.post("/v1/files", files={"file": ("../../cat.png", picture)}, data={"purpose": "vision"}).json()
    assert kept["object"] == "file" and kept["filename"] == "cat.png" and (kept["width"], kept["height"]) == (96, 64)
    assert place.client.get(f"/v1/files/{kept['id']}").json() == kept
    assert place.client.get("/v1/files").json()["data"] == [kept]
    for reference in (kept["id"], {"file_id": kept["id"]}, "cat.png"):
        body = {"prompt": "x", "model": "tiny:ti2v-5b", "input_reference": reference}
        assert place.client.post("/v1/videos", json=body).status_code == 200, reference
    assert place.client.delete(f"/v1/files/{kept['id']}").json() == {
        "id": kept["id"],
        "object": "file",
        "deleted": True,
    }
    assert place.client.get(f"/v1/files/{kept['id']}").status_code == 404
    assert place.client.delete(f"/v1/files/{kept['id']}").status_code == 404
    assert place.client.post("/v1/files", files={"file": ("x.png", b"no picture")}).status_code == 400
    assert place.client.post("/v1/files", data={"file": "text"}).status_code == 400


def test_others_uploads_do_not_exist(open_place: Open, picture: bytes) -> None:
    place = open_place()
    me, you = place.as_key("me"), place.as_key("you")
    kept = place.client.post("/v1/files", files={"file": ("cat.png", picture)}, headers=me).json()["id"]
    assert place.client.get(f"/v1/files/{kept}", headers=you).status_code == 404
    assert place.client.delete(f"/v1/files/{kept}", headers=you).status_code == 404
    body = {"prompt": "x", "model": "tiny:ti2v-5b", "input_reference": kept}
    assert place.client.post("/v1/videos", json=body, headers=you).status_code == 400
    assert place.client.post("/v1/videos", json=body, headers=me).status_code == 200


def test_export_needs_a_finished_video(place: Place) -> None:
    video = place.submit()
    assert place.client.post(f"/v1/videos/{video['id']}/export", json={"output_format": "gif"}).status_code == 409
    assert place.client.post(f"/v1/videos/{video['id']}/export", json={"seed": 3}).status_code == 400
    assert place.client.post(f"/v1/videos/{video['id']}/export", json={"output_format": "exe"}).status_code == 400


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x"])
def test_json_routes_take_json_only(place: Place, content_type: Any) -> None:
    video = place.submit()
    answer = place.client.post(f"/v1/videos/{video['id']}/move", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == 415
