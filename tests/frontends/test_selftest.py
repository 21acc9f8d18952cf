"""`wanreel selftest` against the running product, and against servers that do not do what they should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontends.http.places import serving
from frontends.http.started import Served, serve
from wanreel.frontends.selftest import SelfTest

pytestmark = pytest.mark.timeout(240)


def selftest(*arguments: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "wanreel", "selftest", "--json", *arguments]
    found = subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=200
    )
    checks = {row["name"]: row for row in map(json.loads, found.stdout.splitlines())}
    return found.returncode, checks, found.stderr


def everything(served: Served) -> list[Any]:
    return [httpx.get(f"{served.url}/v1/{kind}?limit=100").json()["data"] for kind in ("videos", "files")]


def test_the_product_passes_and_nothing_is_left(served: Served) -> None:
    for _ in range(600):
        if httpx.get(f"{served.url}/ready").status_code == 200:
            break
        time.sleep(0.1)
    before = everything(served)
    code, checks, said = selftest("--server", served.url)
    assert code == 0, (checks, said)
    assert {row["outcome"] for row in checks.values()} == {"passed"}
    assert list(checks) == ["health", "models", "text to video", "picture to video", "/generate_video", "clean-up"]
    assert checks["clean-up"]["text"] == "3 videos and 1 files taken away"
    assert everything(served) == before


def test_a_key_comes_from_the_named_variable(tmp_path: Path) -> None:
    key = "operator-key-0123456789"
    os.environ["WANREEL_HTTP__API_KEY"] = key
    try:
        with serve(tmp_path, "--api-only") as running:
            code, checks, _ = selftest("--server", running.url, "--api-key-env", "THEIR_KEY", THEIR_KEY=key)
            assert (code, checks["health"]["text"]) == (5, "not ready: no worker is running")
            answer = httpx.get(f"{running.url}/v1/models")
            assert answer.status_code == 401
    finally:
        del os.environ["WANREEL_HTTP__API_KEY"]
    code, _, said = selftest("--server", "http://127.0.0.1:1", "--api-key-env", "NOT_THERE")
    assert code == 2 and "NOT_THERE is empty" in said


def test_nobody_there_and_somebody_else() -> None:
    (nobody,) = SelfTest("http://127.0.0.1:1").run()
    assert nobody.outcome == "failed" and "can't be reached" in nobody.text

    async def other(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

    with serving(other) as port:
        (foreign,) = SelfTest(f"http://127.0.0.1:{port}").run()
    assert foreign.outcome == "failed" and "not what a Wanreel answers" in foreign.text


def test_answers_of_another_form_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is well but the one thing; then that one is named."""
    replies: dict[str, Any] = {
        "/live": {"status": "live"},
        "/health": {"status": "healthy"},
        "/ready": {"status": "ready"},
        "/v1/models": {"data": [{"id": "m", "installed": True, "modes": ["picture"], "num_inference_steps": 3}]},
    }

    async def almost(scope: Any, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        known = scope["path"] in replies
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(replies.get(scope["path"], {})).encode()})

    with serving(almost) as port:
        found = {check.name: check for check in SelfTest(f"http://127.0.0.1:{port}").run()}
        missing = list(SelfTest(f"http://127.0.0.1:{port}", model="nope").run())
    assert found["models"].text == "using m, of 1 installed"
    assert (found["text to video"].outcome, found["text to video"].text) == ("skipped", "m needs a picture")
    assert found["picture to video"].text == "POST /v1/files answered 404."
    assert found["clean-up"].outcome == "passed"
    assert missing[1].text == "nope is not installed; there: m" and missing[2].name == "clean-up"
