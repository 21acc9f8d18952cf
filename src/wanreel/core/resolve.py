"""resolve: from what was asked to exactly what will run, with every difference reported.

Knows nothing of devices, files or time. The only place where sizes and frame counts are snapped.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wanreel.core.catalog import Catalog, Mode, ModelSpec
from wanreel.core.compute import Compute
from wanreel.core.destination import LOCAL
from wanreel.core.edit_models import DEFAULT_EDIT
from wanreel.core.errors import InvalidRequest, UnknownModel
from wanreel.core.few_step import FewStepRecipe, recipes_for
from wanreel.core.finishing import FINISHING_KNOBS, Finishing
from wanreel.core.keyframe import keyframe_of, shown_size
from wanreel.core.lora import LoraFacts, LoraRef, ResolvedLora
from wanreel.core.lora_wishes import Judge, LoraWishes
from wanreel.core.modes import mode_of, mode_problems
from wanreel.core.picture_request import ResolvedPicture
from wanreel.core.presets import preset_steps
from wanreel.core.prompt_help.asked import Prompt, PromptAsked
from wanreel.core.request import Solver, VideoRequest
from wanreel.core.resolved import Resolution, ResolvedRequest
from wanreel.core.resolving import Resolving, given
from wanreel.core.sizes import Frame, frame_for
from wanreel.core.upscaler import LANCZOS, UpscalerRef
from wanreel.core.wishes import OnOom, Wishes

#: Solvers with fixed timesteps, and how many they have (see generation/solvers.py).
FIXED_STEPS: Mapping[Solver, int] = {"dmd": 3, "distill": 4}


def _no_loras(ref: LoraRef, spec: ModelSpec) -> LoraFacts:
    raise InvalidRequest.of("loras", "no_lora", f"there is no LoRA {ref.name!r} for {spec.name} here.")


def _no_upscaler(name: str) -> UpscalerRef:
    raise InvalidRequest.of("upscaler", "no_upscaler", f"there is no upscaler {name!r} here.")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator's settings and the machine say about models."""

    model_for: Mapping[Mode, str]  #: the default model of each mode
    installed: frozenset[str]  #: names whose weights are here
    fallback: str = "demo"  #: used where the default is not installed
    lora_names: tuple[str, ...] = ()  #: of the LoRAs on the shelf
    lora: Judge = _no_loras
    wishes: Wishes = Wishes()  #: the operator's, which requests keep to
    on_oom: OnOom = "fail"
    compute: Compute = "exact"
    edit_model: str = DEFAULT_EDIT  #: of keyframes that name none
    #: What a network that enlarges is, by name. Raises InvalidRequest.
    upscaler: Callable[[str], UpscalerRef] = _no_upscaler
    storages: tuple[str, ...] = ()  #: the operator's storage profiles
    storage: str = ""  #: the one for requests that name none


def resolve(
    request: VideoRequest,
    catalog: Catalog,
    defaults: Defaults,
    draw_seed: Callable[[], int] = lambda: secrets.randbelow(2**32),
) -> Resolution:
    """Fill in everything from preset and model. Raises InvalidRequest naming every problem at once."""
    return _Resolver(request=request, catalog=catalog, defaults=defaults, draw_seed=draw_seed).run()


@dataclass(kw_only=True)
class _Resolver(Resolving):
    """Fills in the request, one concern a method."""

    request: VideoRequest
    catalog: Catalog
    defaults: Defaults
    recipe: FewStepRecipe | None = None  #: of a few-step preset, and the LoRAs it takes
    recipe_loras: tuple[LoraRef, ...] = ()

    def run(self) -> Resolution:
        self.problems.extend(self.request.problems())
        spec = self._spec()
        if spec is not None:
            self.problems.extend(mode_problems(self.request, spec))
            self._choose_recipe(spec)
            self._check_solver(spec)
        self._check_contradictions()
        self.problems.extend(self.defaults.wishes.problems(self.request.memory))
        storage = self._storage()
        if spec is None or self.problems:
            raise InvalidRequest(*self.problems)
        seed = self.seed(self.request.seed)
        keyframe = self._keyframe(seed)
        frame = self._frame(spec, keyframe)
        prompt = self._prompt(seed)
        high, low = self._guidance(spec)
        resolved = ResolvedRequest(
            prompt=prompt.text,
            original_prompt=prompt.original,
            negative_prompt=given(self.request.negative_prompt, spec.negative_prompt),
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
            solver=self._solver(spec),
            seed=seed,
            keyframe=keyframe,
            loras=self._loras(spec),
            output_format=given(self.request.output_format, "mp4"),
            quality=given(self.request.quality, "high"),
            metadata=given(self.request.metadata, True),
            guided_steps=given(self.request.guided_steps, self.recipe.guided_steps if self.recipe else 0),
            boundary_ratio=self._boundary(spec),
            memory_mode=self.request.memory_mode,
            precision=self.request.precision,
            offload=self.request.offload,
            vae_tile=self.request.vae_tile,
            quantize=self.request.quantize,
            on_oom=given(self.request.on_oom, self.defaults.on_oom),
            compute=given(self.request.compute, self.defaults.compute),
        )
        resolved = self._finished(resolved)
        if self.problems:
            raise InvalidRequest(*self.problems)
        return Resolution(resolved, spec, tuple(self.adjustments), storage)

    def _finished(self, resolved: ResolvedRequest) -> ResolvedRequest:
        """With the stages asked for, and what of them can't be done with such a video."""
        asked = {name: value for name in FINISHING_KNOBS if (value := getattr(self.request, name)) is not None}
        given: dict[str, Any] = {name: float(it) if isinstance(it, int) else it for name, it in asked.items()}
        given |= self._upscaler(given)
        finishing, length = Finishing(**given), resolved.num_frames / resolved.fps
        if finishing.trim_end is not None and finishing.trim_end >= length:
            self.note("trim_end", finishing.trim_end, f"{length:.4g}", "the video is no longer")
            finishing = replace(finishing, trim_end=None)
        if finishing.interpolate_fps is not None and finishing.pace(resolved.fps) >= 1:
            self.note("interpolate_fps", finishing.interpolate_fps, finishing.interpolate_fps, "nothing lies between")
        size = (resolved.export_width, resolved.export_height)
        self.problems.extend(finishing.problems(resolved.num_frames, resolved.fps, *size, resolved.output_format))
        return replace(resolved, finishing=finishing)

    def _upscaler(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The network that enlarges and the factor, which is its own where none was asked for."""
        name, factor = asked.get("upscaler") or LANCZOS, asked.get("upscale")
        if name == LANCZOS:
            return {"upscaler": None}
        if factor == 1:
            self.note("upscaler", name, LANCZOS, "nothing is enlarged")
            return {"upscaler": None}
        try:
            found = self.defaults.upscaler(name)
        except InvalidRequest as error:
            self.problems.extend(error.problems)
            return {"upscaler": None}
        if factor is None:
            self.note("upscale", None, found.scale, f"as {name} does")
        elif factor != found.scale:
            self.note("upscaler", None, name, f"it makes {found.scale} times of it, and Lanczos' filter the rest")
        return {"upscaler": found, "upscale": float(given(factor, found.scale))}

    def _storage(self) -> str:
        """The profile that the result goes to. One that is not there is a problem."""
        name = given(self.request.storage, self.defaults.storage)
        if name and name != LOCAL and name not in self.defaults.storages:
            known = " | ".join((*self.defaults.storages, LOCAL))
            self.wrong("storage", "unknown_value", "there is no such profile.", f"Choose {known}.")
        return "" if name == LOCAL else name

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
            self.note("model", None, wanted, f"the default for {mode.replace('_', ' and ')}")
            return self.catalog.get(wanted)
        fallback = self.catalog.get(self.defaults.fallback)
        if mode not in fallback.modes:
            self.wrong(
                "model",
                "not_installed",
                f"{wanted}, the default here, is not installed.",
                "Install it, or name a model.",
            )
            return None
        self.note("model", None, fallback.name, f"{wanted}, the default here, is not installed")
        return fallback

    def _choose_recipe(self, spec: ModelSpec) -> None:
        """What a few-step preset means for a model that has no such mode by itself."""
        preset = self.request.preset
        if preset not in ("fast", "motion") or (preset == "fast" and spec.fast_steps is not None):
            return
        recipes = list(recipes_for(spec, preset))
        for recipe, pair in ((one, two) for one in recipes for two in one.pairs):
            found = pair.find(self.defaults.lora_names)
            if found is not None:
                schedules = (recipe.high_schedule, "")[: len(found)]
                self.recipe = recipe
                self.recipe_loras = tuple(LoraRef(name, schedule=text) for name, text in zip(found, schedules))
                self.note("preset", preset, f"{recipe.steps} steps", f"with {' and '.join(found)}")
                return
        if recipes:
            text = f"{preset} on {spec.name} needs LoRAs that are not here."
            where = "; or ".join(pair.where for pair in recipes[0].pairs)
            hint = f"Download them and run `wanreel loras add FILE` for each: {where}."
            self.wrong("preset", "not_installed", text, hint)
        else:
            hint = "Choose fastwan2.1-t2v-1.3b or fastwan2.2-ti2v-5b, or another preset."
            text = f"{spec.name} has no such few-step mode."
            self.wrong("preset", "contradiction", text, hint)

    def _check_solver(self, spec: ModelSpec) -> None:
        solver = self.request.solver
        # A few-step LoRA may bring its solver, under whatever name the file has.
        allowed = (*spec.solvers, *(FIXED_STEPS if self.request.loras else ()))
        if solver is not None and solver not in allowed:
            self.wrong(
                "solver",
                "contradiction",
                f"{spec.name} does not run with {solver}.",
                f"Choose {' | '.join(spec.solvers)}.",
            )
        steps, fixed = self.request.num_inference_steps, self._fixed_steps(spec)
        if fixed is not None and steps is not None and steps != fixed:
            self.wrong(
                "num_inference_steps",
                "contradiction",
                f"{spec.name} with {self._solver(spec)} runs {fixed} fixed steps, not {steps}.",
                "Leave it out.",
            )

    def _solver(self, spec: ModelSpec) -> Solver:
        return given(self.request.solver, self.recipe.solver if self.recipe else spec.solver)

    def _fixed_steps(self, spec: ModelSpec) -> int | None:
        return spec.steps if spec.few_step else FIXED_STEPS.get(self._solver(spec))

    def _boundary(self, spec: ModelSpec) -> float | None:
        asked = self.request.boundary_ratio
        if spec.two_experts:
            return given(asked, (self.recipe.boundary_ratio if self.recipe else None) or spec.boundary_ratio)
        if asked is not None:
            self.note("boundary_ratio", asked, None, f"{spec.name} has one expert")
        return None

    def _loras(self, spec: ModelSpec) -> tuple[ResolvedLora, ...]:
        """The LoRAs asked for, then those of the recipe."""
        asked = self.request.loras or ()
        named = {ref.name for ref in asked}
        refs = (*asked, *(ref for ref in self.recipe_loras if ref.name not in named))
        return LoraWishes(refs, spec, self.defaults.lora, self).resolved()

    def _check_contradictions(self) -> None:
        asked = self.request
        if asked.resolution is not None and (asked.width is not None or asked.height is not None):
            self.wrong("resolution", "contradiction", "was given beside width or height.", "Give one or the other.")
        if asked.seconds is not None and asked.num_frames is not None:
            self.wrong("seconds", "contradiction", "was given beside num_frames.", "Give one or the other.")

    def _prompt(self, seed: int) -> Prompt:
        """The prompt that runs. Raises InvalidRequest."""
        asked = self.request
        from_picture = asked.image is not None
        prompt = PromptAsked(asked.prompt, asked.original_prompt, asked.wildcards, asked.enhance, from_picture)
        found = prompt.resolved(seed)
        self.adjustments += found.adjustments
        return found

    def _keyframe(self, seed: int) -> ResolvedPicture | None:
        """The edit that comes first, its picture still open. What is wrong with it is a problem."""
        asked = self.request
        if asked.edit_prompt is None:
            if asked.edit_model is not None:
                self.note("edit_model", asked.edit_model, None, "no edit_prompt was given")
            return None
        if asked.image is None:
            raise InvalidRequest.of("image", "required", "edit_prompt changes a picture.", "Give one.")
        try:
            found = keyframe_of(asked, self.catalog.picture, seed, self.defaults.edit_model)
        except InvalidRequest as error:
            names = {"prompt": "edit_prompt", "model": "edit_model"}
            problems = [replace(it, field=names.get(it.field, it.field)) for it in error.problems]
            raise InvalidRequest(*problems) from error
        if asked.edit_model is None:
            self.note("edit_model", None, found.spec.name, "the default")
        return replace(found.request, image=None)

    def _frame(self, spec: ModelSpec, keyframe: ResolvedPicture | None) -> Frame:
        """The size; of a keyframe's shape, where there is one."""
        asked = self.request
        if keyframe is not None and asked.image is not None:
            width, height = shown_size(keyframe)
            asked = replace(asked, image=replace(asked.image, width=width, height=height))
        frame, notes = frame_for(spec, asked)
        for name, asked, used, reason in notes:
            self.note(name, asked, used, reason)
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
            self.note("num_frames", asked, spec.hard_max_frames, f"the most that {spec.name} makes")
            return spec.hard_max_frames
        if self.request.seconds is not None:
            self.note(
                "num_frames", asked, frames, f"{frames / spec.fps:.2f} s at {spec.fps:g} frames/s, {stride}n+1 frames"
            )
        elif frames != wanted:
            self.note("num_frames", asked, frames, f"{stride}n+1")
        if frames > spec.max_frames:
            self.note(
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
        self.note(
            "fps", asked, asked, f"{spec.name} moves at {spec.fps:g} frames/s, so this plays {speed:.3g} times as fast"
        )
        return asked

    def _steps(self, spec: ModelSpec) -> int:
        asked, preset = self.request.num_inference_steps, self.request.preset
        if asked is not None:
            return asked
        if self.recipe is not None:
            return self.recipe.steps
        fixed = None if spec.few_step else self._fixed_steps(spec)
        if fixed is not None:
            return fixed
        steps = preset_steps(spec, preset or "standard")
        if steps is None:
            if preset is not None:
                self.note("preset", preset, "fast", f"{spec.name} always runs {spec.steps} steps")
            return spec.steps
        return steps

    def _guidance(self, spec: ModelSpec) -> tuple[float, float]:
        asked = self.request
        both = asked.guidance_scale
        default_high, default_low = spec.default_guidance(picture=asked.image is not None)
        if self.recipe is not None:
            default_high = default_low = 1.0  # it is distilled into the LoRAs
        high = given(asked.guidance_high, given(both, default_high))
        if not spec.two_experts:
            if asked.guidance_low is not None and asked.guidance_low != high:
                self.note("guidance_low", asked.guidance_low, high, f"{spec.name} has one expert")
            return high, high
        low = given(asked.guidance_low, given(both, default_low))
        if both is not None and asked.guidance_high is None and asked.guidance_low is None:
            self.note("guidance_scale", both, f"high {high:g}, low {low:g}", "sets both experts")
        return high, low

    def _flow_shift(self, spec: ModelSpec, frame: Frame) -> float:
        asked = self.request.flow_shift
        if asked is not None and self._solver(spec) == "dmd":
            # Its timesteps are fixed in a table of their own (see generation/solvers.py).
            self.note("flow_shift", asked, frame.flow_shift, "dmd has fixed timesteps; the shift changes nothing")
            return float(frame.flow_shift)
        return float(given(asked, self.recipe.flow_shift if self.recipe else frame.flow_shift))
