"""The page apart from its server: what passes through, whose key is used, and what nobody gets to see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from frontends.http.started import Served
from wanreel.core.errors import JobNotFound, RemoteError, SettingsError
from wanreel.core.settings import load_settings
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.guard import NARROW
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.ui import studio
from wanreel.frontends.ui.apart import Apart, check_backend
from wanreel.frontends.ui.relay import Relay, open_backend

HERE = "http://127.0.0.1:7860"
OPEN = Entrance("0.0.0.0", 7860)


@pytest.fixture
def keyed(served: Served, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server that has keys now, and one of them."""
    ring = KeyRing(served.data / "keys.json")
    key = ring.create("back", ("read", "submit", "admin"), owner="back")
    yield served.url, key
    ring.revoke("back")


@pytest.fixture
def visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TestClient]]:
    """A page without Gradio, whose screens are tested elsewhere."""
    monkeypatch.setattr(studio, "find_spec", lambda _name: None)
    opened: list[TestClient] = []

    def make(backend: str, key: str = "", entrance: Entrance | None = None) -> TestClient:
        app = Apart(
            backend, key, entrance or Entrance(), load_settings(data_dir=tmp_path), KeyRing(tmp_path / "keys.json")
        )
        client = TestClient(app, base_url=HERE, follow_redirects=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


def test_calls_bodies_and_streams_pass_and_the_key_stays(
    keyed: tuple[str, str], visit: Callable[..., TestClient]
) -> None:
    backend, key = keyed
    page = visit(backend, key)
    made = page.post(
        "/v1/videos", json={"prompt": "ünïcode", "model": "demo", "num_frames": 5, "width": 64, "height": 64}
    )
    assert made.status_code == 200, made.text
    video = made.json()["id"]
    assert httpx.get(f"{backend}/v1/videos/{video}").status_code == 401, "nobody comes in there without a key"
    with page.stream("GET", f"/v1/videos/{video}/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        kinds = [line.partition(":")[2].strip() for line in events.iter_lines() if line.startswith("event:")]
    assert kinds[-1] == "completed"
    content = page.get(f"/v1/videos/{video}/content", headers={"Range": "bytes=4-7"})
    assert (content.status_code, content.content) == (206, b"ftyp")
    setup = page.get("/studio/setup").json()
    assert setup["account"]["owner"] == "back"
    assert page.get("/studio/static/app.js").status_code == 200
    everything = "".join([made.text, content.headers.get("location", ""), str(made.headers), str(setup)])
    assert key not in everything


def test_a_visitor_may_no_more_than_his_own_key_says(
    keyed: tuple[str, str], visit: Callable[..., TestClient], tmp_path: Path
) -> None:
    backend, key = keyed
    ring = KeyRing(tmp_path / "keys.json")
    reader, writer = ring.create("r", ("read",), owner="r"), ring.create("w", ("read", "submit"), owner="w")
    page = visit(backend, key, OPEN)
    assert page.get("/v1/videos").status_code == 401
    assert page.get("/").headers["location"] == "/sign-in"
    as_reader, as_writer = {"Authorization": f"Bearer {reader}"}, {"X-API-Key": writer}
    assert page.get("/v1/videos", headers=as_reader).status_code == 200
    assert page.get("/studio/setup", headers=as_writer).json()["account"]["scopes"] == ["read", "submit"]
    assert page.get("/v1/system", headers=as_writer).status_code == 403, "the page's own key could"
    assert page.get("/v1/system", headers={**as_writer, NARROW: "admin"}).status_code == 403
    wider = {"Authorization": f"Bearer {key}", NARROW: "admin read everything"}
    assert httpx.get(f"{backend}/studio/setup", headers=wider).json()["account"]["scopes"] == ["admin", "read"]


def test_without_a_key_each_visitor_brings_his_own(keyed: tuple[str, str], visit: Callable[..., TestClient]) -> None:
    backend, key = keyed
    page = visit(backend)
    assert page.get("/v1/videos").status_code == 401
    assert page.get("/").headers["location"] == "/sign-in"
    assert "key" in page.get("/sign-in").text
    signed = page.post("/sign-in", data={"key": key}, headers={"Origin": HERE})
    assert signed.status_code == 303 and "wanreel_key" in signed.headers["set-cookie"]
    assert page.get("/v1/videos").status_code == 200
    foreign = page.post("/v1/plan", json={"prompt": "x"}, headers={"Origin": "https://evil.example"})
    assert foreign.json()["error"]["code"] == "foreign_origin"
    assert page.get("/v1/videos", headers={"Host": "evil.example"}).status_code == 421


def test_the_named_endpoints_ask_the_server_for_whoever_calls(keyed: tuple[str, str]) -> None:
    backend, key = keyed

    def asked(headers: dict[str, str]) -> Request:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return Request({"type": "http", "method": "POST", "path": "/", "headers": raw})

    async def go() -> None:
        relay, mine = Relay(open_backend(backend)), asked({"x-api-key": key})
        with pytest.raises(Refused) as refused:
            await relay.generate(asked({}), {"prompt": "x"})
        assert refused.value.status == 401
        with pytest.raises(Refused, match="prompt"):
            await relay.generate(mine, {"prompt": ""})
        made = await relay.generate(mine, {"prompt": "x", "model": "demo", "num_frames": 5, "width": 64, "height": 64})
        assert made["status"] == "queued" and made["job_id"] == made["id"]
        await relay.wait(mine, made["job_id"], 60.0)
        assert (await relay.status(mine, made["job_id"]))["status"] == "completed"
        with pytest.raises(JobNotFound):
            await relay.status(mine, "../keys")
        await relay.backend.aclose()

    asyncio.run(go())


def test_a_server_that_is_away_is_said_in_the_apis_words(visit: Callable[..., TestClient]) -> None:
    page = visit("http://127.0.0.1:9")
    away = page.get("/v1/videos")
    assert (away.status_code, away.json()["error"]["code"]) == (503, "backend_unavailable")


def test_a_page_for_everybody_before_a_server_without_keys_is_refused(served: Served) -> None:
    check_backend(served.url, "", Entrance(), have_keys=False)
    with pytest.raises(SettingsError, match="asks for no key"):
        check_backend(served.url, "", OPEN, have_keys=False)
    with pytest.raises(SettingsError, match="there is no API key"):
        check_backend(served.url, "wanreel_unknown", OPEN, have_keys=False)
    with pytest.raises(RemoteError, match="can't be reached"):
        check_backend("http://127.0.0.1:9", "", Entrance(), have_keys=False)


def test_a_key_that_the_server_does_not_know_is_refused(keyed: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match="does not take this key"):
        check_backend(keyed[0], "wanreel_unknown", Entrance(), have_keys=False)
