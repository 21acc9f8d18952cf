"""Results in object storage through the API, against a real S3 server: profiles, keys of requests, downloads, secrets."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from frontends.audit import watching
from frontends.canary import canary
from frontends.http.places import Open, Place
from frontends.http.test_secrets import Canaries, everything, log  # noqa: F401 - a fixture  # pyright: ignore[reportUnusedImport]
from wanreel.core.cancel import CancelToken
from wanreel.core.errors import InvalidRequest, RemoteError, StorageUnavailable
from wanreel.core.settings_groups import OutboundSettings
from wanreel.frontends.addresses import Rules, origins_of
from wanreel.frontends.fetcher import Fetcher
from wanreel.frontends.own_storage import OwnStorage, build_own_storage
from wanreel.service import uploader as uploads
from wanreel.storage.objects import Parcel

if TYPE_CHECKING:
    from storage.seaweed import Seaweed

pytestmark = pytest.mark.xdist_group("s3")

R2 = f"https://{'ab' * 16}.r2.cloudflarestorage.com"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_LOOK", 0.02)


def make(place: Place, **values: Any) -> tuple[str, bytes]:
    """A finished video's id and bytes."""
    job_id = place.submit(**values)["id"]
    return job_id, place.hand.complete(place.hand.claim())


def shown(place: Place, job_id: str) -> dict[str, Any]:
    return place.client.get(f"/v1/videos/{job_id}").json()["wanreel"]["upload"]


def wait(place: Place, job_id: str, *states: str) -> dict[str, Any]:
    end = time.monotonic() + 30
    while (upload := shown(place, job_id))["state"] not in states and time.monotonic() < end:
        time.sleep(0.02)
    assert upload["state"] in states, upload
    return upload


@pytest.fixture
def open_with(open_place: Open, s3: Seaweed) -> Callable[..., Place]:
    """A place whose profile `results` is the S3 server's bucket."""

    def make(**changes: Any) -> Place:
        outbound = {"uploads": True, "upload_endpoints": [s3.url], "private_origins": [s3.url]}
        return open_place(storage={"results": s3.profile(**changes)}, outbound=outbound)

    return make


def test_a_video_goes_to_the_profile_it_names(s3: Seaweed, open_with: Callable[..., Place]) -> None:
    place = open_with(prefix="wan")
    assert place.client.get("/v1/storage").json()["data"] == [{"name": "results", "default": False}]
    waiting = place.submit(storage="results")
    assert waiting["wanreel"]["upload"]["state"] == "waiting"
    data = place.hand.complete(place.hand.claim())
    upload = wait(place, waiting["id"], "done")
    assert upload["storage"] == "results" and upload["outcome"] == ""
    keys = [file["key"] for file in upload["files"]]
    assert keys == [f"wan/{waiting['id']}_video.mp4", f"wan/{waiting['id']}_lastframe.png"]
    with urllib.request.urlopen(upload["files"][0]["url"]) as answer:
        assert answer.read() == data
    listed = place.client.get("/v1/videos").json()["data"][0]["wanreel"]["upload"]
    assert listed["state"] == "done" and listed["files"][0]["url"] is None
    stays, _ = make(place)
    assert shown(place, stays) is None
    refused = place.client.post("/v1/videos", json={"prompt": "x", "model": "demo", "storage": "nowhere"})
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "storage"


def test_a_file_that_lies_only_there(s3: Seaweed, open_with: Callable[..., Place]) -> None:
    for how in ("redirect", "proxy"):
        place = open_with(downloads=how)
        job_id, data = make(place, storage="results")
        wait(place, job_id, "done")
        path = f"/v1/videos/{job_id}/content"
        assert place.client.get(path).content == data
        (place.service.results / f"{job_id}.mp4").unlink()
        answer = place.client.get(path, follow_redirects=False)
        if how == "redirect":
            assert answer.status_code == 302
            with urllib.request.urlopen(answer.headers["location"]) as fetched:
                assert fetched.read() == data
            answer = place.client.get(path, headers={"Sec-Fetch-Dest": "video"}, follow_redirects=False)
        assert answer.status_code == 200 and answer.content == data
        if how == "proxy":
            part = place.client.get(path, headers={"Range": "bytes=10-19"})
            assert part.status_code == 206 and part.content == data[10:20]
            assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
        assert place.client.get(path, params={"variant": "thumbnail"}).status_code == 200, "it never left"


def test_sent_later(s3: Seaweed, open_with: Callable[..., Place]) -> None:
    place = open_with()
    job_id, _ = make(place)
    for body in ({}, {"storage": "nowhere"}, {"storage": "results", "more": 1}):
        assert place.client.post(f"/v1/videos/{job_id}/upload", json=body).status_code == 400
    sent = place.client.post(f"/v1/videos/{job_id}/upload", json={"storage": "results"})
    assert sent.status_code == 200 and sent.json()["wanreel"]["upload"]["state"] in ("waiting", "uploading", "done")
    wait(place, job_id, "done")
    queued = place.submit()["id"]
    assert place.client.post(f"/v1/videos/{queued}/upload", json={"storage": "results"}).status_code == 409


def test_keys_of_a_request(s3: Seaweed, open_with: Callable[..., Place]) -> None:
    place = open_with()
    job_id, data = make(place, r2=s3.own())
    upload = wait(place, job_id, "done")
    assert upload["storage"] is None and upload["files"][0]["url"] is None
    key = f"wan-i2v/results/{job_id}_video.mp4"
    assert upload["files"][0]["key"] == key and s3.objects()[key] == len(data)
    wrong, _ = make(place, upload=s3.own() | {"secret_access_key": "wrong"})
    assert "SignatureDoesNotMatch" in wait(place, wrong, "failed")["outcome"]
    mended = place.client.post(f"/v1/videos/{wrong}/upload", json={"r2": s3.own()})
    assert mended.status_code == 200, mended.text
    wait(place, wrong, "done")
    both = {"prompt": "x", "model": "demo", "r2": s3.own(), "storage": "results"}
    assert place.client.post("/v1/videos", json=both).json()["error"]["param"] == "r2"


def test_keys_are_lost_with_the_process(s3: Seaweed, open_with: Callable[..., Place]) -> None:
    place = open_with()
    job_id = place.submit(r2=s3.own())["id"]
    uploader = place.app.house.depots.uploader
    uploader.close()
    data = place.hand.complete(place.hand.claim())
    place.service.store.uploads.lose()
    assert shown(place, job_id)["state"] == "credentials_lost"
    assert place.client.get(f"/v1/videos/{job_id}/content").content == data, "the video stays here"


def test_off_by_default(open_place: Open) -> None:
    place = open_place()
    given = {"endpoint_url": R2, "bucket_name": "bucket", "access_key_id": "a", "secret_access_key": "canary-secret"}
    answer = place.client.post("/v1/videos", json={"prompt": "x", "model": "demo", "r2": given})
    assert answer.status_code == 400 and answer.json()["error"]["problems"][0]["code"] == "uploads_off"
    assert "canary" not in answer.text


def own_storage(*endpoints: str, resolve: Callable[[str, int], list[str]], **rules: Any) -> OwnStorage:
    outbound = OutboundSettings(uploads=True, upload_endpoints=endpoints)
    return build_own_storage(outbound, Fetcher(Rules(**rules), resolve=resolve))


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:9000", "https://169.254.169.254", "https://s3.example", R2.replace("https", "http"),
     f"{R2}.evil.example", f"{R2}:8443", f"{R2}/bucket", f"{R2}?x=1", R2.replace("//", "//me:pw@"), "file:///etc/passwd",
     R2.replace("ab", "AZ", 1), "https://abab.r2.cloudflarestorage.com", "", "x" * 5000, f"{R2}\\@evil.example"],
)  # fmt: skip
def test_endpoints_that_are_never_called(endpoint: str) -> None:
    given = {"endpoint_url": endpoint, "bucket_name": "bucket", "access_key_id": "a", "secret_access_key": "canary"}
    with watching() as seen, pytest.raises(InvalidRequest) as refused:
        own_storage(resolve=lambda host, port: ["127.0.0.1"]).accept(given, "r2")
    assert not seen.connects and "canary" not in str(refused.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
def test_names_that_lead_inside(address: str, tmp_path: Path) -> None:
    """An endpoint that is allowed, and whose name stands for an address of ours."""
    own = own_storage(resolve=lambda host, port: ["1.1.1.1", address])
    given = {"endpoint_url": R2, "bucket_name": "bucket", "access_key_id": "a", "secret_access_key": "s"}
    destination = own.accept(given, "r2")
    assert destination is not None
    (tmp_path / "x").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with watching(lambda host, port: False) as seen, pytest.raises(StorageUnavailable):
        own.open(destination).put("k", Parcel(tmp_path / "x", empty, 0, "video/mp4"), CancelToken())
    assert not seen.connects


def test_redirects_are_not_followed() -> None:
    with canary() as inside, canary() as outside:
        origin = f"http://127.0.0.1:{outside.port}"
        for path in ("/bucket", "/bucket/k"):
            there = f"http://127.0.0.1:{inside.port}/stolen"
            outside.answers(path, status=307, Location=there, x_amz_bucket_region="eu-west-1")
        own = own_storage(origin, resolve=lambda host, port: [host], private_origins=origins_of([origin]))
        given = {"endpoint_url": origin, "bucket_name": "bucket", "access_key_id": "a", "secret_access_key": "s"}
        destination = own.accept(given, "r2")
        assert destination is not None
        with pytest.raises(RemoteError):
            list(own.open(destination).open("k"))
        assert outside.asked and not inside.asked


def test_no_key_of_a_request_comes_out(
    s3: Seaweed,
    open_with: Callable[..., Place],
    log: Path,  # noqa: F811
) -> None:
    """T20 over everything that storage of requests touches."""
    from storage.seaweed import SECRET

    hidden, answers = Canaries(), list[str]()
    place = open_with()
    hidden.of["right"] = SECRET
    wrong, access, token = hidden.new("secret"), hidden.new("access"), hidden.new("token")

    def call(method: str, path: str, **more: Any) -> Any:
        answer = place.client.request(method, path, **more)
        answers.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer

    good = {"prompt": "x", "model": "demo"}
    done = call("POST", "/v1/videos", json=good | {"r2": s3.own()}).json()["id"]
    place.hand.complete(place.hand.claim())
    wait(place, done, "done")
    keys = {"access_key_id": access, "secret_access_key": wrong, "session_token": token}
    refused = call("POST", "/v1/videos", json=good | {"upload": s3.own() | keys}).json()["id"]
    place.hand.complete(place.hand.claim())
    wait(place, refused, "failed")
    for bad in (
        {"endpoint_url": f"https://{wrong}.example"},
        {"bucket_name": f"/{wrong}"},
        {wrong: "x"},
        {"region": 5},
    ):
        for path in ("/v1/videos", "/v1/plan", f"/v1/videos/{done}/upload"):
            call("POST", path, json=good | {"r2": s3.own() | keys | bad})
            call("POST", path, data={"prompt": "x", "r2": json.dumps(s3.own() | keys | bad)})
    for body in ({"r2": wrong}, {"r2": [wrong]}, {"r2": {"a": {"b": wrong}}}, {"storage": {"x": wrong}}):
        call("POST", "/v1/videos", json=good | body)
    for path in (f"/v1/videos/{done}", f"/v1/videos/{refused}", "/v1/videos", "/v1/storage", "/metrics", "/v1/system"):
        call("GET", path)
    call("GET", f"/v1/videos/{done}/manifest")
    places = {
        "log": hidden.found_in(log.read_text()),
        "answers": hidden.found_in("\n".join(answers)),
        "files": hidden.found_in(everything(place.folder)),
        "repr": hidden.found_in(repr(place.runtime.settings) + repr(place.app) + repr(place.app.house.depots)),
    }
    assert all(not found for found in places.values()), places
