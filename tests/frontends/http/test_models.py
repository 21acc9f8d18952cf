"""Downloads through the API, from a hub on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from frontends.http.places import Open, Place
from models.hub_server import Fault, HubServer, hub_server
from wanreel.core.catalog import Catalog
from wanreel.models.tiny import save_tiny
from wanreel.worker.orders import Orders

NAME = "t2v-1.3b"
SPEC = Catalog().get(NAME)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(Catalog().get(f"tiny:{NAME}"), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def hub(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[HubServer]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with hub_server() as server:
        server.add_folder(SPEC.hub_id or "", weights)
        yield server


@pytest.fixture
def place(open_place: Open, hub: HubServer) -> Place:
    return open_place(hub_endpoint=hub.url, min_free_gb=0.0)


def model(place: Place) -> dict[str, Any]:
    return place.client.get(f"/v1/models/{NAME}").json()


def wait_for(place: Place, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The model once `holds` is true of its download."""
    deadline = time.monotonic() + 60
    while True:
        shown = model(place)
        if shown["download"] is not None and holds(shown["download"]):
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)


def is_in(state: str) -> Callable[[dict[str, Any]], bool]:
    return lambda download: download["state"] == state


def test_a_model_from_absent_to_deleted(place: Place, hub: HubServer) -> None:
    before = model(place)
    assert not before["installed"] and before["download"] is None and before["size_bytes"] is None
    assert (before["licence"], before["repository"]) == ("Apache-2.0", SPEC.hub_id)

    answer = place.client.post(f"/v1/models/{NAME}/pull")
    assert answer.status_code == 202 and answer.json()["download"]["state"] in ("starting", "downloading", "complete")

    done = wait_for(place, is_in("complete"))
    size = sum(len(data) for data in hub.repos[SPEC.hub_id or ""].values())
    assert done["installed"] and done["size_bytes"] == size == done["download"]["received_bytes"]

    path = place.runtime.shelf.folder(SPEC) / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    assert place.client.post(f"/v1/models/{NAME}/verify").status_code == 202
    damaged = wait_for(place, is_in("damaged"))
    assert damaged["download"]["message"] == f"{NAME}/{WEIGHTS} has changed since it was received"

    assert place.client.post(f"/v1/models/{NAME}/pull").status_code == 202
    wait_for(place, is_in("complete"))
    assert place.client.post(f"/v1/models/{NAME}/verify").status_code == 202
    wait_for(place, is_in("complete"))

    gone = place.client.delete(f"/v1/models/{NAME}")
    assert gone.status_code == 200 and gone.json() == {
        "id": NAME,
        "object": "model",
        "deleted": True,
        "freed_bytes": size,
    }
    assert not model(place)["installed"]


def test_pause_and_resume(place: Place, hub: HubServer) -> None:
    hub.faults = [Fault(WEIGHTS, "stall", math.inf)]
    place.client.post(f"/v1/models/{NAME}/pull")
    wait_for(place, lambda download: download["received_bytes"] > 0)
    assert place.client.delete(f"/v1/models/{NAME}").status_code == 409

    assert place.client.post(f"/v1/models/{NAME}/pull/pause").status_code == 200
    paused = wait_for(place, is_in("paused"))
    assert 0 < paused["download"]["received_bytes"] < paused["download"]["total_bytes"]
    assert place.client.post(f"/v1/models/{NAME}/pull/pause").status_code == 409

    hub.faults = []
    hub.released.set()
    place.client.post(f"/v1/models/{NAME}/pull")
    assert wait_for(place, is_in("complete"))["installed"]


def test_leaving_ends_the_download(place: Place, hub: HubServer) -> None:
    hub.faults = [Fault(WEIGHTS, "slow", math.inf)]
    place.client.post(f"/v1/models/{NAME}/pull")
    wait_for(place, lambda download: download["received_bytes"] > 0)
    hub.faults = [Fault(WEIGHTS, "stall", math.inf)]
    downloads = place.app.house.downloads
    downloads.close()
    state = place.runtime.supply.registry.progress(SPEC)
    assert state is not None and state.state in ("interrupted", "complete")
    assert downloads.progresses()[NAME] == state


def test_a_failed_download_says_why_to_admins(open_place: Open, hub: HubServer) -> None:
    place = open_place(hub_endpoint=hub.url, keys={"boss": ("admin",)}, min_free_gb=0.0)
    admin, user = place.as_key("chief", "read", "submit", "admin"), place.as_key("guest")
    hub.repos.clear()
    place.client.post(f"/v1/models/{NAME}/pull", headers=admin)
    deadline = time.monotonic() + 60
    while True:
        shown = place.client.get(f"/v1/models/{NAME}", headers=admin).json()["download"]
        if shown["state"] == "failed":
            break
        assert time.monotonic() < deadline, shown
        time.sleep(0.05)
    assert "is not on" in shown["message"]
    assert place.client.get(f"/v1/models/{NAME}", headers=user).json()["download"]["message"] is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/pull"),
        ("POST", "/pull/pause"),
        ("POST", "/verify"),
        ("DELETE", ""),
        ("POST", "/load"),
        ("POST", "/unload"),
    ],
)
def test_only_for_admins(open_place: Open, hub: HubServer, method: str, path: str) -> None:
    place = open_place(hub_endpoint=hub.url, keys={"boss": ("admin",)})
    guest = place.as_key("guest")
    answer = place.client.request(method, f"/v1/models/{NAME}{path}", headers=guest)
    assert answer.status_code == 403
    assert not hub.requests


def test_what_can_not_be_done(open_place: Open, hub: HubServer) -> None:
    place = open_place(hub_endpoint=hub.url, offline=True)
    post = place.client.post
    assert post("/v1/models/nope/pull").status_code == 404
    assert post(f"/v1/models/{NAME}/pull").json()["error"]["code"] == "hub_unavailable"
    assert post("/v1/models/demo/pull").status_code == 400
    assert post(f"/v1/models/{NAME}/verify").status_code == 400
    assert place.client.delete(f"/v1/models/{NAME}").status_code == 400
    assert not hub.requests


def test_a_request_for_an_absent_model_says_what_is_downloaded(place: Place, hub: HubServer) -> None:
    size = sum(len(data) for data in hub.repos[SPEC.hub_id or ""].values())
    answer = place.client.post("/v1/videos", json={"prompt": "a red circle", "model": NAME, "seed": 1})
    assert answer.status_code == 200, answer.text
    assert f"downloaded first: {size / 1e9:.1f} GB, Apache-2.0" in str(answer.json())


def test_with_downloads_off_it_is_refused(open_place: Open, hub: HubServer) -> None:
    place = open_place(hub_endpoint=hub.url, download=False)
    answer = place.client.post("/v1/videos", json={"prompt": "a red circle", "model": NAME})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "model_not_installed"
    assert not hub.requests


def test_load_and_unload_are_orders_to_the_workers(place: Place) -> None:
    orders = Orders(place.runtime.settings.data.workers)
    assert place.client.post("/v1/models/demo/load").status_code == 202
    first = orders.newest()
    assert first is not None and (first.verb, first.model) == ("load", "demo")
    assert place.client.post("/v1/models/demo/unload").status_code == 202
    second = orders.newest()
    assert second is not None and (second.verb, second.model) == ("unload", "demo") and second.number > first.number
    assert place.client.post(f"/v1/models/{NAME}/load").status_code == 409
    assert place.client.post("/v1/models/nope/load").status_code == 404
    assert orders.newest() == second
