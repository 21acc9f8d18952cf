"""resolve_picture: from a picture as asked to exactly what will run, with every difference reported.

Knows nothing of files, devices or time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from wanreel.core.adjustment import Adjustment
from wanreel.core.edit_models import DEFAULT_EDIT
from wanreel.core.errors import InvalidRequest
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import LEAST_SIDE, PictureRequest, ResolvedPicture
from wanreel.core.prompt_help.asked import Prompt, PromptAsked
from wanreel.core.resolving import Resolving, given


@dataclass(frozen=True, slots=True)
class PictureResolution:
    """What will run, and how it differs from what was asked."""

    request: ResolvedPicture
    spec: PictureSpec
    adjustments: tuple[Adjustment, ...]
    refiner: PictureSpec | None = None


def resolve_picture(
    request: PictureRequest,
    find: Callable[[str], PictureSpec],
    default: str,
    draw_seed: Callable[[], int] = lambda: secrets.randbelow(2**32),
    *,
    default_edit: str = DEFAULT_EDIT,
) -> PictureResolution:
    """Fill in everything from the model, which `find` knows by name. Raises InvalidRequest naming every problem.

    `default_edit`: the model of requests that edit and name none.
    """
    edit = request.mode == "edit"
    chosen = default_edit if edit else default
    return _Resolver(request=request, find=find, default=chosen, draw_seed=draw_seed, edit=edit).run()


@dataclass(kw_only=True)
class _Resolver(Resolving):
    """Fills in the request, one concern a method."""

    request: PictureRequest
    find: Callable[[str], PictureSpec]
    default: str
    edit: bool

    def run(self) -> PictureResolution:
        asked = self.request
        self.problems.extend(asked.problems())
        spec = self._spec(asked.model or self.default)
        if spec is None or self.problems:
            raise InvalidRequest(*self.problems)
        self._check(spec)
        refiner = self._refiner(spec)
        width, height = self._size(spec)
        steps, seed = given(asked.num_inference_steps, spec.steps), self.seed(self.request.seed)
        prompt = self._prompt(seed)
        resolved = ResolvedPicture(
            prompt=prompt.text,
            original_prompt=prompt.original,
            negative_prompt=asked.negative_prompt,
            model=spec.name,
            image=asked.image,
            strength=float(given(asked.strength, spec.strength)),
            width=_up(width, spec.size_multiple),
            height=_up(height, spec.size_multiple),
            export_width=width,
            export_height=height,
            num_images=given(asked.num_images, 1),
            num_inference_steps=steps,
            guidance_scale=float(given(asked.guidance_scale, spec.guidance)),
            solver=given(asked.solver, spec.solver),
            seed=seed,
            refiner=refiner.name if refiner else None,
            refiner_inference_steps=given(asked.refiner_inference_steps, 0),
            high_noise_frac=asked.high_noise_frac if refiner else None,
            metadata=given(asked.metadata, True),
        )
        if self.problems:
            raise InvalidRequest(*self.problems)
        return PictureResolution(resolved, spec, tuple(self.adjustments), refiner)

    def _prompt(self, seed: int) -> Prompt:
        asked = PromptAsked(self.request.prompt, self.request.original_prompt, self.request.wildcards)
        prompt = asked.resolved(seed)
        self.adjustments += prompt.adjustments
        return prompt

    def _spec(self, name: str) -> PictureSpec | None:
        try:
            return self.find(name)
        except InvalidRequest as error:
            self.problems.extend(error.problems)
            return None

    def _check(self, spec: PictureSpec) -> None:
        asked, edits = self.request, "edit" in spec.modes
        if asked.image is None and "text" not in spec.modes:
            hint = "Give a picture, or choose sdxl-base."
            self.wrong("image", "required", f"{spec.name} starts from a picture.", hint)
        if edits and asked.strength not in (None, spec.strength):
            text = f"{spec.name} changes what the prompt says and nothing by degrees."
            self.wrong("strength", "contradiction", text, "Leave it out.")
        if self.edit and not edits:
            text = f"{spec.name} changes no pictures by instruction."
            self.wrong("model", "contradiction", text, f"Leave it out, or choose {self.default}.")
        elif asked.image is not None and not edits and "picture" not in spec.modes:
            text = f"{spec.name} makes pictures from text alone."
            self.wrong("image", "contradiction", text, "Leave the picture out.")
        if asked.solver is not None and asked.solver not in spec.solvers:
            hint = f"Choose {' | '.join(spec.solvers)}."
            self.wrong("solver", "contradiction", f"{spec.name} does not run with {asked.solver}.", hint)
        if asked.strength is not None and asked.image is None and not asked.refiner_inference_steps:
            self.note("strength", asked.strength, None, "there is no picture to begin with")

    def _refiner(self, spec: PictureSpec) -> PictureSpec | None:
        steps, share = self.request.refiner_inference_steps, self.request.high_noise_frac
        if not steps:
            if share is not None:
                self.note("high_noise_frac", share, None, "no refiner was asked for")
            return None
        if spec.refiner is None:
            text = f"{spec.name} has no refiner."
            self.wrong("refiner_inference_steps", "contradiction", text, "Leave it out.")
            return None
        return self._spec(spec.refiner)

    def _size(self, spec: PictureSpec) -> tuple[int, int]:
        """(width, height) of the file, as asked; a side left out follows the picture, or else the model's own shape."""
        asked, picture = self.request, self.request.image
        width, height = asked.width, asked.height
        shape = (picture.width, picture.height) if picture is not None else (spec.width, spec.height)
        if width is None and height is None:
            width, height = self._area(spec, shape)
        elif width is None:
            width = max(LEAST_SIDE, round(given(height, 0) * shape[0] / shape[1]))
        elif height is None:
            height = max(LEAST_SIDE, round(width * shape[1] / shape[0]))
        chosen = (width, given(height, 0))
        if max(chosen) > spec.max_side:
            text = f"{chosen[0]}×{chosen[1]} px is more than {spec.name} makes ({spec.max_side} px a side)."
            self.wrong("width", "out_of_range", text, "Ask for less.")
        area, own = chosen[0] * chosen[1], spec.width * spec.height
        if not own / 2 <= area <= own * 1.5 and not self.problems:
            self.note(
                "width",
                f"{chosen[0]}×{chosen[1]}",
                f"{chosen[0]}×{chosen[1]}",
                f"{spec.name} was trained at {spec.width}×{spec.height}; things may be doubled or coarse",
            )
        return chosen

    def _area(self, spec: PictureSpec, shape: tuple[int, int]) -> tuple[int, int]:
        """The model's area in the shape of the picture."""
        if shape[0] * spec.height == shape[1] * spec.width:
            return spec.width, spec.height
        scale = (spec.width * spec.height / (shape[0] * shape[1])) ** 0.5
        unit = spec.area_multiple
        sides = tuple(min(spec.max_side, max(LEAST_SIDE, unit * round(side * scale / unit))) for side in shape)
        self.note("width", None, f"{sides[0]}×{sides[1]}", "the picture's shape at the model's area")
        return sides[0], sides[1]


def _up(side: int, unit: int) -> int:
    return -(-side // unit) * unit
