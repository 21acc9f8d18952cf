"""S3Storage against a real server that checks signatures, with faults in front of it (T7)."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage.fault_proxy import (
    FaultProxy,
    Harm,
    damage,
    hold,
    refuse,
    reset_after,
    reset_in_body,
    truncate,
    with_headers,
)
from storage.seaweed import ACCESS, SECRET, Seaweed
from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Credentials, Destination, is_key, object_name
from wanreel.core.errors import (
    Cancelled,
    RemoteError,
    StorageDamaged,
    StorageRefused,
    StorageUnavailable,
)
from wanreel.storage import s3_client
from wanreel.storage.objects import CHUNK, MemoryObjects, ObjectStorage, Parcel
from wanreel.storage.s3 import S3Storage

pytestmark = pytest.mark.xdist_group("s3")

PART = 5 * 2**20  # the least that S3 takes
Make = Callable[[int], Parcel]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Files of random bytes."""

    def parcel(size: int) -> Parcel:
        data, path = os.urandom(size), tmp_path / f"{size}.mp4"
        path.write_bytes(data)
        return Parcel(path, hashlib.sha256(data).hexdigest(), size, "video/mp4")

    return parcel


@pytest.fixture
def key() -> str:
    return f"wan/{uuid.uuid4().hex}_video.mp4"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats come at once."""
    from botocore.retries.standard import ExponentialBackoff

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.0)
    monkeypatch.setattr(s3_client, "_READ", 10.0)


def digest(storage: ObjectStorage, key: str, **part: int) -> str:
    return hashlib.sha256(b"".join(storage.open(key, **part))).hexdigest()


@pytest.mark.parametrize("size", [0, 1, CHUNK + 1, PART, PART + 1])
def test_what_was_put_is_there(s3: Seaweed, proxy: FaultProxy, make: Make, key: str, size: int) -> None:
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(size)
    storage.put(key, parcel, CancelToken())
    assert s3.objects()[key] == size and digest(storage, key) == parcel.sha256
    puts = len(proxy.puts())
    storage.put(key, parcel, CancelToken())
    assert len(proxy.puts()) == puts, "what is there is not put again"
    storage.delete(key)
    storage.delete(key)
    assert key not in s3.objects()
    with pytest.raises(StorageRefused, match="NoSuchKey"):
        storage.open(key)


def test_a_range(s3: Seaweed, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination()), make(1000)
    storage.put(key, parcel, CancelToken())
    data = parcel.path.read_bytes()
    assert b"".join(storage.open(key, first=10, last=19)) == data[10:20]
    assert b"".join(storage.open(key, first=990)) == data[990:]


def test_an_address_that_needs_no_keys(s3: Seaweed, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination(presign_seconds=60)), make(100)
    storage.put(key, parcel, CancelToken())
    url = storage.url(key, file_name="ein Fuchs ü.mp4", media_type="video/mp4")
    assert SECRET not in url
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == parcel.path.read_bytes()
        assert answer.headers["Content-Type"] == "video/mp4"
        assert "ein%20Fuchs%20%C3%BC.mp4" in answer.headers["Content-Disposition"]
    for wrong in (url.replace("Signature=", "Signature=0"), url.partition("?")[0]):
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(wrong):
            pass
        assert refused.value.code == 403
        refused.value.close()
    public = S3Storage(s3.destination(public_url="https://videos.example/"))
    assert public.url("a b.mp4") == "https://videos.example/a%20b.mp4"


@pytest.mark.parametrize(
    ("keys", "said"),
    [(Credentials(ACCESS, "wrong"), "SignatureDoesNotMatch"), (Credentials("NOBODY", SECRET), "InvalidAccessKeyId")],
)
def test_wrong_keys(s3: Seaweed, make: Make, key: str, keys: Credentials, said: str) -> None:
    with pytest.raises(StorageRefused, match=said) as refused:
        S3Storage(s3.destination(credentials=keys)).put(key, make(10), CancelToken())
    assert not refused.value.retryable and refused.value.hint
    assert SECRET not in str(refused.value) and SECRET not in repr(s3.destination())


OUTAGES: dict[str, tuple[Harm, str, type[RemoteError]]] = {
    "reset in the body": (reset_in_body, "PUT", StorageUnavailable),
    "503 SlowDown": (refuse(503, "SlowDown"), "PUT", StorageUnavailable),
    "500": (refuse(500, "InternalError"), "PUT", StorageUnavailable),
    "403 expired": (refuse(403, "ExpiredToken"), "PUT", StorageRefused),
    "403 clock": (refuse(403, "RequestTimeTooSkewed"), "PUT", StorageRefused),
    "404 bucket": (refuse(404, "NoSuchBucket"), "PUT", StorageRefused),
    "damaged on the way": (damage, "PUT", StorageDamaged),
    "the look cut off": (reset_in_body, "HEAD", StorageUnavailable),
    "the look refused": (refuse(503, "SlowDown"), "HEAD", StorageUnavailable),
}


@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("size", [1000, PART + 1000])
def test_outages(s3: Seaweed, proxy: FaultProxy, make: Make, key: str, outage: str, size: int) -> None:
    """The right error, nothing under the key that is not whole, and all well afterwards."""
    harm, method, error = OUTAGES[outage]
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(size)
    proxy.harm(harm, method=method, times=3)
    with pytest.raises(error) as raised:
        storage.put(key, parcel, CancelToken())
    assert "canary-message" not in str(raised.value), "what a server says is not repeated"
    assert key not in s3.objects()
    proxy.harms.clear()
    storage.put(key, parcel, CancelToken())
    assert digest(storage, key) == parcel.sha256 and not s3.unfinished(key)


def test_nobody_there(make: Make, key: str) -> None:
    nowhere = Destination("results", Credentials("a", "b"), endpoint="http://127.0.0.1:9")
    with pytest.raises(StorageUnavailable, match="can't be reached") as raised:
        S3Storage(nowhere).put(key, make(10), CancelToken())
    assert "127.0.0.1" not in str(raised.value)


def test_one_fault_costs_a_repeat_and_no_more(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(2 * PART + 5)
    proxy.harm(refuse(503, "SlowDown"), method="PUT", part="partNumber=2")
    proxy.harm(reset_in_body, method="PUT", part="partNumber=3")
    storage.put(key, parcel, CancelToken())
    assert digest(storage, key) == parcel.sha256
    assert [path.partition("partNumber=")[2][0] for path in proxy.puts()] == ["1", "2", "2", "3", "3"]


def test_done_and_not_heard(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    """The server has it, and its answer was lost, whatever it was to."""
    for size, method in ((1000, "PUT"), (PART + 7, "POST")):
        storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(size)
        proxy.harm(reset_after, method=method, times=3)
        with pytest.raises(RemoteError):
            storage.put(f"{key}{size}", parcel, CancelToken())
        proxy.harms.clear()
        storage.put(f"{key}{size}", parcel, CancelToken())
        assert digest(storage, f"{key}{size}") == parcel.sha256


def test_a_server_that_stands_still(
    s3: Seaweed, proxy: FaultProxy, make: Make, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "_READ", 0.2)
    gate = threading.Event()
    proxy.harm(hold(gate), method="PUT", times=3)
    with pytest.raises(StorageUnavailable, match="in time"):
        S3Storage(s3.destination(proxy.url)).put(key, make(1000), CancelToken())
    gate.set()


def test_what_the_server_has_is_looked_at(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(1000)
    proxy.harm(refuse(404, "NoSuchKey"), method="HEAD")
    proxy.harm(with_headers(ETag='"0123456789abcdef0123456789abcdef"', x_amz_meta_sha256="0" * 64), method="HEAD")
    with pytest.raises(StorageDamaged):
        storage.put(key, parcel, CancelToken())
    assert key not in s3.objects(), "nobody is to take it for the video"


def test_checksums_that_are_none_of_the_file(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    """Encrypting servers: then all of it is read back."""
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(1000)
    proxy.harm(refuse(404, "NoSuchKey"), method="HEAD")
    proxy.harm(with_headers(ETag='"0123456789abcdef0123456789abcdef"'), method="HEAD")
    storage.put(key, parcel, CancelToken())
    assert ("GET", f"/results/{key}") in proxy.seen


def test_who_may_not_list_can_put(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(PART + 1)
    proxy.harm(refuse(403, "AccessDenied"), method="HEAD")
    proxy.harm(refuse(403, "AccessDenied"), method="GET", part="uploads")
    storage.put(key, parcel, CancelToken())
    assert digest(storage, key) == parcel.sha256


def test_a_download_that_ends_early(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination(proxy.url)), make(100_000)
    storage.put(key, parcel, CancelToken())
    proxy.harm(truncate, method="GET")
    with pytest.raises(StorageUnavailable):
        digest(storage, key)


class AfterParts(CancelToken):
    """Stops when so many parts are there."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.left = parts

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.cancel()
        super().check()


def test_stopped_and_gone_on_with(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    storage, parcel = S3Storage(s3.destination(proxy.url), part=PART), make(2 * PART + 5)
    with pytest.raises(Cancelled):
        storage.put(key, parcel, AfterParts(2))
    assert key not in s3.objects() and len(s3.unfinished(key)) == 1
    proxy.seen.clear()
    storage.put(key, parcel, CancelToken())
    assert len(proxy.puts()) == 1, "two of three parts were there"
    assert digest(storage, key) == parcel.sha256 and not s3.unfinished(key)


def test_parts_of_another_file_are_put_again(s3: Seaweed, proxy: FaultProxy, make: Make, key: str) -> None:
    storage = S3Storage(s3.destination(proxy.url), part=PART)
    with pytest.raises(Cancelled):
        storage.put(key, make(PART + 3), AfterParts(1))
    other = make(PART + 4)
    storage.put(key, other, CancelToken())
    assert digest(storage, key) == other.sha256


def test_a_file_that_has_changed_is_not_put(s3: Seaweed, make: Make, key: str) -> None:
    for storage in (S3Storage(s3.destination()), MemoryObjects()):
        parcel = make(1000)
        parcel.path.write_bytes(b"x" * 1000)
        with pytest.raises(StorageRefused, match="checksum"):
            storage.put(key, parcel, CancelToken())
    parcel = make(1000)
    with parcel.path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(StorageRefused, match="checksum"):
        S3Storage(s3.destination()).put(key, parcel, CancelToken())
    parcel.path.unlink()
    with pytest.raises(StorageRefused, match="no longer here"):
        S3Storage(s3.destination()).put(key, parcel, CancelToken())
    assert key not in s3.objects()


def test_nothing_of_this_machine_is_used(
    s3: Seaweed, make: Make, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever brings keys acts with them alone, whatever the server's own are."""
    own = tmp_path / "config"
    own.write_text(f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\nregion = nowhere\n")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", ACCESS), ("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_PROFILE", "no-such-profile"),
        ("AWS_CONFIG_FILE", str(own)), ("AWS_SHARED_CREDENTIALS_FILE", str(own)),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"), ("AWS_SESSION_TOKEN", "t"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    S3Storage(s3.destination()).put(key, make(10), CancelToken())
    with pytest.raises(StorageRefused, match="SignatureDoesNotMatch"):
        S3Storage(s3.destination(credentials=Credentials(ACCESS, "wrong"))).put(key + "2", make(10), CancelToken())


def test_the_keys_of_the_machine_serve_a_profile_without_any(
    s3: Seaweed, make: Make, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    S3Storage(s3.destination(credentials=None)).put(key, make(10), CancelToken())
    assert key in s3.objects()


def test_no_secret_is_logged_at_any_level(s3: Seaweed, make: Make, key: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for name in ("boto3", "botocore", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.DEBUG)
        token = Credentials(ACCESS, SECRET, "canary-session-token")
        with pytest.raises(RemoteError):
            S3Storage(s3.destination(credentials=replace(token, secret_access_key="x"))).put(
                key, make(9), CancelToken()
            )
    assert "canary-session-token" not in caplog.text and ACCESS not in caplog.text


@pytest.mark.parametrize(
    ("text", "good"),
    [("a/b", True), ("wan-i2v/results", True), ("/a", False), ("a/", False), ("a//b", False), ("a/../b", False),
     ("..", False), ("a b", False), ("ä", False), ("", False)],
)  # fmt: skip
def test_beginnings_of_keys(text: str, good: bool) -> None:
    assert is_key(text) == good


def test_names() -> None:
    assert object_name("abc", "video", "20261121_x.mp4") == "abc_video.mp4"
    assert object_name("abc", "last_frame", "20261121_x.last.png") == "abc_lastframe.png"
    assert Destination("b", prefix="wan-i2v/results").key("abc_video.mp4") == "wan-i2v/results/abc_video.mp4"
    assert Destination("b").key("x") == "x"
