"""Webhooks over the whole API: signed, repeated until heard, once by one sender, and no way into the server's network."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import logging
import re
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from frontends.audit import watching
from frontends.canary import Asked, Canary, canary
from frontends.http.places import HERE, Open, Place
from wanreel.core.errors import SettingsError
from wanreel.frontends import webhooks
from wanreel.frontends.http.app import create_app
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.webhooks import SECRET_PREFIX, SigningSecrets
from wanreel.jobs import outbox
from wanreel.wiring import build_runtime, build_service
from wanreel.worker.gathering import Gatherer
from wanreel.worker.sweeps import SweepSheets

CHAPTER = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for long."""
    monkeypatch.setattr(webhooks, "_LOOK", 0.02)
    monkeypatch.setattr(outbox, "DELAYS", (0.05,) * 14)


@pytest.fixture
def receiver() -> Iterator[Canary]:
    with canary() as made:
        made.answers("/hook", status=204)
        yield made


def outbound(receiver: Canary, **more: Any) -> dict[str, Any]:
    return {"outbound": {"webhooks": True, "private_origins": [f"http://127.0.0.1:{receiver.port}"], **more}}


def hook(receiver: Canary, path: str = "/hook") -> str:
    return f"http://127.0.0.1:{receiver.port}{path}"


def heard(receiver: Canary, count: int = 1) -> list[Asked]:
    """What the receiver was told, once that is `count` messages."""
    end = time.monotonic() + 20
    while len(receiver.asked) < count and time.monotonic() < end:
        time.sleep(0.01)
    assert len(receiver.asked) >= count
    return receiver.asked


def state(place: Place, job_id: str, wanted: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The delivery's state in the video, once it is the one wanted."""
    end = time.monotonic() + 20
    while True:
        shown = place.client.get(f"/v1/videos/{job_id}", headers=headers).json()["wanreel"]["webhook"]
        if shown["state"] == wanted or time.monotonic() > end:
            assert shown["state"] == wanted
            return shown
        time.sleep(0.02)


def verifier() -> Any:
    """The function of the chapter's example."""
    (example,) = (
        text for text in re.findall(r"```python\n(.*?)```", CHAPTER.read_text("utf-8"), re.DOTALL) if "hmac" in text
    )
    made: dict[str, Any] = {}
    exec(example, made)
    return made["verified"]


def test_an_end_is_told_and_the_examples_verify_it(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    video = place.submit(webhook_url=hook(receiver))
    assert video["wanreel"]["webhook"] == {"state": "waiting", "id": None, "attempts": 0, "outcome": ""}
    place.hand.complete(place.hand.claim())
    (asked,) = heard(receiver)
    headers = {name.lower(): value for name, value in asked.headers.items()}
    secret = place.client.get("/v1/webhooks/secret").json()["secret"]

    message = verifier()(headers, asked.body, secret)
    assert message["type"] == "video.completed" and message["id"] == headers["webhook-id"]
    assert message["data"] == {"id": video["id"], "status": "completed", "error": None}
    with pytest.raises(ValueError, match="not signed"):
        verifier()(headers, asked.body + b" ", secret)
    with pytest.raises(ValueError, match="too old"):
        verifier()(headers | {"webhook-timestamp": str(int(time.time()) - 999)}, asked.body, secret)

    with OpenAI(api_key="unused", webhook_secret=secret) as client:
        event: Any = client.webhooks.unwrap(asked.body, headers)
        assert event.type == "video.completed" and event.data.id == video["id"]
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(asked.body.replace(b"completed", b"cancelled"), headers)
    shown = state(place, video["id"], "delivered")
    assert (shown["attempts"], shown["outcome"], shown["id"]) == (1, "status 204", headers["webhook-id"])
    assert place.client.get("/v1/videos").json()["data"][0]["wanreel"]["webhook"] == shown


def test_failures_and_cancels_are_told(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    for _ in range(2):
        place.submit(webhook_url=hook(receiver))
    place.hand.fail(place.hand.claim())
    place.client.post(f"/v1/videos/{place.service.store.queued()[0].id}/cancel")
    told = {message["type"]: message["data"] for message in (json.loads(one.body) for one in heard(receiver, 2))}
    assert told["video.failed"]["error"] == {"code": "out_of_memory", "message": "There was not enough memory."}
    assert told["video.cancelled"]["error"]["code"] == "cancelled"


def test_the_end_of_a_sweep_is_told_and_not_that_of_its_cells(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    asked = {"prompt": "a", "model": "demo", "num_frames": 5, "axes": {"seed": [1, 2]}, "webhook_url": hook(receiver)}
    sweep = place.client.post("/v1/sweeps", json=asked).json()
    assert sweep["webhook"]["state"] == "waiting" and sweep["upload"] is None
    for _ in range(2):
        place.hand.complete(place.hand.claim(), frames=5)
    sheets = SweepSheets(place.service.store, place.service.results)
    assert Gatherer(place.service.store, {"sweep": sheets.finish}).gather("hand")
    (message,) = [json.loads(one.body) for one in heard(receiver)]
    assert message["type"] == "sweep.completed"
    assert message["data"] == {"id": sweep["id"], "status": "completed", "error": None}
    board = {"scenes": [{"prompt": "a"}], "model": "demo", "webhook_url": "http://127.0.0.1:1/"}
    refused = place.client.post("/v1/storyboards", json=board)
    assert refused.status_code == 400 and refused.json()["error"]["problems"][0]["field"] == "webhook_url"


def test_told_again_until_it_is_heard_with_the_same_id(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    receiver.answers("/hook", status=500)
    video = place.submit(webhook_url=hook(receiver))
    place.hand.complete(place.hand.claim())
    heard(receiver, 3)
    assert state(place, video["id"], "pending")["outcome"] == "status 500"
    receiver.answers("/hook", status=200)
    state(place, video["id"], "delivered")
    assert len({(one.headers["webhook-id"], one.body) for one in receiver.asked}) == 1


def test_given_up_in_the_end(open_place: Open, receiver: Canary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "DELAYS", (0.01, 0.01))
    place = open_place(**outbound(receiver))
    video = place.submit(webhook_url=hook(receiver, "/redirects"))
    receiver.answers("/redirects", status=302, Location="/hook")
    place.hand.complete(place.hand.claim())
    assert state(place, video["id"], "given_up") | {"id": ""} == {
        "state": "given_up", "id": "", "attempts": 3, "outcome": "status 302",
    }  # fmt: skip
    assert {one.path for one in receiver.asked} == {"/redirects"}


@contextlib.contextmanager
def another(place: Place) -> Generator[TestClient]:
    """A further server over the same data directory."""
    runtime = build_runtime(place.runtime.settings)
    service = build_service(runtime)
    try:
        with TestClient(create_app(runtime, service, Entrance(), place.keys), base_url=HERE) as client:
            yield client
    finally:
        service.close()
        runtime.close()


def test_a_restart_loses_no_message(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver), enter=False)
    with place.client:
        receiver.answers("/hook", status=503)
        video = place.submit(webhook_url=hook(receiver))
        place.hand.complete(place.hand.claim())
        heard(receiver)
    receiver.answers("/hook", status=200)
    with another(place):
        end = time.monotonic() + 20
        while place.service.store.outbox.reports([video["id"]])[video["id"]].state != "delivered":
            assert time.monotonic() < end
            time.sleep(0.02)
    assert len({one.headers["webhook-id"] for one in receiver.asked}) == 1


def test_several_processes_tell_once(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    with another(place):
        for _ in range(12):
            place.submit(webhook_url=hook(receiver))
        for _ in range(12):
            place.hand.fail(place.hand.claim())
        heard(receiver, 12)
        time.sleep(0.3)
    assert len(receiver.asked) == len({one.headers["webhook-id"] for one in receiver.asked}) == 12


def test_the_operators_own_address(open_place: Open, receiver: Canary) -> None:
    place = open_place(
        **outbound(receiver, webhooks=False, webhook_url=hook(receiver)), keys={"ann": ("submit", "read")}
    )
    key = place.as_key("bob")
    answer = place.client.post("/v1/videos", json={"prompt": "x", "model": "demo"}, headers=key)
    assert answer.json()["wanreel"]["webhook"]["state"] == "waiting"
    place.hand.fail(place.hand.claim())
    (asked,) = heard(receiver)
    headers = {name.lower(): value for name, value in asked.headers.items()}
    root = SigningSecrets(place.runtime.settings.data.webhook_secret)
    verifier()(headers, asked.body, root.of(""))
    with pytest.raises(ValueError, match="not signed"):
        verifier()(headers, asked.body, root.of("bob"))


@pytest.mark.parametrize("url", ["http://127.0.0.1/hook", "https://user:pw@example.com/", "nonsense", 3, ["https://x"]])
def test_addresses_that_are_never_called_are_refused_at_once(open_place: Open, receiver: Canary, url: Any) -> None:
    place = open_place(**outbound(receiver))
    for path in ("/v1/videos", "/v1/plan"):
        answer = place.client.post(path, json={"prompt": "x", "model": "demo", "webhook_url": url, "n": 2})
        error = answer.json()["error"]
        assert answer.status_code == 400 and "pw" not in answer.text
        assert {problem["field"] for problem in error["problems"]} == {"webhook_url", "n"}
    assert place.service.queue().queued == 0
    with pytest.raises(SettingsError, match="webhook_url"):
        open_place(**outbound(receiver, webhook_url=str(url)))


def test_a_name_that_leads_inside_is_not_called(open_place: Open, receiver: Canary) -> None:
    place = open_place(outbound={"webhooks": True, "allow_http": True})
    video = place.submit(webhook_url=f"http://localhost/hook?port={receiver.port}")
    with watching(lambda host, port: False) as watch:
        place.hand.fail(place.hand.claim())
        state_is = time.monotonic() + 20
        while not (shown := place.client.get(f"/v1/videos/{video['id']}").json()["wanreel"]["webhook"])["outcome"]:
            assert time.monotonic() < state_is
            time.sleep(0.02)
    assert shown["outcome"] == "no answer" and watch.connects == []


def test_off_by_default(place: Place) -> None:
    answer = place.client.post(
        "/v1/videos", json={"prompt": "x", "model": "demo", "webhook_url": "https://example.com"}
    )
    assert answer.json()["error"]["problems"][0]["code"] == "webhooks_off"
    assert place.submit(webhook_url="")["wanreel"]["webhook"] is None


def test_the_same_key_with_another_address_is_a_conflict(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    body = {"prompt": "x", "model": "demo", "seed": 1}
    send = lambda url: place.client.post(  # noqa: E731
        "/v1/videos", json=body | {"webhook_url": url}, headers={"Idempotency-Key": "k"}
    )
    first = send(hook(receiver))
    assert send(hook(receiver)).json()["id"] == first.json()["id"]
    assert send(hook(receiver, "/other")).status_code == 409
    remixed = place.client.post(
        f"/v1/videos/{first.json()['id']}/remix", json={"prompt": "y", "webhook_url": hook(receiver)}
    )
    assert remixed.json()["wanreel"]["webhook"]["state"] == "waiting"


def test_every_owner_has_a_secret_of_his_own(open_place: Open, receiver: Canary) -> None:
    place = open_place(**outbound(receiver))
    keys = {name: place.as_key(name) for name in ("ann", "bob")}
    reader = place.as_key("reader", "read", owner="ann")
    secrets = {
        name: place.client.get("/v1/webhooks/secret", headers=key).json()["secret"] for name, key in keys.items()
    }
    assert len(set(secrets.values())) == 2
    assert all(len(base64.b64decode(text.removeprefix(SECRET_PREFIX))) == 32 for text in secrets.values())
    assert place.client.get("/v1/webhooks/secret", headers=reader).status_code == 403
    path = place.runtime.settings.data.webhook_secret
    assert path.stat().st_mode & 0o777 == 0o600
    again = SigningSecrets(path)
    assert again.of("ann") == secrets["ann"]
    assert SigningSecrets(path, "g" * 32).of("ann") == SigningSecrets(path.with_name("none"), "g" * 32).of("ann")
    path.write_text("damaged")
    assert place.client.get("/v1/webhooks/secret", headers=keys["ann"]).status_code == 500
    with pytest.raises(SettingsError):
        again.sign("ann", "m", 0, b"")


def test_the_signature_is_that_of_the_standard() -> None:
    """By hand, from the standard's text: HMAC-SHA256 of id.timestamp.body with the secret's bytes."""
    secrets = SigningSecrets(Path("none"), "x" * 32)
    key = base64.b64decode(secrets.of("ann").removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, b'msg_1.1700000000.{"a":1}', "sha256")).decode()
    assert secrets.sign("ann", "msg_1", 1_700_000_000, b'{"a":1}') == f"v1,{expected}"


def test_neither_secret_nor_address_is_logged(
    open_place: Open, receiver: Canary, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = open_place(**outbound(receiver, webhook_secret="canary-" + "s" * 32))
    video = place.submit(webhook_url=hook(receiver, "/hook?token=canary-token"))
    secret = place.client.get("/v1/webhooks/secret").json()["secret"]
    place.hand.fail(place.hand.claim())
    state(place, video["id"], "delivered")
    ours = [record for record in caplog.records if record.name.startswith("wanreel")]
    assert any(record.name == "wanreel.webhooks" for record in ours)
    for record in caplog.records:
        text = f"{vars(record)} {record.getMessage()}"
        assert "canary" not in text and secret not in text, record.name
    assert (
        "canary" not in repr(place.runtime.settings)
        and "canary" not in place.client.get(f"/v1/videos/{video['id']}").text
    )
