"""T14: SIGTERM in every phase of a job. The process leaves with 0 and the job goes on from where it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from faults.farm import Farm, kill
from wanreel.core.job import JobStatus, Outcome

NewFarm = Callable[[str], Farm]

#: In the order of a job's life. From "denoised" on, finished latents are on disk.
PHASES = ("claimed", "loaded", "encoded", "step", "denoised", "decoded")
#: From here on the result is there, and the job ends instead of going back.
LATE = ("exported", "before_complete")


def test_a_stop_in_every_phase_loses_nothing(new_farm: NewFarm) -> None:
    farm, whole = new_farm("stopped"), new_farm("whole")
    like, job = whole.submit(), farm.submit()
    assert whole.work() == 0, whole.said()
    for phase in PHASES:
        assert farm.work(fault=f"attempt.{phase}:term") == 0, (phase, farm.said())
        assert farm.service.get(job.id).status is JobStatus.QUEUED, (phase, farm.said())
    attempts = farm.service.attempts(job.id)
    assert [attempt.outcome for attempt in attempts] == [Outcome.DRAINED] * len(PHASES)
    assert farm.service.get(job.id).attempts_charged <= 1, "stopping is not held against the job"
    assert farm.work(fault=f"attempt.{LATE[0]}:term") == 0
    # It was made before the stop was heard, so it counts.
    farm.check({job.id: str(whole.service.get(like.id).result_sha256)})


def test_an_idle_worker_wakes_at_once_and_stops_at_once(new_farm: NewFarm) -> None:
    farm = new_farm("idle")
    pid = farm.start("--alone")
    while not list((farm.root / "workers").glob("*.bell")):
        time.sleep(0.01)
    # Whoever hears the bell claims at once; by polling alone it would be up to a second.
    waits = []
    for _ in range(5):
        job = farm.submit(num_inference_steps=1)
        event = next(event for event in farm.service.watch(job.id) if event.kind == "claimed")
        waits.append(event.at - job.created_at)
        for _ in farm.service.watch(job.id):
            pass
    print("from enqueue to claim, seconds:", [round(wait, 4) for wait in waits])
    assert min(waits) < 0.5
    kill(pid, signal.SIGTERM)
    assert farm.server.wait(pid) == 0
    assert not farm.service.store.workers()


def test_a_second_stop_is_heard_at_once(new_farm: NewFarm) -> None:
    farm = new_farm("twice")
    job = farm.submit(num_frames=33, num_inference_steps=50, width=256, height=256)
    pid = farm.start("--alone")
    while farm.service.get(job.id).progress.step < 1:
        time.sleep(0.02)
    kill(pid, signal.SIGTERM)
    kill(pid, signal.SIGTERM)
    assert farm.server.wait(pid) in (0, 143)  # 0: the first was obeyed before the second came
    assert farm.service.get(job.id).status in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


def test_the_supervisor_replaces_a_killed_worker_and_takes_it_along(new_farm: NewFarm, tmp_path: Path) -> None:
    farm = new_farm("supervised")
    pid = farm.start("--device", "cpu")
    first = worker_pid(farm, pid)
    kill(first)
    while worker_pid(farm, pid) == first:
        time.sleep(0.05)
    second = worker_pid(farm, pid)
    while not farm.service.store.workers():
        time.sleep(0.05)
    kill(pid, signal.SIGTERM)
    assert farm.server.wait(pid) == 0
    assert not Path(f"/proc/{second}").exists()


def worker_pid(farm: Farm, supervisor: int) -> int:
    """The one child of the supervisor, waited for."""
    while True:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        if children:
            return int(children[0])
        assert os.path.exists(f"/proc/{supervisor}"), farm.said()
        time.sleep(0.02)
