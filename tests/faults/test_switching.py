"""GPUs go over from one video on all to one on each and back, as the queue asks: real workers, with CPUs for GPUs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest

from faults.farm import Farm, ForkServer, kill
from wanreel.core.job import Job, JobStatus, Outcome
from wanreel.core.parallel_plans import Arrangement, Arranging
from wanreel.wiring import look_at_queue
from wanreel.worker.arrangement import Commands, GpuChoice, Rearranging
from wanreel.worker.supervisor import Process, Supervisor, worker_commands

KNOBS: dict[str, Any] = {"model": "tiny:t2v-1.3b", "num_inference_steps": 12, "guidance_high": 4.0}
#: Seconds of looking and staying pass a hundred times as fast as they do for real.
_FASTER = 100
_PATIENCE = 280.0  # seconds; machines may be busy


@dataclass
class Forked:
    """A worker of the fork server, as a supervisor knows its processes."""

    server: ForkServer
    pid: int
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.server.poll(self.pid)
        return self.code

    def wait(self) -> int:
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code

    def send_signal(self, number: int) -> None:
        kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def wait_until(farm: Farm, true: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not true():
        assert time.monotonic() < end, farm.said()
        time.sleep(0.1)


@pytest.mark.deep
def test_the_queue_s_depth_arranges_workers(new_farm: Callable[[str], Farm]) -> None:
    farm = new_farm("switching")
    jobs = [farm.submit(**KNOBS)]
    both: dict[Arrangement, Commands] = {
        "together": worker_commands("cpu", (), None, GpuChoice(multi_gpu=True, parallel="cfg=2")),
        "each": worker_commands("cpu", (), 2),
    }
    switch = Rearranging(
        both,
        Arranging(2, switch_seconds=0.0),
        lambda: look_at_queue(farm.runtime.settings),
        clock=lambda: _FASTER * time.monotonic(),
    )
    arranged = [switch.now]

    def rearrange() -> Commands | None:
        commands = switch()
        if commands is not None:
            arranged.append(switch.now)
        return commands

    def start(command: Sequence[str]) -> Process:
        return cast("Process", Forked(farm.server, farm.start(*command[4:])))

    supervisor = Supervisor(both["together"], start=start, rearrange=rearrange)
    codes: list[int] = []
    runs = threading.Thread(target=lambda: codes.append(supervisor.run()))
    runs.start()
    try:
        wait_until(farm, lambda: status(farm, jobs[0]) is JobStatus.COMPLETED)
        assert arranged == ["together"]
        jobs += [farm.submit(**KNOBS) for _ in range(7)]
        wait_until(farm, lambda: all(status(farm, job) is JobStatus.COMPLETED for job in jobs))
    finally:
        supervisor.stop()
        runs.join()
    assert codes == [0] and arranged[:3] == ["together", "each", "together"], arranged
    # Nothing is lost or done twice, whoever made it how: passes of guidance at once change no bit.
    expected = str(farm.service.get(jobs[0].id).result_sha256)
    farm.check({job.id: expected for job in jobs})
    attempts = [attempt for job in jobs for attempt in farm.service.attempts(job.id)]
    assert {attempt.outcome for attempt in attempts} <= {Outcome.COMPLETED, Outcome.DRAINED}
    assert any(attempt.outcome is Outcome.DRAINED for attempt in attempts), "a job went on elsewhere"
    notes = [farm.manifest(farm.service.get(job.id)).notes for job in jobs]
    shared = ["shared by 2 ranks: cfg 2" in words for words in notes]
    assert shared[0] and not all(shared), "some on both, some on one"
    spans = [(it.started_at, it.ended_at or 0.0, it.worker) for it in attempts]
    assert any(a[0] < b[0] < a[1] and a[2] != b[2] for a in spans for b in spans), "two at once"


def status(farm: Farm, job: Job) -> JobStatus:
    return farm.service.get(job.id).status
