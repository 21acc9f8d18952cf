"""bench: one request on this machine, twice, its stages as the product's own events tell them.

Then pieces that events don't tell apart, what faster arithmetic costs in error, and Diffusers' parts. Knows nothing of
tables or files but those of the video, which goes with the folder that it is written to.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wanreel.core.bench import Figure
from wanreel.core.cancel import CancelToken
from wanreel.core.components import known
from wanreel.core.events import Completed, Encoded, Event, Exported, ModelLoaded, Preview, StepCompleted
from wanreel.core.memory_plan import MemoryPlan, Stage
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.vae_work import decode_operations, encode_operations
from wanreel.core.workload import Workload
from wanreel.generation.bench.diffusers import Reference, reference
from wanreel.generation.conditioning import Conditioning, tokens_of
from wanreel.generation.decode import Decoding
from wanreel.generation.denoise import denoise
from wanreel.generation.encode import Pictures, encode, encode_prompts, is_lean
from wanreel.generation.export import Target
from wanreel.generation.render import render
from wanreel.media.pictures import open_picture
from wanreel.models.clock import GIB, error_of, timed
from wanreel.models.pool import ModelPool, Planning
from wanreel.models.suit import suit, unsuited
from wanreel.models.wan_model import WanModel


@dataclass
class Listening:
    """A planner, whose pool's runs are listened to and teach nothing: what was run may be noise."""

    planner: Planning
    peaks: Mapping[Stage, int] = field(default_factory=dict[Stage, int])  #: bytes, of the last run

    def plans(self, spec: Any, request: Any, held: Any) -> tuple[MemoryPlan, ...]:
        return self.planner.plans(spec, request, held)

    def ran(
        self, spec: Any, request: Any, plan: MemoryPlan, peaks: Mapping[Stage, int], steps: Sequence[float] = ()
    ) -> None:
        self.peaks = dict(peaks)

    def ran_out(self, spec: Any, request: Any, plan: MemoryPlan, stage: Stage) -> None:
        self.planner.ran_out(spec, request, plan, stage)


@dataclass
class Run:
    """Seconds of one request's stages."""

    load: float = 0.0
    encode: float = 0.0
    steps: list[float] = field(default_factory=list[float])
    decode: float = 0.0  #: what was waited for frames
    export: float = 0.0  #: with it, until the file was there
    total: float = 0.0
    preview: float = 0.0  #: that steps waited for the dearest one
    device: str = ""
    plan: str = ""

    def see(self, event: Event) -> None:
        match event:
            case ModelLoaded(seconds=seconds, device=device, plan=plan):
                self.load, self.device, self.plan = seconds, device, plan
            case Encoded(seconds=seconds):
                self.encode = seconds
            case StepCompleted(seconds=seconds):
                self.steps.append(seconds)
            case Preview(seconds=seconds):
                self.preview = max(self.preview, seconds)
            case Exported(seconds=seconds, decode_seconds=decode):
                self.decode, self.export = decode, seconds
            case Completed(seconds=seconds):
                self.total = seconds
            case _:
                pass

    @property
    def step(self) -> float:
        """A later one: the first may bring weights in or compile."""
        return statistics.median(self.steps[1:] or self.steps)

    @property
    def rest(self) -> float:
        """What was neither encoding, a step, decoding nor writing."""
        return self.total - self.load - self.encode - sum(self.steps) - self.export


@dataclass
class Bench:
    """Runs `resolution` on models of `pool`."""

    pool: ModelPool
    listening: Listening
    resolution: Resolution
    target: Target
    cancel: CancelToken
    against: bool = False  #: run Diffusers' modules too
    notes: list[str] = field(default_factory=list[str])
    warm: Run = field(default_factory=Run)

    def figures(self, say: Callable[[str], None] = lambda text: None) -> list[Figure]:
        """Every line of the report. Raises what a generation raises."""
        say("first request …")
        cold = self._run()
        say(f"{_told(cold)}; second request …")
        self.warm = warm = self._run()
        say(_told(warm))
        say("its parts …")
        model = self.pool.acquire(self.resolution.spec).model
        conditioning, text = self._parts(model)
        latents, error = self._latents(model, conditioning)
        theirs = self._theirs(model, conditioning, latents, say)
        decoded, off = self._decoded(model, latents)
        lines = [
            Figure("load", cold.load),
            Figure("prompts", text, note="text encoder; none of it when a prompt was seen before"),
            *self._condition(warm.encode, text, conditioning, theirs),
            Figure("first step", cold.steps[0], note="of the process: compiles, measures kernels, warms up"),
            self._step(warm, error, theirs),
            Figure("preview", warm.preview, note=f"{warm.preview / warm.step:.1%} of a step, and not after every one"),
            self._decode(decoded, off, theirs),
            Figure("decode beside writing", warm.decode, note="what a request waits for frames"),
            Figure("until the file is there", warm.export - warm.decode, note="what writing takes beside decoding"),
            Figure(
                "everything else", warm.rest, note="of a warm request: previews, records, what lies between the stages"
            ),
            Figure("first request", cold.total),
            Figure("warm request", warm.total, note=f"{len(warm.steps)} steps"),
            *self._official(warm),
        ]
        return [line for line in lines if line.seconds > 0]

    def _run(self) -> Run:
        run = Run()
        for event in render(self.pool, self.resolution, self.target, self.cancel):
            run.see(event)
            if isinstance(event, Completed):
                for path in event.video.files().values():
                    path.unlink(missing_ok=True)
        return run

    @property
    def _request(self) -> ResolvedRequest:
        return self.resolution.request

    @property
    def _work(self) -> Workload | None:
        """None for a model of no released size."""
        return Workload.of(self.resolution.spec, self._request) if known(self.resolution.spec) else None

    def _pictures(self) -> Pictures:
        first, last = (self._picture(it) for it in (self._request.image, self._request.last_image))
        return Pictures(first, last)

    def _picture(self, picture: Any) -> Image.Image | None:
        return None if picture is None else open_picture(self.target.pictures.open(picture.sha256))

    def _parts(self, model: WanModel) -> tuple[Conditioning, float]:
        """Conditioning, and the seconds that the text encoder takes for its prompts."""
        prompts, model.prompts = model.prompts, None
        with torch.no_grad():
            text = timed(model.device, lambda: encode_prompts(model, self._request, self.cancel), 3)
        model.prompts = prompts
        return encode(model, self._request, self._pictures(), self.cancel), text.seconds

    def _latents(self, model: WanModel, conditioning: Conditioning) -> tuple[Tensor, float | None]:
        """Those after a step, and how far the step is from the exact one."""
        suit(model, tokens_of(model.spec, self._request))
        latents = self._stepped(model, conditioning)
        if model.placement.compute == "exact":
            return latents, None
        placement = model.placement
        model.run_with(replace(placement, compute="exact"))
        suit(model, tokens_of(model.spec, self._request))
        exact = self._stepped(model, conditioning)
        model.run_with(placement)
        start = self._noise(model, conditioning)
        return latents, error_of(latents - start, exact - start)

    def _stepped(self, model: WanModel, conditioning: Conditioning) -> Tensor:
        latents = next(denoise(model, conditioning, self._request, cancel=self.cancel)).latents
        unsuited(model)
        return latents

    def _noise(self, model: WanModel, conditioning: Conditioning) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(self._request.seed)
        return torch.randn(conditioning.shape, generator=generator, dtype=torch.float32).to(model.device)

    def _theirs(
        self, model: WanModel, conditioning: Conditioning, latents: Tensor, say: Callable[[str], None]
    ) -> Reference | None:
        if not self.against:
            return None
        if not model.placement.keeps_everything:
            self.notes.append("Diffusers was not run: it needs everything on the device at once.")
            return None
        say("Diffusers' own …")
        return reference(model, conditioning, latents, self._request)

    def _decoded(self, model: WanModel, latents: Tensor) -> tuple[tuple[float, float | None], float | None]:
        """Seconds and peak of decoding alone, and how far its frames are from exact ones, over -1 to 1."""

        def frames(*, lean: bool) -> NDArray[np.uint8]:
            return np.concatenate(list(Decoding(model, latents, self.cancel, lean=lean)))

        lean = is_lean(model)
        ours = timed(model.device, lambda: frames(lean=lean))
        if not lean:
            return (ours.seconds, ours.peak_gib), None
        exact, found = (torch.from_numpy(it).float() / 127.5 - 1 for it in (frames(lean=False), ours.value))
        return (ours.seconds, ours.peak_gib), error_of(found, exact)

    def _condition(
        self, encoding: float, text: float, conditioning: Conditioning, theirs: Reference | None
    ) -> list[Figure]:
        if conditioning.channels is None and conditioning.first_frame is None:
            return []
        request, ratio = self._request, None
        if theirs is not None and theirs.encode is not None:
            ratio = encoding / theirs.encode[0]
        operations = None
        if self._work is not None:
            frames = request.num_frames if conditioning.channels is not None else 1
            operations = encode_operations(self.resolution.spec, request.width, request.height, frames) / 1e12
        note = "prompts and pictures as a warm request has them; the arithmetic is that of encoding every frame"
        return [Figure("prompts and pictures, warm", encoding, operations, self._peak("condition"), None, ratio, note)]

    def _step(self, run: Run, error: float | None, theirs: Reference | None) -> Figure:
        work = self._work
        operations = None if work is None else work.passes * sum(work.forward_operations()) / 1e12
        ratio = None if theirs is None else run.step / theirs.step[0]
        return Figure("step", run.step, operations, self._peak("denoise"), error, ratio)

    def _decode(self, decoded: tuple[float, float | None], error: float | None, theirs: Reference | None) -> Figure:
        request, operations = self._request, None
        if self._work is not None:
            size = (request.width, request.height, request.num_frames)
            operations = decode_operations(self.resolution.spec, *size) / 1e12
        ratio = None if theirs is None else decoded[0] / theirs.decode[0]
        return Figure("decode", decoded[0], operations, decoded[1], error, ratio)

    def _peak(self, stage: Stage) -> float | None:
        found = self.listening.peaks.get(stage)
        return None if found is None else found / GIB

    def _official(self, run: Run) -> list[Figure]:
        """What the model's own number of steps comes to, where fewer were run."""
        steps = self.resolution.spec.steps
        if steps <= len(run.steps):
            return []
        seconds = run.total + (steps - len(run.steps)) * run.step
        return [Figure(f"request of {steps} steps", seconds, note="predicted from the above")]


def _told(run: Run) -> str:
    """For whoever waits."""
    steps = ", ".join(f"{seconds:.2f}" for seconds in run.steps)
    return (
        f"{run.total:.1f} s: load {run.load:.1f}, encode {run.encode:.2f}, steps {steps}, frames {run.decode:.2f}, "
        f"file {run.export - run.decode:.2f} ({run.plan})"
    )
