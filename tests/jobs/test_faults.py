"""T3 and T4: system calls that fail and disks that fill up. Nothing acknowledged is lost, and work goes on by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.faults import acks, fate, work
from jobs.places import fast_folder, needs, new_database
from wanreel.core.errors import InsufficientStorage, StoreError
from wanreel.core.job import JobFailure, JobStatus, NewJob, Progress
from wanreel.jobs import JobStore
from wanreel.jobs.ballast import Ballast
from wanreel.jobs.database import Database

FAILURES = [
    "pwrite64:error=ENOSPC",
    pytest.param("pwrite64:error=EIO", marks=pytest.mark.deep),
    "fsync,fdatasync:error=EIO",
    "openat:error=EMFILE",
    "unlink:error=EIO",
]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=fast_folder()))
    (made / "data").mkdir()
    yield made
    shutil.rmtree(made)


def fail_the_nth(folder: Path, failure: str, number: int) -> bool:
    """Run with the n-th call failing; True when it failed. Afterwards run again, as after a restart."""
    for name in ("data", "acks"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).unlink(missing_ok=True)
    (folder / "data").mkdir()
    new_database(folder / "data")
    ended = work(folder, 3, f"{failure}:when={number}")
    said = acks(folder)
    assert ended.returncode in (0, 3), f"{failure} {number}: {ended.stderr}"
    assert (ended.returncode == 3) == any(line.startswith("error ") for line in said)
    assert not any(line.startswith("accepted") for line in said), f"{failure} {number}: went on after a fault"
    assert fate(folder) == "", f"{failure} {number}"
    again = work(folder, 3)
    assert again.returncode == 0, again.stderr
    assert fate(folder) == "", f"{failure} {number}"
    return "(INJECTED)" in (folder / "trace").read_text()


@pytest.mark.parametrize("failure", FAILURES)
def test_some_of_the_calls_fail(folder: Path, failure: str) -> None:
    needs("strace")
    hits = [number for number in (1, 3, 8) if fail_the_nth(folder, failure, number)]
    assert len(hits) >= 2


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("failure", FAILURES)
def test_each_of_the_calls_fails(folder: Path, failure: str) -> None:
    needs("strace")
    number = 1
    while fail_the_nth(folder, failure, number):
        number += 1
    assert number > 5


# T4: a disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB. Needs the right to mount one."""
    needs("mount")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a file system takes root; the failing system calls above cover the same paths")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    filler = folder / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    for size in (65536, 4096, 1):
        try:
            while True:
                os.write(descriptor, bytes(size))
        except OSError:
            pass
    os.close(descriptor)
    return filler


def store_on(folder: Path) -> JobStore:
    path = folder / "wanreel.db"
    return JobStore(Database(path, ballast=Ballast(path.with_name("wanreel.db.ballast"), size=256 * 1024)))


def test_a_full_disk_is_recorded_and_work_resumes(small_disk: Path) -> None:
    new_database(small_disk)
    store = store_on(small_disk)
    ballast = small_disk / "wanreel.db.ballast"
    assert ballast.exists()
    jobs = [store.enqueue(NewJob("{}", "demo")) for _ in range(2)]
    claimed = store.leases.claim("w")
    assert claimed is not None
    filler = fill(small_disk)

    with pytest.raises(InsufficientStorage):  # a new job is not worth the ballast
        store.enqueue(NewJob("x" * 100_000, "demo"))
    assert ballast.exists()
    orders = store.leases.heartbeat(claimed.id, claimed.attempt, Progress("x" * 9000, 1, 2), saved_step=1)
    assert not orders.cancel, "progress is dropped, orders are heard"
    assert store.get(claimed.id).progress.step == 0
    failure = JobFailure("insufficient_storage", "The disk is full.")
    failed = store.leases.fail(claimed.id, claimed.attempt, failure)
    assert failed.status is JobStatus.FAILED
    assert not ballast.exists(), "it was needed to write that down"
    state = store.watch_disk(minimum_free=2**20)
    assert state.paused
    assert state.automatic
    assert "GiB" in state.reason
    assert store.leases.claim("w") is None

    filler.unlink()
    state = store.watch_disk(minimum_free=2**20)
    assert not state.paused
    assert ballast.exists()
    again = store.leases.claim("w")
    assert again is not None
    assert again.id == jobs[1].id
    assert store.retry(failed.id).status is JobStatus.QUEUED
    store.close()


def test_a_persons_pause_outlives_the_disk_watch(tmp_path: Path) -> None:
    new_database(tmp_path)
    store = store_on(tmp_path)
    store.pause("maintenance")
    assert store.watch_disk(minimum_free=2**60).reason == "maintenance"
    assert store.watch_disk(minimum_free=0).paused
    assert not store.resume().paused
    assert store.watch_disk(minimum_free=2**60).automatic
    assert not store.watch_disk(minimum_free=0).paused
    store.close()


def test_every_write_survives_a_disk_that_fills_at_any_size(small_disk: Path) -> None:
    # Each size of the gap makes another statement of the work the first that does not fit.
    new_database(small_disk)
    for gap in range(15):
        store = store_on(small_disk)
        filler = fill(small_disk)
        os.truncate(filler, filler.stat().st_size - gap * 4096)
        accepted = 0
        try:
            for _ in range(20):
                store.enqueue(NewJob("x" * 3000, "demo"))
                accepted += 1
        except InsufficientStorage:
            pass
        while (job := store.leases.claim("w")) is not None:
            store.leases.complete(job.id, job.attempt, "ab")
            accepted -= 1
        assert accepted == 0
        store.close()
        filler.unlink()
        store = store_on(small_disk)
        store.prune(0)
        assert store.list() == ()
        store.close()


def test_a_first_start_on_a_full_disk_says_so(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises((InsufficientStorage, StoreError), match=r"disk space|read or written"):
        store_on(small_disk)
    (small_disk / "filler").unlink()
    store_on(small_disk).close()
