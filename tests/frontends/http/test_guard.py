"""Closed by default: foreign names, foreign pages, missing keys and large bodies end at the guard, on every route."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontends.http.places import Open, Place
from wanreel.core.errors import SettingsError
from wanreel.frontends.http.app import create_app
from wanreel.frontends.http.entrance import Entrance, entrance_for
from wanreel.frontends.http.guard import JSON_LIMIT, OPEN_PATHS
from wanreel.frontends.http.keys import KeyRing

pytestmark = pytest.mark.timeout(60)

FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:7860",
    "127.0.0.1.evil.example",
    "0.0.0.0:7860",
    "192.0.2.1",
    "",
    "a b",
    "[::1",
]
FOREIGN_PAGES = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "https://127.0.0.1:7860"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none, cross-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
]


def routes(place: Place) -> Iterator[tuple[str, str]]:
    """(method, path) of every route, with ids filled in."""
    ids = {"video_id": "0" * 32, "file_id": "file-" + "0" * 32, "model_id": "demo"}
    for template, methods in place.document()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{(\w+)\}", lambda name: ids.get(name[1], "x"), template)


def test_every_route_refuses_foreign_names_and_pages(shared: Place) -> None:
    seen = 0
    for method, path in routes(shared):
        seen += 1
        assert shared.client.request(method, path, headers={"Host": "evil.example"}).status_code == 421, (method, path)
        for headers in FOREIGN_PAGES:
            assert shared.client.request(method, path, headers=headers).status_code == 403, (method, path, headers)
    assert seen > 25
    assert shared.service.queue().queued == 0


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_name_that_is_not_ours_is_refused(shared: Place, host: Any) -> None:
    assert shared.client.get("/live", headers={"Host": host}).status_code in (400, 421)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost", "LOCALHOST:7860", "[::1]:7860", "127.0.0.9", "localhost."]
)
def test_this_machine_goes_by_many_names(shared: Place, host: Any) -> None:
    assert shared.client.get("/live", headers={"Host": host}).status_code == 200


def test_names_of_an_exposed_server(open_place: Open) -> None:
    entrance = entrance_for("0.0.0.0", 80, "https://video.example/wan/", ["box.local"])
    place = open_place(entrance, keys={"a": ("read",)})
    status = lambda host: place.client.get("/live", headers={"Host": host}).status_code  # noqa: E731
    assert [status(host) for host in ("video.example", "box.local:80", "192.0.2.7", "127.0.0.1")] == [200] * 4
    assert [status(host) for host in ("evil.example", "0.0.0.0", "wan.box.local")] == [421] * 3


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://127.0.0.1:7860"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
)
def test_our_own_page_and_programs_may_submit(shared: Place, headers: Any) -> None:
    answer = shared.client.post("/v1/videos", files={"prompt": (None, "x"), "model": (None, "demo")}, headers=headers)
    assert answer.status_code == 200, answer.text


def test_a_link_from_elsewhere_may_open_a_page_but_not_change_anything(shared: Place) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert shared.client.get("/live", headers=link).status_code == 200
    assert shared.client.post("/v1/queue/pause", headers=link).status_code == 403


def test_the_public_address_may_be_the_origin(open_place: Open) -> None:
    place = open_place(entrance_for("127.0.0.1", 7860, "https://video.example/wan", []), keys={"a": ("submit", "read")})
    key = place.as_key("b")
    headers = key | {"Host": "video.example", "Origin": "https://video.example"}
    assert place.client.post("/v1/plan", json={"prompt": "x", "model": "demo"}, headers=headers).status_code == 200
    assert (
        place.client.post(
            "/v1/plan", json={"prompt": "x"}, headers=headers | {"Origin": "https://evil.example"}
        ).status_code
        == 403
    )


@pytest.mark.parametrize(
    "kwargs", [{"host": "0.0.0.0"}, {"host": "192.0.2.1"}, {"host": "::"}, {"public_url": "https://x.example"}]
)
def test_refuses_to_start_where_others_could_come_in_without_a_key(shared: Place, tmp_path: Path, kwargs: Any) -> None:
    entrance = Entrance(**kwargs)
    with pytest.raises(SettingsError, match="no API key"):
        create_app(shared.runtime, shared.service, entrance, KeyRing(tmp_path / "none.json"))
    create_app(shared.runtime, shared.service, entrance, KeyRing(tmp_path / "none.json", ("a key of the operator",)))


def test_every_route_but_the_probes_needs_a_key(open_place: Open) -> None:
    place = open_place(keys={"a": ("read", "submit")})
    for method, path in routes(place):
        expected = {200, 503} if path in OPEN_PATHS else {401}
        assert place.client.request(method, path).status_code in expected, (method, path)
    for key in ("wanreel_no", "", "\u00e9\u00e9", "x" * 20_000):
        headers = [(b"Authorization", f"Bearer {key}".encode())]
        assert place.client.get("/v1/videos", headers=headers).status_code == 401
    assert place.client.get("/v1/videos?api_key=wanreel_no").status_code == 401


def test_a_key_opens_by_header_or_cookie_and_never_by_url(open_place: Open) -> None:
    place = open_place()
    key = place.keys.create("a")
    assert place.client.get("/v1/videos", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert place.client.get("/v1/videos", headers={"X-API-Key": key}).status_code == 200
    assert place.client.get("/v1/videos", headers={"Cookie": f"wanreel_key={key}"}).status_code == 200
    assert place.client.get(f"/v1/videos?key={key}&api_key={key}").status_code == 401


def test_scopes(open_place: Open) -> None:
    place = open_place()
    reader, submitter, admin = place.as_key("r", "read"), place.as_key("s", "submit"), place.as_key("a", "admin")
    body = {"prompt": "x", "model": "demo"}
    status = lambda method, path, key: place.client.request(method, path, json=body, headers=key).status_code  # noqa: E731
    assert [status("POST", "/v1/videos", key) for key in (reader, submitter, admin)] == [403, 200, 200]
    assert [status("GET", "/v1/videos", key) for key in (reader, submitter, admin)] == [200, 403, 200]
    for path in ("/v1/queue/pause", "/v1/queue/resume"):
        answers = [place.client.post(path, json={}, headers=key).status_code for key in (reader, submitter, admin)]
        assert answers == [403, 403, 200]
    assert [place.client.get("/metrics", headers=key).status_code for key in (reader, admin)] == [403, 200]
    assert [place.client.get("/v1/system", headers=key).status_code for key in (reader, admin)] == [403, 200]


def test_a_revoked_key_stops_working_at_once(open_place: Open) -> None:
    place = open_place(keys={"other": ("read",)})
    key = place.as_key("a")
    assert place.client.get("/v1/videos", headers=key).status_code == 200
    place.keys.revoke("a")
    assert place.client.get("/v1/videos", headers=key).status_code == 401


def test_a_damaged_file_of_keys_lets_nobody_in(open_place: Open) -> None:
    place = open_place(keys={"a": ("read",)})
    place.keys.path.write_text("{")
    assert place.client.get("/v1/videos").status_code == 503


def test_bodies_are_capped_by_what_is_said_and_by_what_comes(shared: Place) -> None:
    said = shared.client.post(
        "/v1/videos", content=b"{}", headers={"Content-Type": "application/json", "Content-Length": str(JSON_LIMIT + 1)}
    )
    assert said.status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(3):
            yield b"x" * 2**19

    came = shared.client.post("/v1/videos", content=endless(), headers={"Content-Type": "text/plain"})
    assert came.status_code in (413, 415)
    form = shared.client.post(
        "/v1/videos", content=endless(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert form.status_code == 413


def test_every_answer_carries_the_headers(shared: Place) -> None:
    for path, headers in (("/live", {}), ("/nope", {}), ("/live", {"Host": "evil.example"})):
        answer = shared.client.get(path, headers=headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in answer.headers


def test_the_access_log_names_neither_key_nor_query(open_place: Open, caplog: pytest.LogCaptureFixture) -> None:
    place = open_place()
    key = place.keys.create("a")
    caplog.set_level(logging.INFO, "wanreel.access")
    place.client.get("/v1/videos?after=canary-7", headers={"Authorization": f"Bearer {key}"})
    record = next(record for record in caplog.records if record.name == "wanreel.access")
    assert "canary" not in str(vars(record)) and key not in str(vars(record))
    assert vars(record)["path"] == "/v1/videos" and vars(record)["owner"] == "a"
