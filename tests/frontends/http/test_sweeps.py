"""Sweeps over HTTP and the command line: accepted whole or refused whole, shown as they grow, fetched, stopped, forgotten."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from frontends.http.places import Open, Place
from wanreel.frontends.cli.app import cli
from wanreel.worker.gathering import Gatherer
from wanreel.worker.sweeps import KIND, SweepSheets

ASKED: dict[str, Any] = {"prompt": "a red circle", "model": "demo", "width": 64, "height": 64, "num_frames": 5}


def post(place: Place, status: int = 200, key: str | None = None, **values: Any) -> dict[str, Any]:
    headers = {"idempotency-key": key} if key else {}
    response = place.client.post("/v1/sweeps", json=ASKED | values, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


def gather(place: Place) -> None:
    sheets = SweepSheets(place.service.store, place.service.results)
    while Gatherer(place.service.store, {KIND: sheets.finish}, {KIND: sheets.sweep}).gather("hand"):
        pass


def test_a_sweep_from_its_order_to_its_files(place: Place) -> None:
    made = post(place, axes={"guidance": ["1", "3:3"], "seed": [1, 2]}, title="Four")
    assert (made["status"], made["rows"], made["columns"], made["title"]) == ("queued", 2, 2, "Four")
    assert [cell["labels"] for cell in made["cells"]][1] == ["guidance 1", "seed 2"]
    assert made["axes"][0] == {"name": "guidance", "values": [[1.0, 1.0], [3.0, 3.0]]}
    address = f"/v1/sweeps/{made['id']}"
    assert place.client.get(f"{address}/content").status_code == 404
    for _ in range(4):
        place.hand.complete(place.hand.claim(), frames=5)
    assert place.client.get(address).json()["status"] == "in_progress"
    gather(place)
    done = place.client.get(address).json()
    assert (done["status"], done["progress"]) == ("completed", 100)
    for variant, start in (("sheet", b"\x89PNG"), ("csv", b"\xef\xbb\xbfcell"), ("json", b"{")):
        answer = place.client.get(f"{address}/content?variant={variant}")
        assert answer.content.startswith(start) and answer.headers["content-type"] == done["files"][variant][
            "media_type"
        ] + ("; charset=utf-8" if variant == "csv" else "")
    part = place.client.get(f"{address}/content?variant=video", headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert place.client.get("/v1/sweeps").json()["data"][0]["id"] == made["id"]
    assert place.client.delete(address).json() == {"id": made["id"], "object": "sweep.deleted", "deleted": True}
    assert place.client.get(address).status_code == 404
    assert place.client.get(f"/v1/videos/{made['cells'][0]['video']}").status_code == 404
    assert [path.name for path in place.service.results.iterdir() if path.suffix in (".csv", ".mp4")] == []


def test_a_picture_is_taken_in_once(place: Place, picture: bytes) -> None:
    made = post(place, image=base64.b64encode(picture).decode(), axes={"steps": [1, 2, 3]})
    kept = {json.loads(place.service.get(cell["video"]).request)["image"]["sha256"] for cell in made["cells"]}
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "axes"),
        ({"axes": {"seed": list(range(65))}}, "axes"),
        ({"axes": {"wobble": [1]}}, "axes"),
        ({"axes": {"seed": [1]}, "webhook_url": "https://example.org"}, "webhook_url"),  # none may be told here
        ({"axes": {"seed": [1]}, "speed": 9}, "speed"),
        ({"axes": {"lora:none": [1]}}, "loras"),
    ],
)
def test_what_can_t_be_swept_is_refused_whole(shared: Place, values: dict[str, Any], field: str) -> None:
    before = shared.service.queue().queued
    error = post(shared, 400, **values)["error"]
    assert error["problems"][0]["field"] == field
    assert shared.service.queue().queued == before


def test_the_same_key_is_the_same_sweep(place: Place) -> None:
    one, other = (post(place, key="k", axes={"seed": [1, 2]}) for _ in range(2))
    assert one["id"] == other["id"] and place.service.queue().queued == 2
    post(place, 409, key="k", axes={"seed": [1, 3]})


def test_stopping_and_going_on(place: Place) -> None:
    made = post(place, axes={"seed": [1, 2]})
    place.hand.complete(place.hand.claim())
    address = f"/v1/sweeps/{made['id']}"
    stopped = place.client.post(f"{address}/cancel").json()
    assert [cell["status"] for cell in stopped["cells"]] == ["completed", "cancelled"]
    gather(place)
    assert place.client.get(address).json()["status"] == "completed"
    assert place.client.post(f"{address}/retry").json()["status"] == "in_progress"


def test_others_have_sweeps_of_their_own(open_place: Open) -> None:
    place = open_place(keys={"first": ("admin",)})
    ann, bob = place.as_key("ann"), place.as_key("bob")
    made = place.client.post("/v1/sweeps", json=ASKED | {"axes": {"seed": [1]}}, headers=ann).json()
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("GET", "/content"), ("DELETE", "")):
        assert place.client.request(method, f"/v1/sweeps/{made['id']}{path}", headers=bob).status_code == 404
    assert place.client.get("/v1/sweeps", headers=bob).json()["data"] == []


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    file = tmp_path / "two.yaml"
    file.write_text("prompt: a cat\nmodel: demo\ntitle: Two\naxes:\n  seed: [1, 2]\n")

    def run(*words: str) -> Any:
        result = CliRunner().invoke(cli, words, standalone_mode=False)
        assert result.exception is None, result.output
        return result.output

    checked = run("sweep", "-m", "demo", "a cat", "--seed", "1,2,3", "--guidance", "1,3:3", "--steps", "4", "--check")
    assert "6 cells" in checked and "guidance 3" in checked
    made = json.loads(run("sweep", str(file), "--guidance", "1,2", "--json").splitlines()[-1])
    assert len(made["cells"]) == 4 and made["title"] == "Two"
    assert made["id"][:8] in run("sweeps", "list")
    assert "cancelled" in run("sweeps", "cancel", made["id"][:8])
    run("sweeps", "delete", made["id"])
    assert run("sweeps", "list") == ""
