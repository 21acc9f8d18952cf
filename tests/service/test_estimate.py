"""What is predicted from finished jobs, and that nothing is where none has finished."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wanreel.core.errors import JobNotFound
from wanreel.core.job import Job, Progress
from wanreel.core.measures import Measures
from wanreel.core.request import VideoRequest
from wanreel.core.sample import GpuSample, Sample
from wanreel.service import Estimate, request_of
from wanreel.service.estimate import passes_of, volume_of
from worker.bench import Bench

GPU = "NVIDIA H200"
#: Of a run with 4 steps: 10 s to load, 8 s of denoising and 3 s of everything else.
RUN = Measures(f"cuda:0 {GPU}", 4, 10.0, 1.0, 8.0, 1.5, 0.5)


def request(**knobs: object) -> VideoRequest:
    values = {"prompt": "x", "model": "demo", "num_inference_steps": 4, "num_frames": 9, "width": 128, "height": 128}
    return VideoRequest.from_mapping({**values, "seed": 1, **knobs})


def worker(bench: Bench, name: str = "w", gpu: str | None = GPU, model: str = "") -> None:
    bench.store.leases.register(name)
    told = None if gpu is None else GpuSample(gpu, "1", 0.0, 0, 1, None)
    bench.store.leases.report(name, Sample(0.0, 0.0, 0, 1, 0, 10**12, 10**12, "auto", model, told))


def run(bench: Bench, measures: Measures = RUN, **knobs: object) -> Job:
    """A job that ended just so."""
    bench.service.submit(request(**knobs))
    job = bench.store.leases.claim("w")
    assert job is not None
    bench.store.leases.measure(job.id, job.attempt, measures)
    return bench.store.leases.complete(job.id, job.attempt, "00", seconds=sum((measures.load, measures.denoise)))


def estimate(bench: Bench, **knobs: object) -> Estimate:
    bench.service.estimator.__init__(bench.store)  # without what it remembers
    return bench.service.estimator.work(bench.service.resolve(request(**knobs)).request)


def test_nothing_is_known_before_the_first_run(bench: Bench) -> None:
    worker(bench)
    assert estimate(bench) == Estimate("no finished run of demo yet")
    assert estimate(bench).seconds is None


def test_runs_of_the_same_size_give_their_median(bench: Bench) -> None:
    worker(bench)
    for factor in (1.0, 1.5, 20.0):
        run(bench, replace(RUN, denoise=8.0 * factor))
    found = estimate(bench)
    assert found == Estimate(f"3 runs of this size on {GPU}", 10.0, 12.0, 3.0)
    assert found.seconds == 25.0


def test_steps_guidance_and_size_scale_and_the_basis_says_so(bench: Bench) -> None:
    worker(bench)
    run(bench)
    assert estimate(bench, num_inference_steps=8).denoise == 16.0
    assert estimate(bench, guidance_scale=1.0).denoise == 4.0
    larger = estimate(bench, num_frames=21)
    assert larger.basis == f"1 run of another size, scaled, on {GPU}"
    assert (larger.denoise, larger.rest) == (16.0, 6.0)
    run(bench, replace(RUN, denoise=30.0, decode=9.0), num_frames=21)
    assert estimate(bench, num_frames=21).basis == f"1 run of this size on {GPU}"
    assert estimate(bench, num_frames=21).denoise == 30.0


def test_a_model_in_memory_need_not_be_loaded(bench: Bench) -> None:
    worker(bench, model="demo")
    run(bench)
    assert estimate(bench).load == 0.0


def test_another_machine_and_partial_runs_tell_nothing(bench: Bench) -> None:
    worker(bench, gpu=None)
    run(bench)
    assert estimate(bench) == Estimate("no finished run of demo on cpu yet")
    run(bench, replace(RUN, device="cpu", steps=2))
    assert estimate(bench).seconds is None
    run(bench, replace(RUN, device="cpu"))
    assert estimate(bench).basis == "1 run of this size on cpu"


def test_the_line_starts_as_workers_get_free(bench: Bench) -> None:
    worker(bench, model="demo")
    run(bench)
    line = [bench.service.submit(request()) for _ in range(4)]
    starts = bench.service.estimator
    assert [starts.standing(job.id) for job in line] == [starts.standing(job.id) for job in line]
    found = [bench.service.standing(job.id) for job in line]
    assert [(one.position, one.starts_in) for one in found if one] == [(1, 0.0), (2, 11.0), (3, 22.0), (4, 33.0)]
    assert bench.service.estimator.next_start() == 44.0
    first = bench.store.leases.claim("w")
    assert first is not None
    bench.store.leases.heartbeat(first.id, first.attempt, Progress("denoise", 3, 4))
    second = bench.service.standing(line[1].id)
    assert second is not None and (second.position, second.starts_in) == (1, 5.0)
    bench.store.leases.heartbeat(first.id, first.attempt, Progress("decode", 4, 4, 0.5))
    second = bench.service.standing(line[1].id)
    assert second is not None and second.starts_in == 1.5
    worker(bench, "another", model="demo")
    second = bench.service.standing(line[1].id)
    assert second is not None and second.starts_in == 0.0
    assert bench.service.standing(first.id) is None
    with pytest.raises(JobNotFound):
        bench.service.standing("0" * 32)


def test_a_start_is_unknown_behind_unknown_work_and_while_paused(bench: Bench) -> None:
    worker(bench, model="demo")
    jobs = [bench.service.submit(request()) for _ in range(2)]
    found = [bench.service.standing(job.id) for job in jobs]
    assert [one.starts_in for one in found if one] == [0.0, None]
    bench.service.pause("maintenance")
    paused = bench.service.standing(jobs[0].id)
    assert paused is not None and (paused.position, paused.starts_in) == (1, None)
    bench.service.resume()
    bench.store.leases.unregister("w")
    gone = bench.service.standing(jobs[0].id)
    assert gone is not None and gone.starts_in is None


def test_passes_and_volume(bench: Bench) -> None:
    plain = request_of(bench.service.submit(request(num_frames=9)))
    assert volume_of(plain) == 128 * 128 * 3
    assert passes_of(plain) == 8.0
    assert passes_of(replace(plain, guidance_high=1.0, guidance_low=1.0, guided_steps=1)) == 5.0
    assert passes_of(replace(plain, guidance_high=3.0, guidance_low=1.0)) == 6.0
