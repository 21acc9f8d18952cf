"""Two machines and one queue: a job begun here goes on there, and what happens while the storage is away."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from wanreel.core.cancel import CancelToken
from wanreel.core.destination import Destination
from wanreel.core.errors import OutOfMemory, StorageUnavailable, StoreError, WanreelError
from wanreel.core.events import Event, StepCompleted
from wanreel.core.job import Job, JobStatus
from wanreel.core.manifest import Manifest
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.settings import load_settings
from wanreel.jobs import JobStore
from wanreel.service import Service
from wanreel.storage.depots import Depot
from wanreel.storage.disk import BlobStore
from wanreel.storage.objects import MemoryObjects, Parcel
from wanreel.storage.shared import Shared, SharedBlobs, SharedStates, open_shared
from wanreel.wiring import Runtime, build_runtime, build_service, build_worker, queue
from wanreel.worker.task import Task
from worker.bench import Bench


class Storage(MemoryObjects):
    """Waits at `gate`, fails with `error`, and tells what was put."""

    def __init__(self) -> None:
        super().__init__()
        self.error: WanreelError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0  # puts that began
        self.states: list[str] = []  # files of the states that were put
        self.under_way = 0

    def put(self, key: str, parcel: Parcel, cancel: CancelToken) -> None:
        self.asked += 1
        self.under_way += 1
        assert self.under_way == 1, "one at a time"
        try:
            assert self.gate.wait(30)
            if self.error is not None:
                raise self.error
            super().put(key, parcel, cancel)
            if "checkpoints" in key:
                self.states.append(self.objects[key].split(b'"')[3].decode())
        finally:
            self.under_way -= 1


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def sharing(bench: Bench, storage: Storage) -> Bench:
    """The bench with its states and pictures shared."""
    depot = Depot(Destination("bucket", prefix="wan"), storage)
    bench.states = SharedStates(depot)
    bench.service.shared = Shared(SharedBlobs(BlobStore(bench.data.pictures), depot), bench.states)
    return bench


def wait_until(done: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.002)


def key_of(job: Job) -> str:
    return f"wan/checkpoints/{job.id}/newest"


def drained(bench: Bench, meanwhile: Callable[[], object] = lambda: None) -> Job:
    """A job that a worker gave back after two steps, and whose states are gone from this machine."""
    job = bench.submit()
    worker = bench.worker()

    def stop(_: Task, at: str) -> None:
        if at == "step2":
            meanwhile()
            worker.stop("SIGTERM")

    bench.render.tricks[:] = [stop]
    assert worker.run() == 0
    bench.render.tricks.clear()
    shutil.rmtree(bench.service.checkpoints(job.id))
    return bench.store.get(job.id)


def test_the_loop_never_waits_and_the_newest_wins(sharing: Bench, storage: Storage) -> None:
    storage.gate.clear()

    def open_gate(_: Task, at: str) -> None:
        if at == "step1":
            wait_until(lambda: storage.asked == 1)
        if at == "denoised":
            assert storage.states == [], "three steps went by meanwhile"
            storage.gate.set()
            wait_until(lambda: len(storage.states) == 2)

    sharing.render.tricks.append(open_gate)
    job = sharing.submit()
    sharing.work()
    assert sharing.store.get(job.id).status is JobStatus.COMPLETED
    assert storage.states == ["clip000-step00001.safetensors", "clip000-latents.safetensors"]
    assert not storage.objects, "the job has ended"


def test_a_drained_job_is_given_back_with_its_last_state_there(sharing: Bench, storage: Storage) -> None:
    storage.gate.clear()
    job = drained(sharing, meanwhile=threading.Timer(0.3, storage.gate.set).start)
    assert job.status is JobStatus.QUEUED and storage.states[-1] == "clip000-step00002.safetensors"
    found: list[list[str]] = []

    def look(task: Task, at: str) -> None:
        if at == "loaded":
            assert task.checkpoints is not None
            found.append([path.name for path in task.checkpoints.iterdir()])

    sharing.render.tricks.append(look)
    sharing.work()
    assert found == [["clip000-step00002.safetensors"]] and not storage.objects
    assert sharing.store.get(job.id).notes == ("a note",)


def test_a_tampered_state_is_named_and_the_job_begins_anew(sharing: Bench, storage: Storage) -> None:
    job = drained(sharing)
    storage.objects[key_of(job)] += b"x"
    sharing.work()
    done = sharing.store.get(job.id)
    assert done.status is JobStatus.COMPLETED and any("damaged in shared storage" in note for note in done.notes)


def test_states_that_can_not_be_copied_are_told_once_and_hinder_nothing(sharing: Bench, storage: Storage) -> None:
    storage.error = StorageUnavailable("The storage is away.")
    sharing.render.tricks.append(lambda _, at: wait_until(lambda: storage.asked) if at == "step1" else None)
    job = sharing.submit(num_inference_steps=9)
    sharing.work()
    done = sharing.store.get(job.id)
    assert done.status is JobStatus.COMPLETED
    told = [note for note in done.notes if note.startswith("shared_checkpoint")]
    assert told == ["shared_checkpoint: not copied for workers on other machines: The storage is away."]


@pytest.mark.parametrize("end", ["cancel", "delete", "fail"])
def test_what_ends_in_another_way_leaves_nothing_there(sharing: Bench, storage: Storage, end: str) -> None:
    job = drained(sharing)
    assert key_of(job) in storage.objects
    match end:
        case "cancel":
            sharing.service.cancel(job.id)
        case "delete":
            sharing.service.delete(job.id)
        case _:

            def break_down(_: Task, at: str) -> None:
                if at == "step1":
                    raise OutOfMemory("full")

            sharing.render.tricks.append(break_down)
            sharing.work()
            assert sharing.store.get(job.id).status is JobStatus.FAILED
    assert not storage.objects


def test_nothing_is_accepted_while_its_picture_can_not_be_shared(sharing: Bench, storage: Storage) -> None:
    shared = sharing.service.shared
    assert shared is not None
    picture = PictureRef(shared.pictures.put(b"png"), 64, 64)
    storage.error = StorageUnavailable("The storage is away.")
    with pytest.raises(StorageUnavailable, match="away"):
        sharing.submit(image=picture)
    assert sharing.store.list() == ()
    plain = sharing.submit()
    with pytest.raises(StorageUnavailable):
        sharing.service.edit(plain.id, {"image": picture})
    assert sharing.store.get(plain.id).request == plain.request
    sharing.service.cancel(plain.id)
    with pytest.raises(StorageUnavailable):
        sharing.service.retry(plain.id, {"image": picture})
    assert sharing.store.get(plain.id).status is JobStatus.CANCELLED
    storage.error = None
    job = sharing.submit(image=picture)
    assert list(storage.objects) == [f"wan/pictures/{picture.sha256}"]
    assert job.status is JobStatus.QUEUED


def test_a_job_whose_picture_can_not_be_fetched_now_waits_blameless(bench: Bench) -> None:
    job = bench.submit()
    away: list[WanreelError] = [StorageUnavailable("away")]

    def fetch(_: Task, at: str) -> None:
        if away:
            raise away.pop()

    bench.render.tricks.append(fetch)
    bench.work()
    waiting = bench.store.get(job.id)
    assert (waiting.status, waiting.attempts_charged) == (JobStatus.QUEUED, 0)
    bench.work()
    assert bench.store.get(job.id).status is JobStatus.COMPLETED


# With a model


def machine(root: Path, storage: Storage) -> Runtime:
    settings = load_settings(
        data_dir=root,
        device="cpu",
        min_free_gb=0.05,
        checkpoint_share=1e9,
        storage={"lan": {"bucket": "b", "prefix": "wan"}},
        shared_storage="lan",
    )
    runtime = build_runtime(settings)
    runtime.shared = open_shared(settings, lambda _: storage)
    runtime.pictures = runtime.shared.pictures
    return runtime


def picture() -> bytes:
    image = Image.new("RGB", (64, 64), (40, 90, 200))
    image.paste((220, 30, 30), (16, 20, 40, 44))
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def manifest_of(service: Service, job: Job, runtime: Runtime) -> Manifest:
    name = service.files(job.id)["manifest"].name
    return Manifest.from_json((runtime.settings.results_dir / name).read_text())


def test_a_job_begun_on_one_machine_is_finished_on_another_to_the_same_bits(
    tmp_path: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine(tmp_path / "a", storage), machine(tmp_path / "b", storage)
    database = first.settings.data.database
    first.settings.data.root.mkdir()
    monkeypatch.setattr(queue, "build_store", lambda settings, **_: JobStore.open(database))
    render = queue._render

    def dying(runtime: Runtime, task: Task) -> Iterator[Event]:
        for event in render(runtime, task):
            yield event
            if isinstance(event, StepCompleted) and event.step == 2:
                wait_until(lambda: storage.states[-1:] == ["clip000-step00002.safetensors"])
                raise StoreError("the machine died")

    service = build_service(first)
    image = first.take_picture(picture())
    asked = VideoRequest(
        prompt="a red square",
        image=image,
        model="tiny:ti2v-5b",
        seed=7,
        num_inference_steps=4,
        num_frames=5,
        width=64,
        height=64,
    )
    job = service.submit(asked)
    with monkeypatch.context() as patch, pytest.raises(StoreError):
        patch.setattr(queue, "_render", dying)
        build_worker(first).run(once=True)
    assert service.get(job.id).status is JobStatus.IN_PROGRESS
    assert build_worker(second).run(once=True) == 0
    done = service.get(job.id)
    assert (done.status, done.attempt) == (JobStatus.COMPLETED, 2)
    resumed = [event.data for event in service.store.events(job.id) if event.kind == "resumed"]
    assert [data["step"] for data in resumed] == [2]
    assert list(storage.objects) == [f"wan/pictures/{image.sha256}"]

    whole = service.submit(asked)
    assert build_worker(first).run(once=True) == 0
    assert "resumed" not in {event.kind for event in service.store.events(whole.id)}
    ours, theirs = manifest_of(service, whole, first), manifest_of(service, done, second)
    assert ours.latents_sha256 == theirs.latents_sha256
    assert service.get(whole.id).result_sha256 == done.result_sha256
    service.close()
    first.close()
    second.close()
