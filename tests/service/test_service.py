"""What front doors may rely on."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest

from wanreel.core.errors import IdempotencyConflict, IllegalTransition, InvalidRequest, JobNotFound, QueueFull
from wanreel.core.job import JobEvent, JobStatus
from wanreel.core.request import VideoRequest
from wanreel.jobs import JobStore
from wanreel.jobs.database import Database
from wanreel.service import Terms, request_of
from wanreel.service.bell import Bell, ring
from wanreel.service.queue_file import export_queue, import_queue
from wanreel.storage.disk import MemoryBlobs
from worker.bench import Bench

REQUEST = VideoRequest(prompt="a red circle", model="tiny:ti2v-5b", num_frames=5, width=64, height=64)


def test_a_bad_request_is_refused_before_it_is_queued(bench: Bench) -> None:
    with pytest.raises(InvalidRequest):
        bench.service.submit(VideoRequest(prompt="", model="tiny:ti2v-5b"))
    assert bench.service.queue().queued == 0


def test_a_key_stands_for_one_job_though_a_seed_is_drawn(bench: Bench) -> None:
    first = bench.service.submit(REQUEST, Terms(idempotency_key="k"))
    assert bench.service.submit(REQUEST, Terms(idempotency_key="k")).id == first.id
    with pytest.raises(IdempotencyConflict):
        bench.service.submit(VideoRequest(prompt="another", model="tiny:ti2v-5b"), Terms(idempotency_key="k"))


def test_a_full_queue_says_when_to_come_back(bench: Bench) -> None:
    bench.store.close()
    bench.store = bench.service.store = JobStore(Database(bench.data.database), capacity=1)
    bench.submit()
    with pytest.raises(QueueFull) as refusal:
        bench.submit()
    assert refusal.value.retry_after > 0


def test_the_operators_time_limit_holds(bench: Bench) -> None:
    assert bench.service.submit(REQUEST, Terms(time_limit=1e9)).time_limit == 3600.0
    assert bench.service.submit(REQUEST, Terms(time_limit=5.0)).time_limit == 5.0


def test_an_equal_job_is_reused_only_when_asked_and_whole(bench: Bench) -> None:
    first = bench.submit()
    bench.work()
    request = request_of(first).as_request()
    assert bench.service.submit(request, reuse=True).id == first.id
    assert bench.service.submit(request).id != first.id
    (bench.data.outputs / bench.service.files(first.id)["video"].name).unlink()
    assert bench.service.submit(request, reuse=True).id != first.id


def test_watch_replays_and_then_follows(bench: Bench) -> None:
    job = bench.submit()
    seen: list[JobEvent] = []
    watcher = threading.Thread(target=lambda: seen.extend(bench.service.watch(job.id)))
    watcher.start()
    bench.work()
    watcher.join(30)
    assert not watcher.is_alive()
    numbers = [event.seq for event in seen]
    assert numbers == sorted(set(numbers))
    assert seen[0].kind == "queued" and seen[-1].kind == "completed"
    assert [event.seq for event in bench.service.watch(job.id, after=numbers[2])][0] > numbers[2]
    assert list(bench.service.watch(job.id, after=numbers[-1])) == []


def test_many_watchers_see_the_same(bench: Bench) -> None:
    job = bench.submit()
    seen: list[list[str]] = [[] for _ in range(20)]

    def follow(kinds: list[str]) -> None:
        kinds.extend(event.kind for event in bench.service.watch(job.id))

    watchers = [threading.Thread(target=follow, args=(kinds,)) for kinds in seen]
    for watcher in watchers:
        watcher.start()
    bench.work()
    for watcher in watchers:
        watcher.join(30)
    assert all(kinds[-1] == "completed" and kinds.count("completed") == 1 for kinds in seen)


def test_closing_ends_the_watchers(bench: Bench) -> None:
    job = bench.submit()
    watching = bench.service.watch(job.id)
    assert next(watching).kind == "queued"
    threading.Timer(0.3, bench.service._watching.close).start()
    assert list(watching) == []


def test_edit_keeps_the_place_and_what_was_not_changed(bench: Bench) -> None:
    job, _ = bench.submit(seed=7), bench.submit()
    bench.service.edit(job.id, {"prompt": "a blue square", "num_inference_steps": 9})
    request = request_of(bench.service.get(job.id))
    assert (request.prompt, request.num_inference_steps, request.seed, request.width) == ("a blue square", 9, 7, 64)
    standing = bench.service.standing(job.id)
    assert standing is not None and standing.position == 1
    with pytest.raises(InvalidRequest):
        bench.service.edit(job.id, {"num_inference_steps": 0})


def test_edit_to_another_model_takes_that_models_recipe(bench: Bench) -> None:
    job = bench.submit(seed=7)
    bench.service.edit(job.id, {"model": "tiny:t2v-a14b"})
    request, spec = request_of(bench.service.get(job.id)), bench.catalog.get("tiny:t2v-a14b")
    assert (request.model, request.num_inference_steps, request.seed) == ("tiny:t2v-a14b", spec.steps, 7)


def test_what_ended_is_not_edited_moved_or_cancelled(bench: Bench) -> None:
    job = bench.submit()
    bench.work()
    for call in (
        lambda: bench.service.edit(job.id, {"prompt": "late"}),
        lambda: bench.service.move(job.id),
        lambda: bench.service.cancel(job.id),
        lambda: bench.service.retry(job.id),
    ):
        with pytest.raises(IllegalTransition):
            call()


def test_reexport_uses_the_latents_of_the_first(bench: Bench) -> None:
    job = bench.submit()
    bench.work()
    again = bench.service.reexport(job.id, {"fps": 8.0, "output_format": "webm"})
    bench.work()
    third = bench.service.reexport(again.id, {"output_format": "gif"})
    bench.work()
    assert [task.work for task in bench.render.tasks] == [job.id] * 3
    assert bench.service.get(third.id).status is JobStatus.COMPLETED
    assert request_of(bench.service.get(again.id)).fps == 8.0
    bench.service.delete(job.id)
    with pytest.raises(IllegalTransition):
        bench.service.reexport(again.id, {"fps": 4.0})


def test_reexport_of_what_is_not_done(bench: Bench) -> None:
    with pytest.raises(IllegalTransition):
        bench.service.reexport(bench.submit().id, {"fps": 8.0})


def test_delete_takes_the_files_too(bench: Bench) -> None:
    job = bench.submit()
    bench.work()
    bench.service.delete(job.id)
    assert not bench.outputs() and not bench.service.checkpoints(job.id).exists()
    with pytest.raises(JobNotFound):
        bench.service.get(job.id)


def test_a_paused_queue_waits(bench: Bench) -> None:
    job = bench.submit()
    bench.service.pause("tea")
    bench.work()
    assert bench.service.get(job.id).status is JobStatus.QUEUED
    bench.service.resume()
    bench.work()
    assert bench.service.get(job.id).status is JobStatus.COMPLETED


def _nothing_to_take(data: bytes) -> NoReturn:
    pytest.fail("nothing was exported that could be taken")


def test_a_queue_goes_through_a_file_once(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    blobs, other = MemoryBlobs(), Bench(tmp_path_factory.mktemp("other"))
    jobs = [bench.submit(f"number {number}", seed=number) for number in range(3)]
    bench.service.move(jobs[2].id, before=jobs[0].id)
    text = export_queue(bench.service, blobs)
    for _ in range(2):
        import_queue(
            other.service,
            text,
            lambda data: pytest.fail("no picture was exported"),
            lambda data: pytest.fail("no sound was exported"),
        )
    taken = other.store.queued()
    assert [request_of(job).prompt for job in taken] == ["number 2", "number 0", "number 1"]
    assert taken[0].request == jobs[2].request
    other.service.close()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"wanreel": "queue", "version": 9}', '{"wanreel": "queue", "version": 1}']
)
def test_a_foreign_queue_file_is_refused(bench: Bench, text: str) -> None:
    with pytest.raises(InvalidRequest):
        import_queue(
            bench.service,
            text,
            lambda data: pytest.fail("nothing to take"),
            lambda data: pytest.fail("nothing to take"),
        )


def test_the_bell_hears_only_who_may_read_its_file(bench: Bench) -> None:
    folder = bench.data.workers
    folder.mkdir()
    with Bell(folder, "cpu-1") as bell, Bell(folder, "cpu-2") as other:
        assert not bell.wait(0.01)
        assert ring(folder) == 2
        assert bell.wait(5.0) and other.wait(5.0)
        (folder / "cpu-1.bell").write_text('{"port": 1, "word": "wrong"}')
        (folder / "cpu-3.bell").write_text("half a fi")
        ring(folder)
        assert not bell.wait(0.05)
        bell.wake()
        assert bell.wait(5.0)
    assert ring(folder) == 0
