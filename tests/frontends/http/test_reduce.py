"""A smaller video for one that ran out of memory: linked, with every change named, and only then."""

from __future__ import annotations

from typing import Any

import pytest

from frontends.http.places import Place
from wanreel.service import request_of


def failed(place: Place, code: str = "out_of_memory", **values: Any) -> dict[str, Any]:
    video = place.submit(seed=7, **values)
    job = place.hand.claim()
    assert job.id == video["id"]
    place.hand.fail(job, code)
    return video


def test_a_smaller_video_takes_its_place_and_names_every_change(place: Place) -> None:
    video = failed(place)
    answer = place.client.post(f"/v1/videos/{video['id']}/reduce")
    assert answer.status_code == 200, answer.text
    made = answer.json()
    before, after = video["wanreel"]["request"], made["wanreel"]["request"]
    assert made["id"] != video["id"] and made["wanreel"]["parent_id"] == video["id"] and made["status"] == "queued"
    assert after["width"] * after["height"] < before["width"] * before["height"] and after["seed"] == 7
    differing = {name for name in before if before[name] != after[name]}
    assert {change["field"] for change in made["wanreel"]["adjustments"]} == differing
    kept = place.client.get(f"/v1/videos/{made['id']}").json()["wanreel"]["notes"]
    assert len(kept) == len(differing) and any(f"{before['width']} → {after['width']}" in note for note in kept)
    assert place.client.get(f"/v1/videos/{video['id']}").json()["status"] == "failed"


def test_again_and_again_it_ends_with_too_little_to_give_up(place: Place) -> None:
    video, volumes = failed(place), list[int]()
    answer = place.client.get("/live")
    for _ in range(12):
        answer = place.client.post(f"/v1/videos/{video['id']}/reduce")
        if answer.status_code != 200:
            break
        video = answer.json()
        job = place.hand.claim()
        request = request_of(job)
        volumes.append(request.width * request.height * request.num_frames)
        place.hand.fail(job)
    assert answer.status_code == 409 and "as small as" in answer.json()["error"]["message"]
    assert len(volumes) >= 2 and volumes == sorted(set(volumes), reverse=True)


@pytest.mark.parametrize("code", ["generation_failed", "model_broken"])
def test_other_faults_are_not_reduced(place: Place, code: str) -> None:
    video = failed(place, code)
    assert place.client.post(f"/v1/videos/{video['id']}/reduce").status_code == 409


def test_neither_are_jobs_that_did_not_fail(place: Place) -> None:
    video = place.submit()
    assert place.client.post(f"/v1/videos/{video['id']}/reduce").status_code == 409
    assert place.client.post(f"/v1/videos/{'0' * 32}/reduce").status_code == 404


def test_what_it_would_be_is_told_before_and_is_what_comes(place: Place) -> None:
    video = failed(place)
    told = place.client.get(f"/v1/videos/{video['id']}/reduce")
    assert told.status_code == 200 and place.client.get("/v1/queue").json()["queued"] == 0
    made = place.client.post(f"/v1/videos/{video['id']}/reduce").json()["wanreel"]
    assert told.json()["adjustments"] == made["adjustments"] and told.json()["request"] == made["request"]
    other = place.submit()
    assert place.client.get(f"/v1/videos/{other['id']}/reduce").status_code == 409
