"""What a warm job takes beside its model: the real queue, worker, checkpoints, encoder and files around a stand-in.

The model's tensors have the real sizes and cost nothing, so every second that is left is Wanreel's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from wanreel.core.bench import Figure
from wanreel.core.failpoints import Failpoints
from wanreel.core.machines import GIB, Machine, machine_of
from wanreel.core.request import VideoRequest
from wanreel.core.settings import load_settings
from wanreel.host import total_memory
from wanreel.media.video import VideoFormat, VideoWriter
from wanreel.models.shelf import INDEX
from wanreel.wiring.queue import build_service, build_worker
from wanreel.wiring.runtime import Runtime, build_runtime

if TYPE_CHECKING:
    from wanreel.models.pool import ModelPool
    from wanreel.models.stand_in import Working

#: Seconds that an H200 takes for a step and a decode of 1280×720×81 in fast (docs/benchmarks.md).
STEP, DECODE = 6.2, 2.1
_CARD = ("NVIDIA H200", 141 * GIB, 140 * GIB, (9, 0))


@dataclass(frozen=True, slots=True)
class Pace:
    """The job, and how long the GPU that is stood in for would take."""

    model: str = "i2v-a14b"
    knobs: tuple[tuple[str, Any], ...] = ()  #: of a VideoRequest
    step: float = STEP  #: seconds of one step
    decode: float = DECODE  #: of the whole video
    jobs: int = 3  #: the first one is cold, and is not counted


class Marks(Failpoints):
    """When each attempt first passed through its places."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self.jobs: list[dict[str, float]] = []  #: of each attempt, by place

    def hit(self, name: str) -> None:
        if name == "attempt.claimed":
            self.jobs.append({})
        if self.jobs:
            self.jobs[-1].setdefault(name.removeprefix("attempt."), self._clock())


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one job that its model did not need."""

    begin: float  #: from the claim to the first step
    between: float  #: beside steps
    close: float  #: from the last step until decoding begins
    write: float  #: from there until the file was whole, but for the time that decoding takes
    record: float  #: until the job was recorded as completed

    @property
    def total(self) -> float:
        return self.begin + self.between + self.close + self.write + self.record

    @classmethod
    def of(cls, marks: dict[str, float], steps: Sequence[tuple[float, float]], decode: float) -> Spent:
        """From an attempt's marks, the beginnings and ends of its steps, and the seconds that decoding took."""
        working = sum(end - begin for begin, end in steps)
        return cls(
            begin=steps[0][0] - marks["claimed"],
            between=steps[-1][1] - steps[0][0] - working,
            close=marks["denoised"] - steps[-1][1],
            write=marks["exported"] - marks["denoised"] - decode,
            record=marks["after_complete"] - marks["exported"],
        )


def overhead(pace: Pace, picture: bytes, say: Callable[[str], None]) -> list[Figure]:
    """Run the jobs one after another and tell of the least that a warm one took. Raises what a job raises."""
    from wanreel.models.stand_in import Working, drawn_frames

    working = Working(pace.step, pace.decode)
    with TemporaryDirectory() as scratch:
        spent, shape = _jobs(Path(scratch), pace, picture, working, say)
        frames = drawn_frames(*shape)
        began = time.monotonic()
        with VideoWriter(Path(scratch) / "alone.mp4", VideoFormat(shape[2], shape[1], 16.0)) as writer:
            writer.write(frames)
        alone = time.monotonic() - began
    best = min(spent[1:] or spent, key=lambda it: it.total)
    return [
        Figure("claim to first step", best.begin, note="prompt and picture were encoded before"),
        Figure(
            "between steps", best.between, note="previews, records; the solver too, which a GPU computes in no time"
        ),
        Figure("last step to frames", best.close, note="the same after the last one, and the latents' SHA-256"),
        Figure(
            "frames to file", best.write, note=f"what encoding takes beyond a decode of {pace.decode:g} s beside it"
        ),
        Figure("file to record", best.record, note="hashes, manifest, job database"),
        Figure("all of a warm job", best.total, note=f"the least of {len(spent[1:] or spent)}"),
        Figure("encoder alone", alone, note="the same frames, none of it beside a decode"),
    ]


def _jobs(
    scratch: Path, pace: Pace, picture: bytes, working: Working, say: Callable[[str], None]
) -> tuple[list[Spent], tuple[int, int, int]]:
    """What each job spent, and frames, height and width of its video."""
    runtime = _runtime(scratch, pace.model, working)
    marks = Marks()
    with closing(build_service(runtime)) as service:
        taken = runtime.take_picture(picture)
        asked: dict[str, Any] = {"prompt": "A cat walks on the grass.", "model": pace.model, "image": taken}
        asked |= {"num_inference_steps": 4} | dict(pace.knobs)
        jobs = [service.submit(VideoRequest(**asked, seed=seed)) for seed in range(pace.jobs)]
        say(f"{pace.jobs} jobs of {asked['num_inference_steps']} steps …")
        build_worker(runtime, failpoints=marks).run(once=True)
        request = runtime.resolve(VideoRequest(**asked)).request
        assert all("after_complete" in it for it in marks.jobs), "a job failed: the worker's log says why"
    count = request.num_inference_steps
    steps = [working.steps[count * number : count * (number + 1)] for number in range(len(jobs))]
    spent = [Spent.of(*job, pace.decode) for job in zip(marks.jobs, steps, strict=True)]
    return spent, (request.num_frames, request.height, request.width)


def _runtime(scratch: Path, model: str, working: Working) -> Runtime:
    """With a data directory of its own, in which the model seems to be installed."""
    folder = scratch / "models" / model
    folder.mkdir(parents=True)
    (folder / INDEX).write_text("{}")
    runtime = build_runtime(load_settings(data_dir=scratch, device="cpu", min_free_gb=0.0))
    return replace(runtime, _pool=_pool(runtime, working))


def _pool(runtime: Runtime, working: Working) -> ModelPool:
    """Plans as for the card that is stood in for."""
    from wanreel.models.picture_planning import EveryPlanner
    from wanreel.models.planning import Planner
    from wanreel.models.pool import ModelPool
    from wanreel.models.prompt_cache import PromptCache
    from wanreel.models.stand_in import build_stand_in

    def machine() -> Machine:
        name, total, free, capability = _CARD
        return machine_of(name, total, free, capability, host_free=total_memory())

    settings = runtime.settings
    cache = PromptCache(settings.data.prompts, settings.prompt_cache_mb * 10**6)
    planner = EveryPlanner(Planner(machine, settings.wishes))
    return ModelPool(lambda spec, placement: build_stand_in(spec, placement, working, cache), planner, machine)
