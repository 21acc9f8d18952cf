"""Which worker processes a machine's GPUs get: one worker for each, or one for all of them. Knows nothing of models.

With the parallel plan left open, the queue decides, again and again: see `core/parallel_plans.Arranging`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from wanreel.core.errors import SettingsError
from wanreel.core.parallel import gpu_numbers, parse_parallel, rank_devices
from wanreel.core.parallel_plans import Arrangement, Arranging

_log = logging.getLogger(__name__)

Commands = Mapping[str, Sequence[str]]

_LOOK = 10.0  # seconds between looks at the queue
_STAYS = 120.0  # seconds after a change before the next one


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """What was asked for."""

    device: str = "auto"
    gpus: str = ""
    multi_gpu: bool = False
    parallel: str = "auto"
    workers: int | None = None  #: None: one for each GPU

    def together(self, base: Sequence[str], found: int) -> Commands:
        """One worker for all GPUs. Raises SettingsError where there can't be one."""
        if self.workers not in (None, 1):
            raise SettingsError(
                f"{self.workers} workers can't have all GPUs each.", hint="Give --multi-gpu or --workers, not both."
            )
        wish = parse_parallel(self.parallel)
        devices = rank_devices(self.device, self.gpus, wish, found)
        options = ["--multi-gpu", "--parallel", self.parallel, "--device", devices[0]]
        if devices[0] == "cpu":
            return {f"cpu×{len(devices)}": [*base, *options]}
        numbers = ",".join(device.partition(":")[2] for device in devices)
        return {f"cuda:{numbers}": [*base, *options, "--gpus", numbers]}

    def each(self, base: Sequence[str], found: int) -> Commands:
        """A worker for each GPU that is named, or for all."""
        numbers = gpu_numbers(self.gpus, found)
        if self.workers is not None and self.workers > len(numbers):
            raise SettingsError(
                f"{self.workers} workers need {self.workers} GPUs, and there {_are(len(numbers))}.",
                hint="A GPU makes one video at a time: ask for fewer --workers.",
            )
        alone = [*base, "--no-multi-gpu"] if self.multi_gpu else base
        return {f"cuda:{number}": [*alone, "--device", f"cuda:{number}"] for number in numbers[: self.workers]}

    def switches(self, found: int) -> bool:
        """Whether the queue decides."""
        return self.multi_gpu and self.device != "cpu" and found > 1 and parse_parallel(self.parallel).spread == "auto"


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


@dataclass(frozen=True, slots=True)
class QueueLook:
    """What of the queue matters here."""

    waiting: int  #: jobs queued and at work
    job_seconds: float  #: that the latest jobs took as the workers were arranged


@dataclass
class Rearranging:
    """Says when other workers should take over, and which."""

    choices: Mapping[Arrangement, Commands]
    arranging: Arranging
    look: Callable[[], QueueLook]
    now: Arrangement = "together"
    clock: Callable[[], float] = time.monotonic
    _looked: float = -_LOOK
    _changed: float = -_STAYS

    def __call__(self) -> Commands | None:
        """The commands to go over to; None to stay."""
        if self.clock() - self._looked < _LOOK or self.clock() - self._changed < _STAYS:
            return None
        self._looked = self.clock()
        seen = self.look()
        alone = seen.job_seconds
        if self.now == "together":
            alone *= self.arranging.gpus * self.arranging.efficiency
        wanted = self.arranging.wanted(self.now, seen.waiting, alone)
        if wanted == self.now:
            return None
        _log.info(
            "%d jobs wait: the GPUs work %s from now on", seen.waiting, "on one" if wanted == "together" else "each"
        )
        self.now, self._changed = wanted, self.clock()
        return self.choices[wanted]
