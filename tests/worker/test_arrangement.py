"""One worker for all GPUs or one for each: which commands, and when the queue has them changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from wanreel.core.errors import SettingsError
from wanreel.core.parallel_plans import Arrangement, Arranging
from wanreel.worker.arrangement import Commands, GpuChoice, QueueLook, Rearranging

BOTH: dict[Arrangement, Commands] = {"together": {"cuda:0,1": ["t"]}, "each": {"cuda:0": ["e"], "cuda:1": ["e"]}}


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Queue:
    """How many jobs wait, each of which takes ten minutes on one GPU."""

    arrangement: Callable[[], Arrangement]
    waiting: int = 0
    looks: int = 0

    def __call__(self) -> QueueLook:
        self.looks += 1
        return QueueLook(self.waiting, 600 / 1.84 if self.arrangement() == "together" else 600.0)


def test_the_queue_decides_again_and_again() -> None:
    clock = Clock()
    queue = Queue(lambda: switch.now)
    switch = Rearranging(BOTH, Arranging(2), queue, clock=clock)

    def after(seconds: float, waiting: int) -> Commands | None:
        clock.now += seconds
        queue.waiting = waiting
        return switch()

    assert after(0, 1) is None and switch.now == "together"
    assert after(1, 100) is None and queue.looks == 1, "it looks every ten seconds"
    assert after(10, 1) is None
    assert after(10, 100) == BOTH["each"] and switch.now == "each"
    assert after(60, 1) is None and queue.looks == 3, "a change stays for two minutes"
    assert after(61, 2) is None, "one for each GPU"
    assert after(10, 0) is None, "an empty queue asks for nothing"
    assert after(10, 1) == BOTH["together"] and switch.now == "together"
    assert after(120, 2) is None, "what is gained is less than loading a model takes"


def test_what_is_started() -> None:
    choice = GpuChoice(multi_gpu=True, gpus="2,0")
    assert choice.together(["w"], 4) == {
        "cuda:2,0": ["w", "--multi-gpu", "--parallel", "auto", "--device", "cuda:2", "--gpus", "2,0"]
    }
    assert choice.each(["w"], 4) == {
        "cuda:2": ["w", "--no-multi-gpu", "--device", "cuda:2"],
        "cuda:0": ["w", "--no-multi-gpu", "--device", "cuda:0"],
    }
    assert GpuChoice(gpus="1", workers=1).each(["w"], 4) == {"cuda:1": ["w", "--device", "cuda:1"]}
    with pytest.raises(SettingsError, match="2 workers can't have all GPUs each"):
        GpuChoice(multi_gpu=True, workers=2).together(["w"], 4)
    with pytest.raises(SettingsError, match="3 workers need 3 GPUs, and there are 2"):
        GpuChoice(workers=3).each(["w"], 2)


@pytest.mark.parametrize(
    ("choice", "found", "switches"),
    [
        (GpuChoice(multi_gpu=True), 2, True),
        (GpuChoice(multi_gpu=True, parallel="together"), 2, False),
        (GpuChoice(multi_gpu=True, parallel="each"), 2, False),
        (GpuChoice(multi_gpu=True, parallel="cfg=2"), 2, False),
        (GpuChoice(multi_gpu=True), 1, False),
        (GpuChoice(), 2, False),
    ],
    ids=str,
)
def test_who_leaves_it_to_the_queue(choice: GpuChoice, found: int, switches: bool) -> None:
    assert choice.switches(found) == switches
