"""Pictures by address over the whole API: read where the operator wants that, and never stored as an address."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from frontends.audit import watching
from frontends.canary import Canary, canary
from frontends.http.places import Open
from wanreel.frontends.http.pictures import FIELDS


@pytest.fixture
def server(picture: bytes) -> Iterator[Canary]:
    with canary() as made:
        made.answers("/cat.png", picture)
        made.answers("/page.html", b"<html>")
        yield made


def outbound(server: Canary) -> dict[str, Any]:
    return {"pictures": True, "private_origins": [f"http://127.0.0.1:{server.port}"]}


@pytest.mark.parametrize("field", ["image_url", "input_reference", "reference_url", "image", "last_image_url"])
def test_a_picture_is_read_where_it_lies(open_place: Open, server: Canary, field: str) -> None:
    place = open_place(outbound=outbound(server))
    url = f"http://127.0.0.1:{server.port}/cat.png?token=canary"
    body = {"prompt": "x", "model": "demo", field: url}
    if FIELDS[field] == "last_image":
        body |= {"model": "tiny:flf2v-14b-720p", "image_url": url}
    answer = place.client.post("/v1/plan", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["request"][FIELDS[field]]["width"] == 96
    assert "canary" not in json.dumps(answer.json())
    assert {asked.path for asked in server.asked} == {"/cat.png?token=canary"}


@pytest.mark.parametrize("path", ["/page.html", "/none.png"])
def test_what_is_no_picture_is_refused(open_place: Open, server: Canary, path: str) -> None:
    place = open_place(outbound=outbound(server))
    body = {"prompt": "x", "model": "demo", "image_url": f"http://127.0.0.1:{server.port}{path}"}
    answer = place.client.post("/v1/videos", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "image"
    assert "html" not in answer.text


def test_what_is_inside_is_not_called_from_any_route(open_place: Open, server: Canary) -> None:
    place = open_place(outbound={"pictures": True, "webhooks": True, "allow_http": True})
    inside = f"http://127.0.0.1:{server.port}/cat.png"
    paths = ("/v1/videos", "/v1/videos/sync", "/v1/plan", "/v1/tasks/", "/generate_video")
    fields = ("image_url", "image", "image_path", "input_reference", "image_data")
    values = (inside, {"image_url": inside}, "http://localhost/cat.png", "http://0x7f.1/")
    with watching(lambda host, port: False) as watch:
        for path, field, value in itertools.product(paths, fields, values):
            answer = place.client.post(path, json={"prompt": "x", "model": "demo", field: value})
            assert answer.status_code == 400 or answer.json()["success"] is False, (path, field, value)
    assert watch.connects == [] and server.asked == []
