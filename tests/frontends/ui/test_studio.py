"""The page's routes without a browser: what is open of Gradio, its policy, its words, gradio_client and MCP."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from frontends.ui.served import Served
from wanreel.core.request import KNOBS
from wanreel.frontends.http.keys import KeyRing
from wanreel.frontends.ui.studio import STATIC
from wanreel.frontends.ui.words import LANGUAGES, words

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_only_what_the_page_needs_of_gradio_is_there(keyed: tuple[Served, dict[str, str]]) -> None:
    served, keys = keyed
    headers = {"X-API-Key": keys["ann"]}
    status = lambda path: httpx.get(served.url + path, headers=headers).status_code  # noqa: E731
    assert [status(path) for path in ("/", "/config", "/gradio_api/info", "/theme.css")] == [200] * 4
    closed = ("/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x/", "/monitoring", "/gradio_api/upload_progress",
              "/gradio_api/runs", "/gradio_api/heartbeat/x", "/login", "/svelte/x", "/gradio_api/deep_link")  # fmt: skip
    assert [status(path) for path in closed] == [404] * len(closed)
    assert httpx.post(f"{served.url}/gradio_api/upload", headers=headers, files={"files": b"x"}).status_code == 404
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/mcp/", "/studio/setup"):
        assert httpx.get(served.url + path).status_code in (303, 401), path


def test_the_policy_allows_no_eval_and_no_other_place(keyed: tuple[Served, dict[str, str]]) -> None:
    served, keys = keyed
    page = httpx.get(served.url, headers={"X-API-Key": keys["ann"]})
    policy = page.headers["content-security-policy"]
    scripts = re.search(r"script-src ([^;]+)", policy)
    assert scripts is not None and "unsafe" not in scripts[1] and "http" not in policy
    nonce = re.search(r"'nonce-([^']+)'", scripts[1])
    assert nonce is not None
    assert all(f'nonce="{nonce[1]}"' in tag for tag in re.findall(r"<script[^>]*>", page.text))
    assert re.findall(r'(?:src|href)="https?://[^"]*"', page.text) == []
    assert "iframeResizer" not in page.text and "og:" not in page.text


def test_nothing_outside_the_folder_is_served(keyed: tuple[Served, dict[str, str]]) -> None:
    served, _keys = keyed
    with httpx.Client(base_url=served.url) as client:
        file = client.get("/studio/static/app.js")
        assert file.headers["content-type"].startswith("text/javascript")
        again = client.get("/studio/static/app.js", headers={"If-None-Match": file.headers["etag"]})
        assert again.status_code == 304
        for path in ("../page.py", "%2e%2e/page.py", "..%2fpage.py", "core/../../page.py", "/etc/passwd", ""):
            request = client.build_request("GET", served.url + "/studio/static/")
            request.url = httpx.URL(served.url).copy_with(raw_path=f"/studio/static/{path}".encode())
            assert client.send(request).status_code in (401, 404), path


def test_every_word_is_there_in_every_language() -> None:
    keys = {language: set(words(language)) for language in LANGUAGES}
    # What the server words itself needs no English here.
    assert keys["en"] <= keys["zh"]
    assert {key for key in keys["zh"] - keys["en"] if not key.startswith("settings.help.")} == set()
    gaps = {
        (key, language)
        for key in keys["en"]
        for language in LANGUAGES
        if set(re.findall(r"\{\w+\}", words(language)[key])) != set(re.findall(r"\{\w+\}", words("en")[key]))
    }
    assert gaps == set()
    used: set[str] = set()
    for script in STATIC.rglob("*.js"):
        code = re.sub(r"^//.*$", "", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
        used |= set(re.findall(r"""\bt\("([\w.]+)"[,)]""", code))
    assert used - keys["en"] == set()


def test_scripts_make_no_html_from_text() -> None:
    for script in STATIC.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML\s*=|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), script


def test_gradio_client_generates_as_the_keys_owner(keyed: tuple[Served, dict[str, str]]) -> None:
    served, keys = keyed
    client = Client(served.url, headers={"X-API-Key": keys["ann"]}, verbose=False)
    parameters: Any = client.view_api(return_format="dict")
    named = parameters["named_endpoints"]
    assert {"/generate", "/status", "/result"} == set(named)
    assert [one["parameter_name"] for one in named["/generate"]["parameters"]] == list(KNOBS)
    made = client.predict(prompt="a red circle", model="demo", seed=3, num_frames=5, api_name="/generate")
    assert (made["status"], made["seed"], made["num_frames"]) == ("queued", 3, 5)
    assert client.predict(job_id=made["job_id"], api_name="/status")["wanreel"]["position"] == 1
    waited = client.predict(job_id=made["job_id"], wait=0.2, api_name="/result")
    assert waited["ready"] is False and "url" not in waited
    with pytest.raises(AppError, match="Describe what happens"):
        client.predict(prompt=" ", api_name="/generate")
    other = Client(served.url, headers={"X-API-Key": keys["bob"]}, verbose=False)
    with pytest.raises(AppError, match="no such video"):
        other.predict(job_id=made["job_id"], api_name="/status")


def test_mcp_tools_need_the_key_and_do_the_same(keyed: tuple[Served, dict[str, str]]) -> None:
    served, keys = keyed

    def call(method: str, parameters: dict[str, Any], key: str | None) -> Any:
        headers = {"Accept": "application/json, text/event-stream"} | (
            {"Authorization": f"Bearer {key}"} if key else {}
        )
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = httpx.post(f"{served.url}/gradio_api/mcp/", json=body, headers=headers, timeout=30)
        if answer.status_code != 200:
            return answer.status_code
        return json.loads(answer.text.partition("data: ")[2])["result"]

    assert call("tools/list", {}, None) == 401
    tools = {tool["name"]: tool for tool in call("tools/list", {}, keys["ann"])["tools"]}
    assert set(tools) == {"generate", "status", "result"}
    assert (
        "Describe" in tools["generate"]["inputSchema"]["properties"]["prompt"]["description"]
        or KNOBS["prompt"].help in (tools["generate"]["inputSchema"]["properties"]["prompt"]["description"])
    )
    made = call(
        "tools/call", {"name": "generate", "arguments": {"prompt": "a blue star", "model": "demo"}}, keys["ann"]
    )
    assert not made["isError"]
    job = re.search(r"[0-9a-f]{32}", json.dumps(made))
    assert job is not None
    assert job[0] in json.dumps(call("tools/call", {"name": "status", "arguments": {"job_id": job[0]}}, keys["ann"]))
    assert call("tools/call", {"name": "status", "arguments": {"job_id": job[0]}}, keys["bob"])["isError"]


def test_without_gradio_the_api_works_and_the_page_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.testclient import TestClient

    from frontends.http.places import HERE
    from wanreel.core.settings import load_settings
    from wanreel.frontends.http.app import create_app
    from wanreel.frontends.http.entrance import Entrance
    from wanreel.frontends.ui import studio
    from wanreel.wiring import build_runtime, build_service

    monkeypatch.setattr(studio, "find_spec", lambda _name: None)
    runtime = build_runtime(load_settings(data_dir=tmp_path))
    service = build_service(runtime)
    app = create_app(
        runtime, service, Entrance(), KeyRing(tmp_path / "none.json"),
        make_page=lambda house, intake: studio.Studio(house, intake, lambda: runtime.settings, runtime.pictures.open),
    )  # fmt: skip
    with TestClient(app, base_url=HERE) as client:
        while (page := client.get("/")).status_code == 503:
            time.sleep(0.02)
        assert page.status_code == 501 and "./launch.sh" in page.text
        assert client.get("/v1/models").status_code == 200
        assert client.get("/gradio_api/info").status_code == 503
    service.close()
    runtime.close()
