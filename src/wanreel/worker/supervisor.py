"""Supervisor: keeps one worker process per device running. Knows nothing of jobs, stores or models.

A worker's death is nothing special: the kernel lets go of its lock, the next worker puts its job back in line, and
this process starts another one.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wanreel.core.parallel import parse_parallel
from wanreel.core.parallel_plans import Arrangement, Arranging
from wanreel.host import ask_to_stop, start_detached
from wanreel.worker.arrangement import Commands, GpuChoice, QueueLook, Rearranging

_log = logging.getLogger(__name__)

Process = subprocess.Popen[bytes]

_LOOK = 0.1  # seconds between looks at the processes
_LONG_LIFE = 60.0  # seconds after which a process is taken to have started well
_LONGEST_WAIT = 60.0  # seconds before another try
_BAD_INPUT = 2  # exit code of a process that was told something impossible: another one would do no better


@dataclass
class _Place:
    """One device, and the process that works on it now."""

    label: str
    command: Sequence[str]
    process: Process | None = None
    started: float = 0.0
    start_at: float = 0.0
    quick_deaths: int = 0
    told: int = 0  # how many requests to stop were passed on


@dataclass
class Supervisor:
    """Runs a command per device until asked to stop. `stop` may be called from a signal handler."""

    commands: Mapping[str, Sequence[str]]  #: what to run, by a label for the log
    replace_code: int = 85  #: exit code of a process that wants to be replaced at once
    start: Callable[[Sequence[str]], Process] = start_detached
    clock: Callable[[], float] = time.monotonic
    #: Asked again and again: other commands, to be run once all processes of these have ended in their own time.
    rearrange: Callable[[], Mapping[str, Sequence[str]] | None] = lambda: None
    _coming: Mapping[str, Sequence[str]] | None = field(default=None, init=False, repr=False)
    _places: list[_Place] = field(init=False, repr=False)
    _asked: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = [_Place(label, command) for label, command in self.commands.items()]

    def run(self) -> int:
        """Returns the exit code: 0 after a stop, or that of a process which can't work at all."""
        try:
            while True:
                code = self._tend()
                if code is not None:
                    return code
                time.sleep(_LOOK)
        finally:
            self._end_all()

    def stop(self, signal_name: str = "") -> None:
        """Ask every worker to finish its step and leave. Asked again: end them at once."""
        # The rest is done by `run`: a signal may come while it is just starting a process.
        self._asked += 1

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the processes that run now."""
        return tuple(place.process.pid for place in self._places if place.process is not None)

    def _tend(self) -> int | None:
        """Look at every place once. An exit code when there is nothing left to do."""
        self._go_over()
        for place in self._places:
            if place.process is None:
                if not self._asked and self._coming is None and self.clock() >= place.start_at:
                    self._begin(place)
                continue
            self._pass_on(place, place.process)
            code = place.process.poll()
            if code is not None:
                place.process = None
                if code == _BAD_INPUT:
                    return code
                self._ended(place, code)
        busy = any(place.process is not None for place in self._places)
        return 0 if self._asked and not busy else None

    def _go_over(self) -> None:
        """To other commands, if there are some: their processes start when these have ended."""
        if self._coming is None and not self._asked:
            self._coming = self.rearrange()
            for place in self._places if self._coming is not None else ():
                if place.process is not None:
                    ask_to_stop(place.process)
        if self._coming is not None and all(place.process is None for place in self._places):
            self._places = [_Place(label, command) for label, command in self._coming.items()]
            self._coming = None

    def _pass_on(self, place: _Place, process: Process) -> None:
        """Tell the worker what we were asked, once each."""
        if self._asked > place.told:
            place.told = self._asked
            if self._asked == 1:
                ask_to_stop(process)
            else:
                process.kill()

    def _begin(self, place: _Place) -> None:
        place.process = self.start(place.command)
        place.started = self.clock()
        _log.info("worker %s: process %d", place.label, place.process.pid)

    def _ended(self, place: _Place, code: int) -> None:
        if self._asked or self._coming is not None:
            return
        lived = self.clock() - place.started
        place.quick_deaths = 0 if lived > _LONG_LIFE or code == self.replace_code else place.quick_deaths + 1
        # The first death costs no time: most are single accidents, and a job is waiting.
        wait = min(_LONGEST_WAIT, 2.0 ** (place.quick_deaths - 2)) if place.quick_deaths > 1 else 0.0
        place.start_at = self.clock() + wait
        _log.warning(
            "worker %s: ended with %d after %.1f s; the next one starts in %.0f s", place.label, code, lived, wait
        )

    def _end_all(self) -> None:
        """Nobody is left behind, whatever ended this process."""
        for place in self._places:
            if place.process is not None:
                place.process.kill()
                place.process.wait()


def worker_commands(
    device: str, options: Sequence[str] = (), count: int | None = None, choice: GpuChoice | None = None
) -> dict[str, Sequence[str]]:
    """A command for each device that `device` means: "auto" is every GPU, or the CPU where there is none.

    With `count` so many of them, by a label each; a CPU takes any number. `choice` names GPUs, or wants one worker for all
    of them. Raises SettingsError for more than there are.
    """
    base = [sys.executable, "-m", "wanreel", "worker", "--supervised", *options]
    choice = replace(choice or GpuChoice(), device=device, workers=count)
    if choice.multi_gpu and parse_parallel(choice.parallel).spread != "each":
        return dict(choice.together(base, gpu_count()))
    if device == "auto" or choice.gpus:
        found = gpu_count()
        if found or choice.gpus:
            return dict(choice.each(base, found))
    if count is None or count == 1:
        return {device: [*base, "--device", device]}
    if device.startswith("cuda"):
        return dict(choice.each(base, 1))
    return {f"{device}#{number}": [*base, "--device", device] for number in range(1, count + 1)}


def rearranging(
    look: Callable[[], QueueLook], device: str, options: Sequence[str], choice: GpuChoice
) -> Callable[[], Mapping[str, Sequence[str]] | None]:
    """What makes a Supervisor go over between one worker for all GPUs and one for each, where that is left open."""
    found = gpu_count() if choice.multi_gpu else 0
    choice = replace(choice, device=device)
    if not choice.switches(found):
        return lambda: None
    base = [sys.executable, "-m", "wanreel", "worker", "--supervised", *options]
    both: dict[Arrangement, Commands] = {"together": choice.together(base, found), "each": choice.each(base, found)}
    return Rearranging(both, Arranging(len(both["each"])), look)


def gpu_count() -> int:
    """GPUs that torch can use, asked in a process of its own: this one must stay small, and holds no GPU."""
    if shutil.which("nvidia-smi") is None:
        return 0
    question = "import torch; print(torch.cuda.device_count())"
    answer = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    return int(answer.stdout.strip() or 0) if answer.returncode == 0 else 0
