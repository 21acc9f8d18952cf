"""Pictures and saved states that two machines share, over storage in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Destination
from wanreel.core.errors import (
    Cancelled,
    InsufficientStorage,
    InvalidRequest,
    MissingDependency,
    SettingsError,
    StorageDamaged,
    StorageRefused,
    StorageUnavailable,
    WanreelError,
)
from wanreel.core.settings import load_settings
from wanreel.storage.depots import Depot
from wanreel.storage.disk import BlobStore
from wanreel.storage.objects import MemoryObjects, Parcel
from wanreel.storage.shared import SharedBlobs, SharedStates, open_shared

if TYPE_CHECKING:
    from storage.seaweed import Seaweed

DATA = b"a picture" * 1000
NAME = hashlib.sha256(DATA).hexdigest()
KEY = f"wan/pictures/{NAME}"
STATE = "clip000-step00002.safetensors"


class Away(MemoryObjects):
    """Fails with an error where there is one."""

    error: WanreelError | None = None

    def put(self, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        if self.error is not None:
            raise self.error
        super().put(key, parcel, cancel)

    def open(self, key: str, *, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        if self.error is not None:
            raise self.error
        return super().open(key, first=first, last=last)

    def delete(self, key: str) -> None:
        if self.error is not None:
            raise self.error
        super().delete(key)


@dataclass
class Machines:
    """Two machines with a data directory each."""

    objects: Away
    here: SharedBlobs
    there: SharedBlobs
    states: SharedStates
    root: Path

    def state(self, name: str = STATE, data: bytes = b"state") -> Path:
        folder = self.root / "checkpoints"
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        return folder / name

    @property
    def other(self) -> Path:
        """Where the second machine keeps states."""
        return self.root / "other"


@pytest.fixture
def machines(tmp_path: Path) -> Machines:
    objects = Away()
    depot = Depot(Destination("bucket", prefix="wan"), objects)
    here, there = (SharedBlobs(BlobStore(tmp_path / name / "pictures"), depot) for name in ("a", "b"))
    return Machines(objects, here, there, SharedStates(depot), tmp_path)


def test_a_picture_is_fetched_by_who_lacks_it_and_kept(machines: Machines) -> None:
    assert machines.here.put(DATA) == NAME and not machines.objects.objects, "only jobs' pictures go there"
    machines.here.share(NAME)
    assert machines.objects.objects == {KEY: DATA}
    assert not machines.there.has(NAME)
    assert machines.there.open(NAME) == DATA and machines.there.has(NAME)
    machines.objects.error = StorageUnavailable("away")
    assert machines.there.open(NAME) == DATA, "what is here is not asked for"


def test_a_tampered_picture_is_refused_and_not_kept(machines: Machines) -> None:
    machines.here.put(DATA)
    machines.here.share(NAME)
    machines.objects.objects[KEY] = b"another picture"
    with pytest.raises(InvalidRequest, match="damaged in shared storage"):
        machines.there.open(NAME)
    assert not machines.there.has(NAME)
    machines.here.share(NAME)
    assert machines.there.open(NAME) == DATA, "sharing it again heals it"


def test_a_picture_damaged_on_this_disk_comes_from_there(machines: Machines) -> None:
    machines.here.put(DATA)
    machines.here.share(NAME)
    machines.here.near.path(NAME).write_bytes(b"torn")
    with pytest.raises(InvalidRequest, match="damaged on disk"):
        machines.here.share(NAME)
    assert machines.here.open(NAME) == DATA and machines.here.near.open(NAME) == DATA


@pytest.mark.parametrize(
    "error", [StorageUnavailable("away"), StorageRefused("wrong keys"), MissingDependency("no boto3")]
)
def test_what_can_not_be_shared_is_said_and_can_be_tried_again(machines: Machines, error: WanreelError) -> None:
    machines.here.put(DATA)
    machines.objects.error = error
    with pytest.raises(StorageUnavailable, match=error.message) as caught:
        machines.here.share(NAME)
    assert caught.value.retryable
    machines.objects.error = None
    machines.here.share(NAME)
    assert KEY in machines.objects.objects


def test_a_picture_that_is_nowhere_and_a_storage_that_is_away_differ(machines: Machines) -> None:
    machines.there.share(NAME)  # not here: whoever has it shared it
    with pytest.raises(StorageRefused, match="not on this machine"):
        machines.there.open(NAME)
    machines.objects.error = StorageUnavailable("away")
    with pytest.raises(StorageUnavailable):
        machines.there.open(NAME)
    with pytest.raises(InvalidRequest, match="no valid name"):
        machines.there.open("../../etc/passwd")


def test_the_newest_state_is_found_fetched_and_forgotten(machines: Machines) -> None:
    states, token = machines.states, CancelToken()
    for step, data in ((1, b"one"), (2, b"two" * 10**6)):
        file = machines.state(f"clip000-step0000{step}.safetensors", data)
        states.put("job", file, token)
        assert states.newest("job") == file.name
        brought = states.fetch("job", machines.other, token)
        assert brought == machines.other / file.name and brought.read_bytes() == data
    assert list(machines.objects.objects) == ["wan/checkpoints/job/newest"]
    assert {path.name for path in machines.other.iterdir()} == {f"clip000-step0000{it}.safetensors" for it in (1, 2)}
    assert len(list((machines.root / "checkpoints").iterdir())) == 2, "no half files stay"
    states.forget("job")
    states.forget("job")
    with pytest.raises(StorageRefused):
        states.newest("job")
    machines.objects.error = StorageUnavailable("away")
    states.forget("job")  # said in the log alone


@pytest.mark.parametrize(
    "harm", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:-1] + b"x", lambda _: b"", bytes.upper]
)
def test_a_tampered_state_is_refused(machines: Machines, harm: Callable[[bytes], bytes]) -> None:
    machines.states.put("job", machines.state(), CancelToken())
    key = "wan/checkpoints/job/newest"
    machines.objects.objects[key] = harm(machines.objects.objects[key])
    with pytest.raises(StorageDamaged):
        machines.states.fetch("job", machines.other, CancelToken())
    assert not machines.other.exists() or not list(machines.other.iterdir())


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/x.safetensors", "x.py", "", ".x.safetensors", 3, "x" * 2000 + ".safetensors"]
)
def test_only_plain_names_become_files(machines: Machines, name: object) -> None:
    head = {"file": name, "sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    machines.objects.objects["wan/checkpoints/job/newest"] = json.dumps(head).encode() + b"\n"
    for call in (machines.states.newest, lambda work: machines.states.fetch(work, machines.other, CancelToken())):
        with pytest.raises(StorageDamaged, match="no saved state"):
            call("job")
    assert not machines.other.exists()


def test_stopping_and_full_disks_leave_nothing_behind(machines: Machines) -> None:
    stopped = CancelToken()
    machines.states.put("job", machines.state(), CancelToken())
    before = dict(machines.objects.objects)
    stopped.cancel("stopping")
    with pytest.raises(Cancelled):
        machines.states.put("job", machines.state(data=b"newer"), stopped)
    with pytest.raises(Cancelled):
        machines.states.fetch("job", machines.other, stopped)
    assert machines.objects.objects == before and not list(machines.other.iterdir())
    (machines.root / "file").write_bytes(b"")
    with pytest.raises(InsufficientStorage):
        machines.states.fetch("job", machines.root / "file", CancelToken())


def test_the_setting_names_a_profile(tmp_path: Path) -> None:
    profile = {"lan": {"bucket": "videos", "prefix": "team"}}
    with pytest.raises(SettingsError, match="shared_storage names no profile"):
        load_settings(data_dir=tmp_path, storage=profile, shared_storage="wan")
    shared = open_shared(load_settings(data_dir=tmp_path, storage=profile, shared_storage="lan"))
    assert shared.pictures.depot.destination.key("x") == "team/x"
    assert shared.pictures.near.root == tmp_path / "pictures"


@pytest.mark.xdist_group("s3")
def test_a_real_server_gives_what_it_was_given(s3: Seaweed, tmp_path: Path) -> None:
    profile = s3.profile(prefix="shared")
    here, there = (
        open_shared(load_settings(data_dir=tmp_path / name, storage={"lan": profile}, shared_storage="lan"))
        for name in ("a", "b")
    )
    here.pictures.share(here.pictures.put(DATA))
    assert there.pictures.open(NAME) == DATA
    with pytest.raises(StorageRefused, match="not on this machine"):
        there.pictures.open("0" * 64)
    with pytest.raises(StorageRefused):
        there.states.newest("job")
    for step in (1, 2):
        (tmp_path / f"clip000-step0000{step}.safetensors").write_bytes(b"state" * step * 400)
        here.states.put("job", tmp_path / f"clip000-step0000{step}.safetensors", CancelToken())
    assert there.states.newest("job") == STATE
    assert there.states.fetch("job", tmp_path / "b", CancelToken()).read_bytes() == b"state" * 800
    there.states.forget("job")
    with pytest.raises(StorageRefused):
        here.states.newest("job")
