"""resolve: from what was asked to exactly what will run, with every difference reported.

Knows nothing of devices, files or time. The only place where sizes and frame counts are snapped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, cast

from wanreel.core.catalog import Catalog, Mode, ModelSpec, preset_steps
from wanreel.core.errors import InvalidRequest, Problem, UnknownModel
from wanreel.core.picture import PictureRef
from wanreel.core.request import LoraRef, OutputFormat, Quality, Solver, VideoRequest
from wanreel.core.sizes import Frame, frame_for

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Adjustment:
    """One difference between what was asked and what runs, or one choice made for the user."""

    field: str
    asked: object  #: None when nothing was asked
    used: object
    reason: str

    def __str__(self) -> str:
        change = f"{self.asked} → {self.used}" if self.asked is not None else f"{self.used}"
        return f"{self.field}: {change} ({self.reason})"

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRequest:
    """A request with nothing left open. Equal values on equal software and hardware give equal bytes."""

    prompt: str
    negative_prompt: str
    model: str
    mode: Mode
    image: PictureRef | None
    last_image: PictureRef | None
    width: int  #: px generated
    height: int
    export_width: int  #: px in the file; smaller than generated where the centre is cropped out
    export_height: int
    num_frames: int
    fps: float  #: of playback
    num_inference_steps: int
    guidance_high: float
    guidance_low: float  #: equal to guidance_high for one-expert models
    flow_shift: float
    solver: Solver
    seed: int  #: 0 or more
    loras: tuple[LoraRef, ...]
    output_format: OutputFormat
    quality: Quality
    metadata: bool

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return cast("dict[str, object]", asdict(self) | {"loras": [asdict(lora) for lora in self.loras]})

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ResolvedRequest:
        """The inverse of `to_dict`. Raises KeyError or TypeError on foreign data."""
        values = dict(cast("Mapping[str, Any]", data))
        for name in ("image", "last_image"):
            values[name] = PictureRef.from_dict(values[name]) if values[name] else None
        values["loras"] = tuple(LoraRef(**lora) for lora in values["loras"])
        return cls(**values)

    def as_request(self) -> VideoRequest:
        """The request that resolves to this one again."""
        return VideoRequest(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            model=self.model,
            image=self.image,
            last_image=self.last_image,
            width=self.export_width,
            height=self.export_height,
            num_frames=self.num_frames,
            fps=self.fps,
            num_inference_steps=self.num_inference_steps,
            guidance_high=self.guidance_high,
            guidance_low=self.guidance_low,
            flow_shift=self.flow_shift,
            solver=self.solver,
            seed=self.seed,
            loras=self.loras,
            output_format=self.output_format,
            quality=self.quality,
            metadata=self.metadata,
        )


@dataclass(frozen=True, slots=True)
class Resolution:
    """What will run, and how it differs from what was asked."""

    request: ResolvedRequest
    spec: ModelSpec
    adjustments: tuple[Adjustment, ...]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator's settings and the machine say about models."""

    model_for: Mapping[Mode, str]  #: the default model of each mode
    installed: frozenset[str]  #: names whose weights are here
    fallback: str = "demo"  #: used where the default is not installed


def resolve(
    request: VideoRequest,
    catalog: Catalog,
    defaults: Defaults,
    draw_seed: Callable[[], int] = lambda: secrets.randbelow(2**32),
) -> Resolution:
    """Fill in everything from preset and model. Raises InvalidRequest naming every problem at once."""
    return _Resolver(request, catalog, defaults, draw_seed).run()


def mode_of(request: VideoRequest) -> Mode:
    """What kind of video the pictures given ask for."""
    if request.last_image is not None:
        return "first_last"
    return "picture" if request.image is not None else "text"


@dataclass
class _Resolver:
    """Collects problems and adjustments while the request is filled in, one concern a method."""

    request: VideoRequest
    catalog: Catalog
    defaults: Defaults
    draw_seed: Callable[[], int]
    problems: list[Problem] = field(default_factory=list[Problem])
    adjustments: list[Adjustment] = field(default_factory=list[Adjustment])

    def run(self) -> Resolution:
        self.problems.extend(self.request.problems())
        spec = self._spec()
        if spec is not None:
            self._check_mode(spec)
            self._check_solver(spec)
        self._check_contradictions()
        if spec is None or self.problems:
            raise InvalidRequest(*self.problems)
        frame = self._frame(spec)
        high, low = self._guidance(spec)
        resolved = ResolvedRequest(
            prompt=self.request.prompt,
            negative_prompt=_or(self.request.negative_prompt, spec.negative_prompt),
            model=spec.name,
            mode=mode_of(self.request),
            image=self.request.image,
            last_image=self.request.last_image,
            width=frame.width,
            height=frame.height,
            export_width=frame.export_width,
            export_height=frame.export_height,
            num_frames=self._num_frames(spec),
            fps=float(self._fps(spec)),
            num_inference_steps=self._steps(spec),
            guidance_high=float(high),
            guidance_low=float(low),
            flow_shift=self._flow_shift(spec, frame),
            solver=_or(self.request.solver, spec.solver),
            seed=self._seed(),
            loras=_or(self.request.loras, ()),
            output_format=_or(self.request.output_format, "mp4"),
            quality=_or(self.request.quality, "high"),
            metadata=_or(self.request.metadata, True),
        )
        if self.problems:
            raise InvalidRequest(*self.problems)
        return Resolution(resolved, spec, tuple(self.adjustments))

    def _spec(self) -> ModelSpec | None:
        if self.request.model is not None:
            try:
                return self.catalog.get(self.request.model)
            except UnknownModel as error:
                self.problems.extend(error.problems)
                return None
        return self._default_spec(mode_of(self.request))

    def _default_spec(self, mode: Mode) -> ModelSpec | None:
        wanted = self.defaults.model_for.get(mode, self.defaults.fallback)
        if wanted in self.defaults.installed:
            self._note("model", None, wanted, f"the default for {mode.replace('_', ' and ')}")
            return self.catalog.get(wanted)
        fallback = self.catalog.get(self.defaults.fallback)
        if mode not in fallback.modes:
            self.problems.append(
                Problem(
                    "model",
                    "not_installed",
                    f"{wanted}, the default here, is not installed.",
                    "Install it, or name a model.",
                )
            )
            return None
        self._note("model", None, fallback.name, f"{wanted}, the default here, is not installed")
        return fallback

    def _check_mode(self, spec: ModelSpec) -> None:
        mode = mode_of(self.request)
        if self.request.last_image is not None and self.request.image is None:
            self.problems.append(
                Problem("image", "required", "a last frame was given without a first one.", "Give both.")
            )
        elif mode in spec.modes:
            return
        elif mode == "text":
            self.problems.append(
                Problem("image", "required", f"{spec.name} starts from a picture.", "Give one, or choose a text model.")
            )
        elif mode == "picture" and "first_last" in spec.modes:
            self.problems.append(
                Problem("last_image", "required", f"{spec.name} needs the last frame too.", "Give one.")
            )
        elif mode == "first_last" and "picture" in spec.modes:
            hint = "Leave it out, or choose flf2v-14b-720p."
            self.problems.append(Problem("last_image", "contradiction", f"{spec.name} takes no last frame.", hint))
        else:
            hint = "Leave the picture out, or choose a model that starts from one."
            self.problems.append(Problem("image", "contradiction", f"{spec.name} makes video from text alone.", hint))

    def _check_solver(self, spec: ModelSpec) -> None:
        solver = self.request.solver
        if solver is not None and solver not in spec.solvers:
            self.problems.append(
                Problem(
                    "solver",
                    "contradiction",
                    f"{spec.name} does not run with {solver}.",
                    f"Choose {' | '.join(spec.solvers)}.",
                )
            )
        if self.request.preset == "fast" and spec.fast_steps is None:
            hint = "Choose fastwan2.1-t2v-1.3b or fastwan2.2-ti2v-5b, or another preset."
            self.problems.append(
                Problem("preset", "contradiction", f"{spec.name} has no few-step mode of its own.", hint)
            )
        steps = self.request.num_inference_steps
        if spec.few_step and steps is not None and steps != spec.steps:
            self.problems.append(
                Problem(
                    "num_inference_steps",
                    "contradiction",
                    f"{spec.name} runs {spec.steps} fixed steps, not {steps}.",
                    "Leave it out.",
                )
            )

    def _check_contradictions(self) -> None:
        asked = self.request
        if asked.resolution is not None and (asked.width is not None or asked.height is not None):
            self.problems.append(
                Problem("resolution", "contradiction", "was given beside width or height.", "Give one or the other.")
            )
        if asked.seconds is not None and asked.num_frames is not None:
            self.problems.append(
                Problem("seconds", "contradiction", "was given beside num_frames.", "Give one or the other.")
            )
        if asked.loras:
            self.problems.append(
                Problem("loras", "unsupported", "LoRAs can't be applied in this version.", "Leave them out.")
            )

    def _frame(self, spec: ModelSpec) -> Frame:
        frame, notes = frame_for(spec, self.request)
        for name, asked, used, reason in notes:
            self._note(name, asked, used, reason)
        return frame

    def _num_frames(self, spec: ModelSpec) -> int:
        asked: object = self.request.num_frames
        wanted = self.request.num_frames
        if self.request.seconds is not None:
            asked = f"{self.request.seconds:g} s"
            wanted = round(self.request.seconds * spec.fps)
        if wanted is None:
            return spec.num_frames
        stride = spec.temporal_stride
        frames = max(0, (wanted - 1 + stride // 2) // stride) * stride + 1
        if spec.hard_max_frames is not None and frames > spec.hard_max_frames:
            self._note("num_frames", asked, spec.hard_max_frames, f"the most that {spec.name} makes")
            return spec.hard_max_frames
        if self.request.seconds is not None:
            self._note(
                "num_frames", asked, frames, f"{frames / spec.fps:.2f} s at {spec.fps:g} frames/s, {stride}n+1 frames"
            )
        elif frames != wanted:
            self._note("num_frames", asked, frames, f"{stride}n+1")
        if frames > spec.max_frames:
            self._note(
                "num_frames",
                asked,
                frames,
                f"{spec.name} was trained for {spec.max_frames}; longer clips may flicker or loop",
            )
        return frames

    def _fps(self, spec: ModelSpec) -> float:
        asked = self.request.fps
        if asked is None or asked == spec.fps:
            return spec.fps
        speed = asked / spec.fps
        self._note(
            "fps", asked, asked, f"{spec.name} moves at {spec.fps:g} frames/s, so this plays {speed:.3g} times as fast"
        )
        return asked

    def _steps(self, spec: ModelSpec) -> int:
        asked, preset = self.request.num_inference_steps, self.request.preset
        if asked is not None:
            return asked
        steps = preset_steps(spec, preset or "standard")
        if steps is None:
            if preset is not None:
                self._note("preset", preset, "fast", f"{spec.name} always runs {spec.steps} steps")
            return spec.steps
        return steps

    def _guidance(self, spec: ModelSpec) -> tuple[float, float]:
        asked = self.request
        both = asked.guidance_scale
        default_high, default_low = spec.default_guidance(picture=asked.image is not None)
        high = _or(asked.guidance_high, _or(both, default_high))
        if not spec.two_experts:
            if asked.guidance_low is not None and asked.guidance_low != high:
                self._note("guidance_low", asked.guidance_low, high, f"{spec.name} has one expert")
            return high, high
        low = _or(asked.guidance_low, _or(both, default_low))
        if both is not None and asked.guidance_high is None and asked.guidance_low is None:
            self._note("guidance_scale", both, f"high {high:g}, low {low:g}", "sets both experts")
        return high, low

    def _flow_shift(self, spec: ModelSpec, frame: Frame) -> float:
        asked = self.request.flow_shift
        if asked is not None and _or(self.request.solver, spec.solver) == "dmd":
            # Its timesteps are fixed in a table of their own (see generation/solvers.py).
            self._note("flow_shift", asked, frame.flow_shift, "dmd has fixed timesteps; the shift changes nothing")
            return float(frame.flow_shift)
        return float(_or(asked, frame.flow_shift))

    def _seed(self) -> int:
        asked = self.request.seed
        if asked is not None and asked >= 0:
            return asked
        drawn = self.draw_seed()
        self._note("seed", asked, drawn, "drawn")
        return drawn

    def _note(self, name: str, asked: object, used: object, reason: str) -> None:
        self.adjustments.append(Adjustment(name, asked, used, reason))


def _or(asked: T | None, otherwise: T) -> T:
    return otherwise if asked is None else asked
