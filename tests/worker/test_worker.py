"""The worker's loop and its attempts, on a real store with a render that draws nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wanreel.core.errors import (
    BrokenWeights,
    DeviceFault,
    ExportFailed,
    InsufficientStorage,
    InvalidRequest,
    OutOfMemory,
    StoreError,
    WanreelError,
)
from wanreel.core.job import Job, JobStatus, Outcome, Warm
from wanreel.host import free_bytes
from wanreel.jobs import JobStore, Liveness
from wanreel.jobs.database import Database
from wanreel.service.bell import Bell
from wanreel.worker.task import Task
from wanreel.worker.worker import REPLACE
from worker.bench import Bench, Trick


def once(place: str, deed: Callable[[Task], object]) -> Trick:
    """A trick that does its deed the first time that the render comes to the place."""
    done: list[int] = []

    def trick(task: Task, at: str) -> None:
        if at == place and not done:
            done.append(1)
            deed(task)

    return trick


def raising(error: BaseException) -> Callable[[Task], object]:
    def deed(task: Task) -> None:
        raise error

    return deed


def outcomes(bench: Bench, job: Job) -> list[Outcome]:
    return [attempt.outcome for attempt in bench.store.attempts(job.id)]


def test_a_job_ends_with_one_result_on_record(bench: Bench) -> None:
    job = bench.submit()
    assert bench.work() == 0
    done = bench.store.get(job.id)
    files = bench.service.files(job.id)
    assert done.status is JobStatus.COMPLETED
    assert set(files) == {"video", "last_frame", "poster", "manifest"}
    assert bench.outputs() == {file.name for file in files.values()}
    manifest = json.loads((bench.data.outputs / files["manifest"].name).read_text())
    assert manifest["latents_sha256"] == "ab" * 32
    assert manifest["weights"] == {"file": "hash"}
    assert manifest["video_sha256"] == done.result_sha256
    with bench.service.open_video(job.id) as video:
        assert len(video.read()) == files["video"].size


def test_states_go_and_latents_stay(bench: Bench) -> None:
    job = bench.submit()
    bench.work()
    assert [path.name for path in bench.service.checkpoints(job.id).iterdir()] == ["clip000-latents.safetensors"]
    assert not list(bench.data.root.rglob("*.space"))
    assert not list(bench.data.workers.iterdir())


def test_events_are_recorded_and_steps_compacted(bench: Bench) -> None:
    job = bench.submit()
    bench.work()
    kinds = [event.kind for event in bench.store.events(job.id)]
    assert kinds == ["queued", "claimed", "loaded", "note", "encoded", "step", "exported", "measured", "completed"]
    assert bench.store.get(job.id).progress.step == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest.of("image", "missing", "the picture is gone."), "invalid_request"),
        (BrokenWeights("The folder is damaged."), "broken_weights"),
        (ValueError("a fault of ours"), "generation_failed"),
    ],
)
def test_a_hopeless_job_fails_with_the_reason_and_the_queue_goes_on(bench: Bench, error: Exception, code: str) -> None:
    bad, good = bench.submit("bad"), bench.submit("good")
    bench.render.tricks.append(once("loaded", raising(error)))
    bench.work()
    bench.work()
    failed = bench.store.get(bad.id)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None and failed.error.code == code
    assert outcomes(bench, bad) == [Outcome.FAILED]
    assert bench.store.get(good.id).status is JobStatus.COMPLETED
    assert len(bench.outputs()) == 4


def test_a_job_of_a_vanished_model_fails(bench: Bench) -> None:
    job = bench.submit()
    row = json.loads(job.request) | {"model": "no-such-model"}
    bench.store.edit(job.id, json.dumps(row), "no-such-model")
    bench.work()
    error = bench.store.get(job.id).error
    assert error is not None and error.code == "unknown_model"


def test_an_unreadable_request_fails(bench: Bench) -> None:
    job = bench.submit()
    bench.store.edit(job.id, '{"of": "another version"}', "tiny:ti2v-5b")
    bench.work()
    error = bench.store.get(job.id).error
    assert error is not None and error.code == "invalid_request"


@pytest.mark.parametrize("error", [OutOfMemory("full"), ExportFailed("broken pipe"), MemoryError()])
def test_what_may_pass_is_tried_three_times(bench: Bench, error: Exception) -> None:
    job = bench.submit(num_inference_steps=1)
    bench.render.tricks.append(lambda task, at: raising(error)(task) if at == "loaded" else None)
    bench.work()
    failed = bench.store.get(job.id)
    assert outcomes(bench, job) == [Outcome.FAILED] * 3
    code = "poison" if isinstance(error, ExportFailed) else "out_of_memory"
    assert failed.error is not None and failed.error.code == code and "3 attempts" in failed.error.message


def test_a_job_that_may_be_reduced_is_so_when_no_plan_is_left(bench: Bench) -> None:
    """At once and not after three times the same; linked, every change told, and again until it fits."""
    job = bench.submit(width=128, height=128, on_oom="reduce")
    tried: list[tuple[int, int]] = []

    def too_large(task: Task, at: str) -> None:
        if at == "loaded":
            tried.append((task.video[0].width, task.video[0].height))
            if task.video[0].width > 80:
                raise OutOfMemory("full")

    bench.render.tricks.append(too_large)
    bench.work()
    failed = bench.store.get(job.id)
    assert failed.status is JobStatus.FAILED and failed.error is not None and failed.error.code == "out_of_memory"
    assert outcomes(bench, job) == [Outcome.FAILED]
    *others, made = reversed(bench.store.list())
    assert made.status is JobStatus.COMPLETED and made.parent_id == others[-1].id
    assert [it.id for it in others][0] == job.id and all(it.status is JobStatus.FAILED for it in others)
    assert tried[0] == (128, 128) and tried == sorted(set(tried), reverse=True) and len(tried) == len(others) + 1
    assert any(note.startswith("width:") for note in made.notes)


def test_nobody_asks_for_less_by_default_and_another_fault_is_no_reason(bench: Bench) -> None:
    plain, other = bench.submit(num_inference_steps=1), bench.submit(on_oom="reduce", num_inference_steps=1)
    errors = {plain.id: OutOfMemory("full"), other.id: BrokenWeights("damaged")}
    bench.render.tricks.append(lambda task, at: raising(errors[task.work])(task) if at == "loaded" else None)
    bench.work()
    assert {job.id for job in bench.store.list()} == {plain.id, other.id}


def test_what_is_as_small_as_it_gets_fails(bench: Bench) -> None:
    job = bench.submit(on_oom="reduce")
    bench.render.tricks.append(lambda task, at: raising(OutOfMemory("full"))(task) if at == "loaded" else None)
    assert bench.work() == 0
    assert all(it.status is JobStatus.FAILED for it in bench.store.list())
    assert outcomes(bench, job) == [Outcome.FAILED]


def test_a_failed_export_is_retried_and_leaves_nothing(bench: Bench) -> None:
    job = bench.submit()
    bench.render.tricks.append(once("exported", raising(ExportFailed("the encoder broke"))))
    bench.work()
    assert outcomes(bench, job) == [Outcome.FAILED, Outcome.COMPLETED]
    assert bench.outputs() == {file.name for file in bench.service.files(job.id).values()}


def test_a_device_fault_asks_for_another_process(bench: Bench) -> None:
    job = bench.submit()
    bench.render.tricks.append(once("step1", raising(DeviceFault("an illegal address"))))
    assert bench.work() == REPLACE
    assert bench.store.get(job.id).status is JobStatus.QUEUED
    assert not bench.store.workers()
    assert bench.work() == 0
    assert bench.store.get(job.id).status is JobStatus.COMPLETED


def test_cancel_while_it_runs(bench: Bench) -> None:
    job = bench.submit(num_inference_steps=50)

    def cancel(task: Task) -> None:
        bench.service.cancel(job.id)
        assert task.keeper.token.wait(30)  # the keeper hears of it

    bench.render.tricks.append(once("step1", cancel))
    bench.work()
    assert bench.store.get(job.id).status is JobStatus.CANCELLED
    assert outcomes(bench, job) == [Outcome.CANCELLED]
    assert not bench.outputs() and not bench.service.checkpoints(job.id).exists()


def test_cancel_wins_over_a_result_that_is_not_recorded_yet(bench: Bench) -> None:
    job = bench.submit()
    bench.render.tricks.append(once("exported", lambda task: bench.service.cancel(job.id)))
    bench.work()
    assert bench.store.get(job.id).status is JobStatus.CANCELLED
    assert not bench.outputs()


def test_a_zombie_cannot_record_and_takes_its_files_away(bench: Bench) -> None:
    """Another worker was given the job while this one was stopped, and completed it."""
    job = bench.submit()

    def take_over(task: Task) -> None:
        bench.render.tricks.clear()
        bench.store.leases.recover(lambda name: False)
        assert bench.work() == 0

    bench.render.tricks.append(once("exported", take_over))
    bench.work()
    assert bench.store.get(job.id).attempt == 2
    assert bench.outputs() == {file.name for file in bench.service.files(job.id).values()}
    assert all("-2." in name for name in bench.outputs())


def test_the_time_limit_is_measured_by_the_monotonic_clock(bench: Bench) -> None:
    job = bench.service.store.enqueue(new_like(bench, time_limit=0.01))
    bench.render.tricks.append(once("step1", lambda task: task.keeper.token.wait(30)))
    bench.work()
    failed = bench.store.get(job.id)
    assert failed.error is not None and failed.error.code == "timeout"


def test_stop_finishes_the_step_and_gives_the_job_back(bench: Bench) -> None:
    job = bench.submit(num_inference_steps=50)
    worker = bench.worker()
    bench.render.tricks.append(once("step2", lambda task: worker.stop("SIGTERM")))
    assert worker.run() == 0
    back = bench.store.get(job.id)
    assert (back.status, back.progress.step, back.attempts_charged) == (JobStatus.QUEUED, 2, 0)
    assert outcomes(bench, job) == [Outcome.DRAINED]
    assert bench.service.checkpoints(job.id).is_dir()


def test_a_second_stop_leaves_at_once(bench: Bench) -> None:
    codes: list[int] = []
    worker = bench.worker(abandon=codes.append)
    worker.stop("SIGTERM")
    worker.stop("SIGTERM")
    assert codes == [143]


def test_drain_by_the_store_is_heard(bench: Bench) -> None:
    job = bench.submit(num_inference_steps=50)
    worker = bench.worker()

    def drain(task: Task) -> None:
        bench.store.leases.drain(worker.name)
        while not task.keeper.draining:
            time.sleep(0.01)

    bench.render.tricks.append(once("step1", drain))
    worker.run(once=True)
    assert bench.store.get(job.id).status is JobStatus.QUEUED


def test_the_job_of_a_dead_worker_goes_on_and_its_files_are_swept(bench: Bench) -> None:
    job = bench.submit()
    bench.store.leases.register("cpu-dead")
    claimed = bench.store.leases.claim("cpu-dead")
    assert claimed is not None
    stale = list(bench.render(task_of(bench, claimed)))  # wrote everything, and died before it was recorded
    assert stale and bench.outputs()
    assert bench.work() == 0
    assert bench.store.get(job.id).status is JobStatus.COMPLETED
    assert bench.outputs() == {file.name for file in bench.service.files(job.id).values()}
    assert outcomes(bench, job) == [Outcome.LOST, Outcome.COMPLETED]


def test_a_worker_wakes_by_the_bell(bench: Bench) -> None:
    worker = bench.worker()
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        job = bench.submit()
        kinds = [event.kind for event in bench.service.watch(job.id)]
        assert kinds[-1] == "completed"
    finally:
        worker.stop("SIGTERM")
        thread.join(30)
    assert not thread.is_alive()


def test_jumps_of_the_wall_clock_change_nothing(tmp_path: Path) -> None:
    """T9: an hour back, a year on, and again, at every look at the clock."""
    bench = Bench(tmp_path)
    jumps = iter(range(10**6))
    now = time.time()
    bench.store.close()
    clock = lambda: now + (-3600.0, 365 * 86400.0, -10 * 365 * 86400.0, 0.0)[next(jumps) % 4]  # noqa: E731
    bench.store = JobStore(Database(bench.data.database), clock=clock)
    bench.service.store = bench.store
    jobs = [bench.submit(f"clip {number}", seed=number) for number in range(4)]
    bench.render.tricks.append(once("step2", raising(OutOfMemory("once"))))
    bench.work()
    assert {bench.store.get(job.id).status for job in jobs} == {JobStatus.COMPLETED}
    assert [len(outcomes(bench, job)) for job in jobs] == [2, 1, 1, 1]
    bench.service.close()


def test_too_little_disk_pauses_the_queue_and_room_resumes_it(bench: Bench) -> None:
    job = bench.submit()
    bench.keep_free = free_bytes(bench.data.root) + 2**30
    bench.work()
    state = bench.service.queue()
    assert state.paused and state.automatic and "GiB" in state.reason
    assert bench.store.get(job.id).attempt == 0
    bench.keep_free = 0
    bench.work()
    assert not bench.service.queue().paused
    assert bench.store.get(job.id).status is JobStatus.COMPLETED


def test_a_disk_that_fills_up_holds_nothing_against_the_job(bench: Bench) -> None:
    job = bench.submit()
    bench.render.tricks.append(once("decoded", raising(InsufficientStorage("no room for the video"))))
    bench.work()
    waiting = bench.store.get(job.id)
    assert (waiting.status, waiting.attempts_charged) == (JobStatus.QUEUED, 0)
    bench.work()
    assert bench.store.get(job.id).status is JobStatus.COMPLETED


def test_a_broken_database_ends_the_worker(bench: Bench) -> None:
    bench.submit()
    bench.render.tricks.append(once("step1", raising(StoreError("unreadable"))))
    with pytest.raises(StoreError):
        bench.work()


def test_every_wanreel_error_is_recorded_with_its_code(bench: Bench) -> None:
    for kind in WanreelError.__subclasses__():
        if kind.retryable or kind.code in (
            "error",
            "job_error",
            "invalid_request",
        ):  # those tried again do not end here
            continue
        job = bench.submit(kind.code)
        bench.render.tricks[:] = [once("loaded", raising(kind("said")))]
        bench.work()
        error = bench.store.get(job.id).error
        assert error is not None and error.code == kind.code


def new_like(bench: Bench, time_limit: float):  # noqa: ANN201
    from wanreel.core.job import NewJob

    job = bench.submit()
    bench.service.cancel(job.id)
    return NewJob(request=job.request, model=job.model, time_limit=time_limit)


def task_of(bench: Bench, job: Job) -> Task:
    from wanreel.service import request_of
    from wanreel.worker.files import stem_of
    from wanreel.worker.keeper import Keeper

    request = request_of(job)
    return Task(
        work=job.id,
        request=request,
        spec=bench.catalog.get(job.model),
        results=bench.data.outputs,
        stem=stem_of(job, request.prompt),
        checkpoints=bench.service.checkpoints(job.id),
        keeper=Keeper(bench.store.leases, job, 60.0),
    )


@pytest.mark.parametrize("company", [True, False])
def test_who_holds_the_model_goes_first(bench: Bench, company: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that holds nothing lets the other one have the job; where it is alone it does not wait at all."""
    job = bench.submit()
    other, lock = Liveness(bench.data.workers).new_worker("warm")
    claimed: list[bool] = []

    def wait(_bell: Bell, seconds: float) -> bool:
        claimed.append(bench.store.leases.claim(other, Warm((job.model,))) is not None)
        return seconds > 0

    monkeypatch.setattr(Bell, "wait", wait)
    if company:
        bench.store.leases.register(other)
    bench.work()
    (attempt,) = bench.store.attempts(job.id)
    assert (attempt.worker == other) == company
    assert claimed == ([True] if company else [])
    lock.release()
