"""Settings and API keys over HTTP: who may, what is written, what waits for a restart, what can lock nobody out."""

from __future__ import annotations

import threading
import tomllib
from typing import Any

import pytest

from frontends.http.places import Open, Place
from wanreel.core.settings import load_settings
from wanreel.frontends.http.entrance import Entrance
from wanreel.frontends.http.settings_api import ROWS


def listed(place: Place) -> dict[str, dict[str, Any]]:
    answer = place.client.get("/v1/settings")
    assert answer.status_code == 200, answer.text
    return {item["name"]: item for item in answer.json()["data"]}


def change(place: Place, **values: object) -> Any:
    return place.client.patch("/v1/settings", json=values)


def test_every_row_says_what_it_is_and_takes(shared: Place) -> None:
    rows = listed(shared)
    assert list(rows) == [row.name for row in ROWS]
    for name, row in rows.items():
        assert row["help"], f"{name} has no help"
        assert row["value"] == row["running"] and not row["pending"]
        assert row["origin"] == "default"
    assert rows["max_queue_size"]["minimum"] == 1 and rows["max_queue_size"]["kind"] == "integer"
    assert rows["memory_gb"]["optional"] and not rows["max_queue_size"]["optional"]
    assert (rows["keep_uploaded_days"]["minimum"], rows["keep_uploaded_days"]["unit"]) == (0, "d")
    assert "flf2v-14b-720p" in rows["default_first_last_model"]["choices"]
    assert "ti2v-5b" not in rows["default_first_last_model"]["choices"]
    assert rows["outputs_dir"]["kind"] == "folder" and rows["checkpoints"]["kind"] == "flag"
    assert not {"http", "webhook_secret", "api_key", "fault"} & set(rows), "secrets and switches of tests are not told"


def test_a_live_setting_takes_effect_and_is_kept(place: Place) -> None:
    answer = change(place, max_queue_size=1).json()
    assert not answer["restart_needed"]
    place.submit()
    full = place.client.post("/v1/videos", json={"prompt": "a", "model": "demo"})
    assert full.status_code == 429
    assert load_settings(data_dir=place.folder).max_queue_size == 1


def test_the_others_wait_for_a_restart_and_say_so(place: Place) -> None:
    answer = change(place, threads=2, outputs_dir=str(place.folder / "elsewhere" / "videos")).json()
    rows = {item["name"]: item for item in answer["data"]}
    assert answer["restart_needed"]
    assert (rows["threads"]["value"], rows["threads"]["running"], rows["threads"]["pending"]) == (2, None, True)
    assert rows["threads"]["origin"] == "file"
    assert not rows["max_queue_size"]["pending"]
    assert load_settings(data_dir=place.folder).outputs_dir == place.folder / "elsewhere" / "videos"


def test_null_goes_back_to_the_default(place: Place) -> None:
    change(place, max_queue_size=7, threads=2)
    rows = {item["name"]: item for item in change(place, max_queue_size=None, threads=None).json()["data"]}
    assert (rows["max_queue_size"]["value"], rows["max_queue_size"]["origin"]) == (100, "default")
    assert rows["threads"]["value"] is None
    assert tomllib.loads((place.folder / "config.toml").read_text()) == {}


def test_what_the_operator_wrote_stays(place: Place) -> None:
    path = place.folder / "config.toml"
    path.write_text("# mine\nmax_queue_size = 5  # few\n\n[http]\nport = 7861  # taken\n")
    path.chmod(0o600)
    change(place, max_queue_size=6, threads=2)
    text = path.read_text()
    assert "# mine\nmax_queue_size = 6  # few" in text and "port = 7861  # taken" in text
    assert tomllib.loads(text) == {"max_queue_size": 6, "threads": 2, "http": {"port": 7861}}
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in place.folder.glob("*config*")) == ["config.toml"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"max_queue_size": 0}, "max_queue_size"),
        ({"max_queue_size": "many"}, "max_queue_size"),
        ({"max_queue_size": [1]}, "max_queue_size"),
        ({"job_time_limit": -1}, "job_time_limit"),
        ({"default_text_model": "nonsense"}, "default_text_model"),
        ({"default_first_last_model": "ti2v-5b"}, "default_first_last_model"),
        ({"outputs_dir": "videos"}, "outputs_dir"),
        ({"outputs_dir": "/dev/null/videos"}, "outputs_dir"),
        ({"data_dir": "/tmp"}, "data_dir"),
        ({"http": {"host": "0.0.0.0"}}, "http"),
        ({"fault": "x:kill"}, "fault"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_written(shared: Place, values: dict[str, object], field: str) -> None:
    answer = change(shared, threads=3, **values)
    assert answer.status_code == 400
    assert field in [problem["field"] for problem in answer.json()["error"]["problems"]]
    assert not (shared.folder / "config.toml").exists()


def test_what_the_environment_or_the_command_line_say_can_not_be_changed(
    open_place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANREEL_THREADS", "2")
    place = open_place(max_queue_size=9)
    rows = listed(place)
    assert rows["threads"]["origin"] == "environment"
    assert rows["max_queue_size"]["origin"] == "command line"
    for name in ("threads", "max_queue_size"):
        answer = change(place, **{name: 3})
        assert answer.status_code == 400
        assert answer.json()["error"]["problems"][0]["code"] == "fixed"
    assert "WANREEL_THREADS" in change(place, threads=3).text


def test_a_damaged_file_is_told_of_and_left(place: Place) -> None:
    path = place.folder / "config.toml"
    path.write_text("max_queue_size = ")
    assert place.client.get("/v1/settings").status_code == 500
    assert change(place, max_queue_size=5).status_code == 500
    assert path.read_text() == "max_queue_size = "


def test_changes_at_once_are_all_kept(place: Place) -> None:
    names = ["threads", "max_queue_size", "min_free_gb", "memory_gb", "job_time_limit", "keep_uploaded_days"]
    together = [threading.Thread(target=change, args=(place,), kwargs={name: 3}) for name in names]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert set(tomllib.loads((place.folder / "config.toml").read_text())) == set(names)


# Keys


def test_the_first_key_must_be_able_to_make_the_next(place: Place) -> None:
    assert place.client.get("/v1/keys").json() == {"object": "list", "data": [], "needed": False}
    refused = place.client.post("/v1/keys", json={"name": "laptop"})
    assert refused.status_code == 409 and refused.json()["error"]["code"] == "first_key"
    made = place.client.post("/v1/keys", json={"name": "me", "scopes": ["admin"]}).json()
    assert place.client.get("/v1/videos").status_code == 401, "from now on a key is needed"
    admin = {"Authorization": f"Bearer {made['key']}"}
    body = {"name": "a/b", "scopes": ["read", "submit"], "owner": "ann", "submits_per_minute": 5}
    other = place.client.post("/v1/keys", json=body, headers=admin).json()
    assert place.client.get("/v1/videos", headers={"X-API-Key": other["key"]}).status_code == 200
    known = place.client.get("/v1/keys", headers=admin)
    assert [key["name"] for key in known.json()["data"]] == ["me", "a/b"]
    assert made["key"] not in known.text and "digest" not in known.text
    assert place.client.delete("/v1/keys/a/b", headers=admin).json()["deleted"]
    assert place.client.get("/v1/videos", headers={"X-API-Key": other["key"]}).status_code == 401


def test_nobody_can_lock_everybody_out(open_place: Open) -> None:
    place = open_place(keys={"me": ("admin",), "other": ("read",)})
    admin = place.as_key("second", "admin")
    assert place.client.delete("/v1/keys/me", headers=admin).status_code == 200
    last = place.client.delete("/v1/keys/second", headers=admin)
    assert last.status_code == 409 and last.json()["error"]["code"] == "last_admin"


def test_a_server_that_others_reach_keeps_its_last_key(open_place: Open) -> None:
    place = open_place(Entrance(public_url="https://example.org"), keys={"x": ("admin",)})
    admin = place.as_key("me", "admin") | {"host": "example.org"}
    assert place.client.delete("/v1/keys/x", headers=admin).status_code == 200
    assert place.client.delete("/v1/keys/me", headers=admin).json()["error"]["code"] == "last_key"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "", "scopes": ["admin"]},
        {"name": "x\n", "scopes": ["admin"]},
        {"name": 1},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": "admin"},
        {"name": "x", "scopes": ["root", "admin"]},
        {"name": "x", "scopes": ["admin"], "owner": ""},
        {"name": "x", "scopes": ["admin"], "submits_per_minute": 0},
        {"name": "x", "scopes": ["admin"], "submits_per_minute": True},
        {"name": "x", "key": "mine"},
    ],
)
def test_keys_that_make_no_sense_are_refused(shared: Place, body: dict[str, object]) -> None:
    assert shared.client.post("/v1/keys", json=body).status_code == 400
    assert not shared.keys.list()


def test_only_an_admin_may(open_place: Open) -> None:
    place = open_place(keys={"me": ("admin",)})
    user = place.as_key("user", "read", "submit")
    for method, path, body in (
        ("GET", "/v1/settings", None),
        ("PATCH", "/v1/settings", {"threads": 1}),
        ("GET", "/v1/keys", None),
        ("POST", "/v1/keys", {"name": "x"}),
        ("DELETE", "/v1/keys/me", None),
    ):
        answer = place.client.request(method, path, json=body, headers=user)
        assert answer.status_code == 403, (method, path)
