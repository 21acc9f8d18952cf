"""Retention: copies here go when they are old and all of their job is safe in storage, and never before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wanreel.core.destination import Credentials, Destination
from wanreel.core.errors import IllegalTransition
from wanreel.core.job import ArtifactRef, NewJob
from wanreel.core.settings import load_settings
from wanreel.core.upload import UploadState, UploadTo
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.jobs.uploads import Uploads
from wanreel.service.uploader import Uploader
from wanreel.storage.depots import Depots
from wanreel.storage.objects import MemoryObjects
from wanreel.wiring import build_runtime, build_worker
from wanreel.worker.retention import Retention

DAY = 86_400.0
KEEP = 7.0  # days
PLACE = Destination("bucket", Credentials("a", "b"), "results", prefix="wan")
PROFILE = UploadTo("results")


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class OnManyMachines(Database):
    """Says that its workers may have disks of their own."""

    shared = True


@dataclass
class Shelf:
    """A store, its results, and storage in memory."""

    store: JobStore
    clock: Clock
    results: Path
    objects: MemoryObjects = field(default_factory=MemoryObjects)

    def complete(self, to: UploadTo | None = PROFILE) -> str:
        """A job with all of a video's files."""
        job_id = self.store.enqueue(NewJob("{}", "demo", upload_to=to)).id
        job = self.store.leases.claim("w")
        assert job is not None
        kinds = {"video": ".mp4", "last_frame": ".last.png", "poster": ".poster.jpg", "manifest": ".json"}
        files: list[ArtifactRef] = []
        for kind, suffix in kinds.items():
            path, data = self.results / f"{job_id}{suffix}", f"{kind} of {job_id}".encode()
            path.write_bytes(data)
            files.append(ArtifactRef(kind, path.name, hashlib.sha256(data).hexdigest(), len(data), "video/mp4"))
        self.store.leases.complete(job.id, job.attempt, files[0].sha256, tuple(files))
        return job_id

    def upload(self) -> None:
        Uploader(self.store, self.results, Depots(lambda _: PLACE, lambda _: self.objects)).finish()

    def look(self, days: float = KEEP) -> None:
        """One look of a worker that has just begun."""
        Retention(self.store, self.results / "none", 0.0, self.results, days, self.clock).apply()

    def here(self, job_id: str) -> set[str]:
        return {path.name.removeprefix(job_id) for path in self.results.glob(f"{job_id}*")}


ALL, SMALL = {".mp4", ".last.png", ".poster.jpg", ".json"}, {".poster.jpg", ".json"}


def shelf_in(folder: Path, kind: type[Database]) -> Iterator[Shelf]:
    clock, results = Clock(), folder / "outputs"
    results.mkdir()
    store = JobStore(kind(folder / "jobs.db"), clock=clock)
    yield Shelf(store, clock, results)
    store.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    yield from shelf_in(tmp_path, Database)


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Shelf]:
    yield from shelf_in(tmp_path, OnManyMachines)


def test_old_copies_go_and_what_is_in_storage_stays(shelf: Shelf) -> None:
    job_id = shelf.complete()
    shelf.upload()
    shelf.clock.now += KEEP * DAY - 1
    shelf.look()
    assert shelf.here(job_id) == ALL, "not a second too early"
    shelf.clock.now += 2
    shelf.look(days=0.0)
    assert shelf.here(job_id) == ALL, "0 keeps them"
    shelf.look()
    assert shelf.here(job_id) == SMALL
    report = shelf.store.uploads.reports([job_id])[job_id]
    assert report.state is UploadState.DONE
    assert shelf.objects.objects[report.files[0].key] == f"video of {job_id}".encode()


def failed(shelf: Shelf) -> None:
    while (taken := shelf.store.uploads.take("s")) is not None:
        shelf.store.uploads.failed(taken, "status 403", jitter=0.0, final=True)


def half(shelf: Shelf) -> None:
    """The video is there, its last frame is not."""
    taken = shelf.store.uploads.take("s")
    assert taken is not None
    shelf.store.uploads.done(taken, "bucket", "wan/x_video.mp4")


NOT_SAFE: dict[str, Callable[[Shelf], object]] = {
    "waiting": lambda shelf: None,
    "under way": lambda shelf: shelf.store.uploads.take("s"),
    "half of it": half,
    "given up": failed,
}


@pytest.mark.parametrize("until", NOT_SAFE)
def test_what_is_not_safe_stays_however_old(shelf: Shelf, until: str) -> None:
    job_id = shelf.complete()
    NOT_SAFE[until](shelf)
    shelf.clock.now += 400 * DAY
    shelf.look()
    assert shelf.here(job_id) == ALL
    assert shelf.store.get(job_id).upload is not UploadState.DONE


def test_what_goes_nowhere_or_whose_keys_are_lost_stays(shelf: Shelf) -> None:
    nowhere, lost = shelf.complete(None), shelf.complete(UploadTo(holder="api", token="t"))
    shelf.store.uploads.release("api")
    assert shelf.store.get(lost).upload is UploadState.CREDENTIALS_LOST
    shelf.clock.now += 400 * DAY
    shelf.look()
    assert shelf.here(nowhere) == ALL == shelf.here(lost)


def test_a_file_that_can_not_be_deleted_is_in_nobodys_way(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are more than one look at the database takes; the one in the way is the first."""
    stuck, other = shelf.complete(), shelf.complete()
    shelf.upload()
    video = shelf.results / f"{stuck}.mp4"
    video.unlink()
    video.mkdir()
    monkeypatch.setattr(Uploads.safe_copies, "__defaults__", (1, 0))
    shelf.clock.now += (KEEP + 1) * DAY
    shelf.look()
    assert shelf.here(stuck) == {".mp4", *SMALL} and shelf.here(other) == SMALL
    video.rmdir()
    shelf.look()
    assert shelf.here(stuck) == SMALL


def test_another_machines_file_is_left_to_it(many: Shelf, tmp_path: Path) -> None:
    far, near = many.complete(), many.complete()
    many.upload()
    many.clock.now += (KEEP + 1) * DAY
    elsewhere = Shelf(many.store, many.clock, tmp_path / "elsewhere")
    elsewhere.results.mkdir()
    for suffix in ALL:
        (many.results / f"{far}{suffix}").rename(elsewhere.results / f"{far}{suffix}")
    many.look()
    assert many.here(near) == SMALL and elsewhere.here(far) == ALL
    elsewhere.look()
    assert elsewhere.here(far) == SMALL


def test_the_way_to_a_copy_is_never_lost(shelf: Shelf) -> None:
    """Sent again it would be read from here, where it no longer is, and forgotten where it is."""
    job_id = shelf.complete()
    shelf.upload()
    shelf.store.uploads.send(job_id, PROFILE)
    shelf.upload()
    shelf.clock.now += (KEEP + 1) * DAY
    shelf.look()
    with pytest.raises(IllegalTransition, match="lie in storage"):
        shelf.store.uploads.send(job_id, UploadTo("archive"))
    assert shelf.store.uploads.reports([job_id])[job_id].state is UploadState.DONE


def test_a_worker_keeps_as_long_as_the_operator_says(tmp_path: Path) -> None:
    """The whole way from the setting: an old job's copy goes when a worker next begins."""
    settings = load_settings(data_dir=tmp_path, device="cpu", keep_uploaded_days=KEEP)
    clock = Clock()
    settings.results_dir.mkdir(parents=True)
    store = JobStore(Database(settings.data.database), clock=clock)
    shelf = Shelf(store, clock, settings.results_dir)
    job_id = shelf.complete()
    shelf.upload()
    store.close()
    runtime = build_runtime(settings)
    build_worker(runtime).run(once=True)
    runtime.close()
    assert shelf.here(job_id) == SMALL
