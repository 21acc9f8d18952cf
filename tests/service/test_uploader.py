"""The uploader over a real store: what it does with outages, keys, stops and death."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.places import posix_only
from storage.fault_proxy import fault_proxy, hold
from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Credentials, Destination
from wanreel.core.errors import Cancelled, SettingsError, StorageRefused, StorageUnavailable, WanreelError
from wanreel.core.group import NewGroup
from wanreel.core.job import ArtifactRef, NewJob
from wanreel.core.upload import UploadReport, UploadState, UploadTo
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.jobs.groups import new_id
from wanreel.jobs.outbox import DELAYS, LEASE
from wanreel.service import uploader as module
from wanreel.service.group_files import upload_report
from wanreel.service.uploader import Uploader
from wanreel.service.vault import Vault
from wanreel.storage.depots import Depot, Depots
from wanreel.storage.objects import MemoryObjects, ObjectStorage, Parcel
from wanreel.storage.s3 import S3Storage

if TYPE_CHECKING:
    from storage.seaweed import Seaweed

DATA = b"a video" * 1000
PLACE = Destination("bucket", Credentials("a", "b"), "results", prefix="wan")


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Failing(MemoryObjects):
    """Fails with each of these first."""

    errors: list[WanreelError | OSError] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def put(self, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().put(key, parcel, cancel)


@dataclass
class Bench:
    store: JobStore
    clock: Clock
    results: Path
    objects: Failing

    def uploader(self, connect: Callable[[Destination], ObjectStorage] | None = None) -> Uploader:
        def find(name: str) -> Destination:
            if name != "results":
                raise SettingsError(f"There is no storage profile {name!r}.")
            return PLACE

        depots = Depots(find, lambda _: self.objects)
        return Uploader(self.store, self.results, depots, connect, jitter=lambda: 0.0)

    def complete(self, to: UploadTo) -> str:
        """A job whose video waits to be put."""
        job_id = self.store.enqueue(NewJob("{}", "demo", upload_to=to)).id
        job = self.store.leases.claim("w")
        assert job is not None
        (self.results / f"{job_id}.mp4").write_bytes(DATA)
        digest = hashlib.sha256(DATA).hexdigest()
        file = ArtifactRef("video", f"{job_id}.mp4", digest, len(DATA), "video/mp4")
        self.store.leases.complete(job.id, job.attempt, digest, (file,))
        return job_id

    def report(self, job_id: str) -> UploadReport:
        return self.store.uploads.reports([job_id])[job_id]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    clock, results = Clock(), tmp_path / "outputs"
    results.mkdir()
    store = JobStore(Database(tmp_path / "jobs.db"), clock=clock)
    yield Bench(store, clock, results, Failing())
    store.close()


def test_copied_under_its_name(bench: Bench) -> None:
    job_id = bench.complete(UploadTo("results"))
    bench.uploader().finish()
    assert bench.objects.objects == {f"wan/{job_id}_video.mp4": DATA}
    file = bench.report(job_id).files[0]
    assert (file.state, file.bucket, file.key) == (UploadState.DONE, "bucket", f"wan/{job_id}_video.mp4")


def test_a_day_of_outage_loses_nothing(bench: Bench) -> None:
    """P23: tried for more than 24 hours, honestly told, and done when the storage is back."""
    job_id = bench.complete(UploadTo("results"))
    uploader, began = bench.uploader(), bench.clock.now
    for delay in DELAYS:
        bench.objects.errors.append(StorageUnavailable("The storage can't be reached, or broke the connection."))
        uploader.finish()
        found = bench.report(job_id)
        assert found.state is UploadState.WAITING and "can't be reached" in found.outcome
        assert (bench.results / f"{job_id}.mp4").is_file()
        bench.clock.now += delay
    assert bench.clock.now - began > 24 * 3600
    uploader.finish()
    assert bench.report(job_id).state is UploadState.DONE and bench.report(job_id).outcome == ""


def test_what_an_operator_can_mend_is_tried_again(bench: Bench) -> None:
    job_id, gone = bench.complete(UploadTo("results")), bench.complete(UploadTo("removed"))
    bench.objects.errors.append(StorageRefused("The storage refused the request (AccessDenied, status 403)."))
    bench.uploader().finish()
    assert bench.report(job_id).state is UploadState.WAITING and "AccessDenied" in bench.report(job_id).outcome
    assert bench.report(gone).state is UploadState.WAITING and "no storage profile" in bench.report(gone).outcome


def test_keys_of_a_request_that_are_refused_stay_refused(bench: Bench) -> None:
    refusing = Failing([StorageRefused("The storage refused the request (InvalidAccessKeyId, status 403).")])
    uploader = bench.uploader(lambda _: refusing)
    job_id = bench.complete(uploader.hold(PLACE))
    uploader.finish()
    assert bench.report(job_id).state is UploadState.FAILED


def test_another_process_has_no_keys(bench: Bench) -> None:
    uploader = bench.uploader(lambda _: bench.objects)
    job_id = bench.complete(uploader.hold(PLACE))
    bench.uploader(lambda _: bench.objects).finish()
    assert bench.report(job_id).state is UploadState.WAITING
    uploader.close()
    assert bench.report(job_id).state is UploadState.CREDENTIALS_LOST
    with pytest.raises(StorageRefused):
        bench.uploader().hold(PLACE)


def test_a_file_that_can_not_be_read(bench: Bench) -> None:
    job_id = bench.complete(UploadTo("results"))
    bench.objects.errors.append(PermissionError(13, "Permission denied"))
    bench.uploader().finish()
    assert bench.report(job_id).outcome == "The file can't be read: Permission denied."


def test_stopped_it_leaves_no_trace(bench: Bench) -> None:
    job_id = bench.complete(UploadTo("results"))
    bench.objects.errors.append(Cancelled("stopped"))
    taken = bench.store.uploads.take("s")
    assert taken is not None
    bench.uploader().deliver(taken)
    assert (bench.report(job_id).state, bench.report(job_id).attempts) == (UploadState.WAITING, 0)


def test_its_threads_copy_and_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.02)
    with bench.uploader() as uploader:
        job_id = bench.complete(UploadTo("results"))
        end = time.monotonic() + 20
        while bench.report(job_id).state is not UploadState.DONE and time.monotonic() < end:
            time.sleep(0.01)
    assert bench.report(job_id).state is UploadState.DONE and uploader.name
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("upload-")]


def test_a_vault_forgets_what_nobody_needs() -> None:
    clock = Clock()
    vault, depot = Vault(clock), Depot(PLACE, MemoryObjects())
    old, needed = vault.keep(depot), vault.keep(depot)
    vault.keep_only({needed})
    assert vault.get(old) is depot, "its job may just be being accepted"
    clock.now += 61
    vault.keep_only({needed})
    assert vault.get(old) is None and vault.get(needed) is depot and len(vault) == 1
    assert "b'" not in repr(depot.destination.credentials)


SENDER = """
import pickle, sys
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.service.group_files import upload_report
from wanreel.service.uploader import Uploader
from wanreel.storage.depots import Depots
from wanreel.storage.s3 import S3Storage
path, results, place, part = pickle.load(sys.stdin.buffer)
Uploader(JobStore(Database(path)), results, Depots(lambda _: place, lambda it: S3Storage(it, part=part))).finish()
"""


@posix_only
@pytest.mark.xdist_group("s3")
def test_killed_in_the_middle_of_an_upload(s3: Seaweed, tmp_path: Path) -> None:
    """SIGKILL loses nothing: no half object is seen, the parts that are there are used, and the next one finishes it."""
    part, data = 5 * 2**20, os.urandom(2 * 5 * 2**20 + 7)
    digest, path = hashlib.sha256(data).hexdigest(), tmp_path / "jobs.db"
    (tmp_path / "v.mp4").write_bytes(data)
    store = JobStore(Database(path))
    job_id = store.enqueue(NewJob("{}", "demo", upload_to=UploadTo("results"))).id
    job = store.leases.claim("w")
    assert job is not None
    file = ArtifactRef("video", "v.mp4", digest, len(data), "video/mp4")
    store.leases.complete(job.id, job.attempt, digest, (file,))
    store.close()
    gate, began = threading.Event(), threading.Event()
    with fault_proxy(s3.url) as proxy:
        proxy.harm(hold(gate, began), method="PUT", part="partNumber=2")

        def uploader(store: JobStore) -> Uploader:
            depots = Depots(lambda _: s3.destination(proxy.url, prefix="wan"), lambda it: S3Storage(it, part=part))
            return Uploader(store, tmp_path, depots)

        # Not forked: other threads may hold a lock at that moment, and the child would wait for it for ever.
        with subprocess.Popen([sys.executable, "-c", SENDER], stdin=subprocess.PIPE) as child:
            assert child.stdin is not None
            pickle.dump((path, tmp_path, s3.destination(proxy.url, prefix="wan"), part), child.stdin)
            child.stdin.close()
            assert began.wait(60)
            child.kill()
        assert child.returncode == -9
        gate.set()
        key = f"wan/{job_id}_video.mp4"
        store = JobStore(Database(path))
        assert key not in s3.objects() and store.get(job_id).upload is UploadState.UPLOADING
        uploader(store).finish()
        assert key not in s3.objects(), "the dead one's lease is not over"
        store.close()
        store = JobStore(Database(path), clock=lambda: time.time() + LEASE + 1)
        proxy.seen.clear()
        uploader(store).finish()
        assert store.get(job_id).upload is UploadState.DONE
        assert all("partNumber=1" not in path for path in proxy.puts()), "what was there is not put again"
    assert hashlib.sha256(b"".join(S3Storage(s3.destination()).open(key))).hexdigest() == digest
    assert not s3.unfinished(key)
    store.close()


def test_what_was_made_of_a_group_is_copied_file_by_file(bench: Bench) -> None:
    store, group = bench.store, new_id()
    member = NewJob("{}", "demo", id=new_id(), group_id=group, cell=0)
    store.groups.create(NewGroup(group, "sweep", "{}", gathering="ended", storage="results"), [member])
    job = store.leases.claim("hand")
    assert job is not None
    store.leases.complete(job.id, job.attempt, "ab")
    files: dict[str, dict[str, object]] = {}
    for kind, name in (("sheet", "sheet.png"), ("csv", "cells.csv")):
        (bench.results / name).write_bytes(DATA)
        sha256 = hashlib.sha256(DATA).hexdigest()
        files[kind] = {"name": name, "media_type": "image/png", "bytes": len(DATA), "sha256": sha256}
    assert store.groups.claim("hand", ("sweep",)) is not None
    store.groups.finish(group, "hand", [job.id], json.dumps({"files": files}))
    bench.objects.errors.append(StorageUnavailable("away"))
    bench.uploader().finish()
    upload = store.groups.get(group).upload
    assert upload is not None and (upload.state, upload.outcome) == ("waiting", "away")
    bench.clock.now += 2 * max(DELAYS)
    bench.uploader().finish()
    report = upload_report(store.groups.get(group).upload)
    assert report is not None and report.state is UploadState.DONE
    assert [file.key for file in report.files] == [f"wan/{group}_sheet.png", f"wan/{group}_csv.csv"]
    assert bench.objects.objects[f"wan/{group}_csv.csv"] == DATA
