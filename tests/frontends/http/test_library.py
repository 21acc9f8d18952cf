"""The library over HTTP: searching, pages, favourites, several at once."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from frontends.http.places import Open, Place
from wanreel.frontends.http.bundle import Member, zipped


def ids(place: Place, query: str = "") -> list[str]:
    answer = place.client.get(f"/v1/videos?{query}")
    assert answer.status_code == 200, answer.text
    return [video["id"] for video in answer.json()["data"]]


def test_search_and_filters(place: Place) -> None:
    circle = place.submit(prompt="a red circle")
    star = place.submit(prompt="a blue star")
    place.client.post(f"/v1/videos/{star['id']}/cancel")
    assert ids(place, "search=CIRCLE") == ids(place, "search=circle red") == [circle["id"]]
    assert ids(place, "search=square") == []
    assert ids(place, "status=cancelled") == [star["id"]]
    assert ids(place, "model=demo&mode=text") == [star["id"], circle["id"]]
    assert ids(place, "model=other") == ids(place, "mode=picture") == []
    assert ids(place, f"since={star['created_at'] + 3600}") == []
    assert ids(place, f"until={circle['created_at'] + 3600}&order=asc") == [circle["id"], star["id"]]


@pytest.mark.parametrize(
    "query", ["favourite=maybe", "mode=other", "since=nan", "since=-1", "status=done", f"search={'x' * 201}"]
)
def test_a_query_that_makes_no_sense_is_refused(shared: Place, query: str) -> None:
    for path in ("/v1/videos", "/v1/library"):
        assert shared.client.get(f"{path}?{query}").status_code == 400


def test_any_page_can_be_fetched_at_once(place: Place) -> None:
    made = [place.submit(prompt=f"a circle {number}")["id"] for number in range(5)][::-1]
    shape = place.client.get("/v1/library?limit=2&search=circle").json()
    assert shape["total"] == 5
    assert shape["models"] == {"demo": 5}
    assert ids(place, f"limit=2&after={shape['cursors'][1]}") == made[4:]
    assert ids(place, f"limit=2&after={shape['cursors'][0]}") == made[2:4]


def test_pictures_are_searched_like_videos_and_apart_from_them(place: Place) -> None:
    place.submit(prompt="a fox runs")
    drawn = [
        place.client.post("/v1/images", json={"prompt": prompt, "model": "tiny:sdxl-base"}).json()["id"]
        for prompt in ("a fox", "a hare")
    ]
    place.client.put(f"/v1/videos/{drawn[1]}/favourite")

    def found(query: str) -> list[str]:
        return [one["id"] for one in place.client.get(f"/v1/images?{query}").json()["data"]]

    assert (found("search=fox"), found("favourite=true"), found("order=asc")) == ([drawn[0]], [drawn[1]], drawn)
    shape = place.client.get("/v1/library?makes=images&search=fox").json()
    assert (shape["total"], shape["models"]) == (1, {"tiny:sdxl-base": 1})
    assert place.client.get("/v1/library?search=fox").json()["models"] == {"demo": 1}


def test_favourites(place: Place) -> None:
    video = place.submit()
    other = place.submit()
    assert not video["wanreel"]["favourite"]
    path = f"/v1/videos/{video['id']}/favourite"
    for _ in range(2):
        assert place.client.put(path).json()["wanreel"]["favourite"]
    assert ids(place, "favourite=true") == [video["id"]]
    assert ids(place, "favourite=false") == [other["id"]]
    assert place.client.get("/v1/library").json()["favourites"] == 1
    assert not place.client.delete(path).json()["wanreel"]["favourite"]
    assert ids(place, "favourite=true") == []


def test_several_are_deleted_and_the_one_that_runs_is_kept(place: Place) -> None:
    running = place.submit()
    job = place.hand.claim()
    done = place.submit()
    place.client.post(f"/v1/videos/{done['id']}/cancel")
    unknown = "0" * 32
    answer = place.client.post("/v1/library/delete", json={"ids": [running["id"], done["id"], unknown]}).json()
    assert answer["deleted"] == [done["id"]]
    assert [(kept["id"], kept["code"]) for kept in answer["kept"]] == [
        (running["id"], "illegal_transition"),
        (unknown, "job_not_found"),
    ]
    assert ids(place) == [job.id]


def test_several_are_fetched_as_one_zip(place: Place) -> None:
    first, second = place.submit(prompt="a cat"), place.submit(prompt="a dog")
    bytes_of = [place.hand.complete(place.hand.claim()) for _ in range(2)]
    queued = place.submit()
    answer = place.client.post("/v1/library/download", json={"ids": [first["id"], second["id"], queued["id"]]})
    assert answer.headers["content-type"] == "application/zip"
    assert "wanreel.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert [archive.read(name) for name in archive.namelist()] == bytes_of
    # A browser sends a form, so that it saves the answer while it comes.
    form = place.client.post("/v1/library/download", data={"ids": f"{first['id']},{second['id']}"})
    with zipfile.ZipFile(io.BytesIO(form.content)) as archive:
        assert len(archive.namelist()) == 2


@pytest.mark.parametrize(
    "body", [{}, {"ids": []}, {"ids": "x"}, {"ids": ["x"]}, {"ids": [1]}, {"ids": ["0" * 32] * 501}, {"x": 1}]
)
@pytest.mark.parametrize("path", ["/v1/library/delete", "/v1/library/download"])
def test_bodies_that_make_no_sense_are_refused(shared: Place, path: str, body: dict[str, object]) -> None:
    assert shared.client.post(path, json=body).status_code == 400


def test_others_videos_can_neither_be_seen_marked_fetched_nor_deleted(open_place: Open) -> None:
    place = open_place(keys={"ann": ("read", "submit")})
    bob = place.as_key("bob")
    ann = place.as_key("ann2", owner="ann")
    made = place.client.post("/v1/videos", json={"prompt": "a secret", "model": "demo"}, headers=ann).json()["id"]
    assert place.client.get("/v1/library", headers=bob).json() == {
        "total": 0, "favourites": 0, "cursors": [], "models": {},
    }  # fmt: skip
    assert place.client.get("/v1/videos?search=secret", headers=bob).json()["data"] == []
    assert place.client.put(f"/v1/videos/{made}/favourite", headers=bob).status_code == 404
    assert place.client.post("/v1/library/download", json={"ids": [made]}, headers=bob).status_code == 404
    kept = place.client.post("/v1/library/delete", json={"ids": [made]}, headers=bob).json()["kept"]
    assert [one["code"] for one in kept] == ["job_not_found"]
    assert place.client.get("/v1/library", headers=ann).json()["total"] == 1


def test_a_zip_names_what_is_gone_and_holds_no_file_in_memory(tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(range(256)) * 20_000)
    members = [Member("gone.mp4", tmp_path / "gone.mp4", 0.0), Member("large.mp4", large, 1.7e9)]
    chunks = list(zipped(members))
    assert max(len(chunk) for chunk in chunks) < 300_000
    with zipfile.ZipFile(io.BytesIO(b"".join(chunks))) as archive:
        assert archive.testzip() is None
        assert archive.read("large.mp4") == large.read_bytes()
        assert b"gone.mp4" in archive.read("missing.txt")


def test_the_line_with_its_videos_and_predicted_starts(place: Place) -> None:
    running = place.submit()
    place.hand.claim()
    waiting = [place.submit(prompt=f"number {number}")["id"] for number in range(3)]
    place.client.post(f"/v1/videos/{waiting[2]}/move", json={"before": waiting[0]})
    line = place.client.get("/v1/queue/videos").json()["data"]
    assert [video["id"] for video in line] == [running["id"], waiting[2], waiting[0], waiting[1]]
    assert [video["wanreel"]["position"] for video in line] == [None, 1, 2, 3]
    assert line[1] == place.client.get(f"/v1/videos/{waiting[2]}").json()


def test_a_failed_video_is_tried_again_with_a_cure(place: Place) -> None:
    video = place.submit(num_inference_steps=9, seed=5)
    place.hand.fail(place.hand.claim())
    refused = place.client.post(f"/v1/videos/{video['id']}/retry", json={"num_inference_steps": 0})
    assert refused.status_code == 400
    assert place.client.get(f"/v1/videos/{video['id']}").json()["status"] == "failed"
    again = place.client.post(
        f"/v1/videos/{video['id']}/retry", json={"num_inference_steps": 3, "prompt": "a star"}
    ).json()
    assert (again["status"], again["prompt"], again["wanreel"]["request"]["seed"]) == ("queued", "a star", 5)
    assert again["wanreel"]["request"]["num_inference_steps"] == 3
    assert ids(place, "search=star") == [video["id"]]
    place.hand.fail(place.hand.claim())
    unchanged = place.client.post(f"/v1/videos/{video['id']}/retry").json()
    assert unchanged["wanreel"]["request"] == again["wanreel"]["request"]
