"""Nothing secret in a request or a setting comes out again: not in a log, an answer, a file or a figure (T20)."""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontends.canary import canary
from frontends.http.places import Open
from wanreel.core.settings_groups import OutboundSettings
from wanreel.frontends import webhooks
from wanreel.frontends.http.logs import JsonLines, PlainLines, Scrubber

MANY = 36


class Canaries:
    """Secrets that are nowhere else, and where they turned up."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}

    def new(self, name: str) -> str:
        self.of[name] = f"canary{name}{secrets.token_hex(12)}"
        return self.of[name]

    def found_in(self, text: str) -> set[str]:
        return {name for name, secret in self.of.items() if secret in text}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The server's log, with every line that any library writes."""
    path = tmp_path / "log"
    handlers = [logging.FileHandler(path), logging.FileHandler(path)]
    for handler, kind in zip(handlers, (JsonLines, PlainLines)):
        handler.setFormatter(kind(Scrubber()))
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.DEBUG)
    monkeypatch.setattr(logging.getLogger("httpx2"), "disabled", True)  # the test's own client
    for handler in handlers:
        root.addHandler(handler)
    yield path
    for handler in handlers:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def everything(folder: Path, *, but: tuple[str, ...] = ()) -> str:
    """All that is on disk under the folder."""
    found: list[str] = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith(but):
            with contextlib.suppress(FileNotFoundError):  # SQLite's journal comes and goes
                found.append(path.read_bytes().decode("latin-1"))
    assert found
    return "\n".join(found)


def test_no_secret_comes_out(open_place: Open, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "_LOOK", 0.02)
    hidden, answers = Canaries(), list[str]()
    with canary() as receiver:
        origin = f"http://127.0.0.1:{receiver.port}"
        place = open_place(
            outbound={
                "pictures": True, "webhooks": True, "private_origins": [origin],
                "webhook_secret": hidden.new("root") + "s" * 32,
            }
        )  # fmt: skip
        hidden.of["key"] = place.keys.create("ann")
        headers = {"Authorization": f"Bearer {hidden.of['key']}"}
        secret = place.client.get("/v1/webhooks/secret", headers=headers).json()["secret"]
        hidden.of["signing"] = secret.removeprefix("whsec_")

        def call(method: str, path: str, **more: Any) -> None:
            answer = place.client.request(method, path, headers=more.pop("headers", headers), **more)
            answers.append(f"{answer.status_code} {answer.headers} {answer.text}")

        good = {"prompt": "x", "model": "demo"}
        user, token, hook = hidden.new("user"), hidden.new("token"), hidden.new("hook")
        for url in (f"https://me:{user}@pictures.example/", f"{origin}/x.png?token={token}", f"ftp://{user}@x/"):
            for path in ("/v1/videos", "/v1/plan"):
                call("POST", path, json=good | {"image_url": url})
                call(
                    "POST",
                    path,
                    json=good | {"webhook_url": f"https://{user}@x/", "image": {"image_url": {"url": url}}},
                )
        call("POST", "/v1/videos", json=good | {"webhook_url": f"{origin}/hook?token={hook}"})
        field = hidden.new("field")
        for body in ({"r2_secret_access_key": field}, {"seed": field}, {"loras": [{"name": "a", field: 1}]},
                     {"extra_body": field}, {"n": field}, {"size": field}, {"image": {"url": {"x": field}}}):  # fmt: skip
            call("POST", "/v1/videos", json={"prompt": "x", "model": "demo", **body})
            call("POST", "/v1/videos", data={name: json.dumps(value) for name, value in body.items()})
        sent, cookie, query = hidden.new("header"), hidden.new("cookie"), hidden.new("query")
        call("GET", f"/v1/videos?api_key={query}")
        call("GET", f"/v1/videos?after={query}")
        call("GET", "/v1/videos", headers={"Authorization": f"Bearer {sent}", "Cookie": f"wanreel_key={cookie}"})
        call("GET", "/v1/videos", headers={"Host": f"{sent}.example"})
        call("POST", "/v1/videos", headers=headers | {"Origin": f"http://{sent}.example"})

        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("boom")

        with monkeypatch.context() as patch:
            patch.setattr(place.service, "queue", broken)
            call("GET", f"/v1/queue?token={query}", headers=headers | {"Cookie": f"a={cookie}"})
        place.hand.fail(place.hand.claim())
        end = time.monotonic() + 20
        while not any(asked.method == "POST" for asked in receiver.asked) and time.monotonic() < end:
            time.sleep(0.02)
        call("GET", "/v1/videos")
        for path in ("/metrics", "/v1/system", "/openapi.json"):
            call("GET", path, headers=headers | place.as_key(f"admin{path}", "admin"))
        assert any(token in asked.path for asked in receiver.asked), "the picture was asked for"
    assert len(answers) >= MANY
    logging.getLogger("after").info("the last line")
    text = log.read_text()
    assert "boom" in text and "the last line" in text
    # What a client wrote of its own into the request is in the database, and nothing else.
    places = {
        "log": hidden.found_in(text),
        "answers": hidden.found_in("\n".join(answers)),
        "files": hidden.found_in(everything(place.folder, but=("wanreel.db",))),
        "database": hidden.found_in(everything(place.folder)) - {"hook"},
        "repr": hidden.found_in(repr(place.runtime.settings) + repr(place.app)),
    }
    assert all(not found for found in places.values()), places


def test_an_unscrubbed_logger_is_caught(log: Path) -> None:
    """The positive control: the same search finds what somebody logs by mistake, and scrubbing is what stops keys."""
    hidden = Canaries()
    hidden.new("token")
    hidden.of |= {"key": "wanreel_" + "k" * 43, "signing": "whsec_" + "s" * 44, "user": "a-password"}
    logger = logging.getLogger("mistake")
    logger.warning("calling https://x/?token=%s", hidden.of["token"])
    logger.warning("with %s, %s and https://me:%s@x/", hidden.of["key"], hidden.of["signing"], hidden.of["user"])
    assert hidden.found_in(log.read_text()) == {"token"}
    plain = logging.FileHandler(log)
    logger.addHandler(plain)
    logger.warning("with %s, %s and https://me:%s@x/", hidden.of["key"], hidden.of["signing"], hidden.of["user"])
    logger.removeHandler(plain)
    plain.close()
    assert hidden.found_in(log.read_text()) == {"token", "key", "signing", "user"}


def test_settings_do_not_show_theirs() -> None:
    made = OutboundSettings(webhook_secret="canary-" + "x" * 32)  # type: ignore[arg-type]
    assert "canary" not in repr(made) and "canary" not in made.model_dump_json()
