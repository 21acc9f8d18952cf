"""PictureRequest: what may be asked of the picture stage, and what then runs. Knows no files, devices or time.

One request makes one picture or several: from words, or from a picture and words.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

from wanreel.core.adjustment import Adjustment
from wanreel.core.edit_models import DEFAULT_EDIT
from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.finishing import Shape
from wanreel.core.knobs import MAX_SEED, KnobTable, knob, prompt_knob
from wanreel.core.picture import PictureRef
from wanreel.core.picture_models import PictureSolver, PictureSpec
from wanreel.core.prompt_help.asked import Prompt, PromptAsked

T = TypeVar("T")

PictureTask = Literal["image", "edit"]
IMAGE: Literal["image"] = "image"  #: the mode of a job that makes pictures
_LEAST = 64  # px of a side
MAX_PICTURES = 10  #: in one request, as OpenAI's Images API has it


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRequest:
    """A picture as asked. Only the prompt is needed; everything else defaults to the model authors' recipe."""

    prompt: str = prompt_knob("What the picture shows, or what an editing model is to change.")
    original_prompt: str | None = knob(
        "text", "The prompt as it was written, where this one came of it with help; kept in the recipe.", maximum=4000
    )
    wildcards: bool | None = knob("flag", "Draw {red|green|blue} in the prompt by the seed. Yes by default.")
    mode: PictureTask | None = knob(
        "name",
        "edit: the picture given is changed as the prompt says. image, the default: as the model does.",
        choices=get_args(PictureTask),
    )
    negative_prompt: str | None = knob("text", "What to avoid. Nothing by default.", maximum=4000)
    image: PictureRef | None = knob("picture", "The picture to begin with.", aliases=("image_url", "init_image"))
    strength: float | None = knob(
        "number", "How much of the picture given is made anew: 1 is all of it.", minimum=0.01, maximum=1
    )
    model: str | None = knob(
        "name",
        "Which model. sdxl-base by default, or one that changes a picture as the prompt says.",
    )
    width: int | None = knob("integer", "Exact width.", unit="px", minimum=_LEAST, maximum=4096, group="size")
    height: int | None = knob("integer", "Exact height.", unit="px", minimum=_LEAST, maximum=4096, group="size")
    num_images: int | None = knob(
        "integer",
        "How many. Each has the seed after the last one's.",
        minimum=1,
        maximum=MAX_PICTURES,
        aliases=("n", "num_images_per_prompt"),
    )
    num_inference_steps: int | None = knob(
        "integer", "Denoise steps.", minimum=1, maximum=150, aliases=("steps",), group="sampling"
    )
    guidance_scale: float | None = knob(
        "number",
        "How closely the prompt is followed; 1 and less costs half and ignores what to avoid.",
        minimum=0,
        maximum=30,
        aliases=("guidance", "cfg", "true_cfg_scale"),
        group="sampling",
    )
    solver: PictureSolver | None = knob(
        "name", "How steps are taken.", choices=get_args(PictureSolver), aliases=("scheduler",), group="sampling"
    )
    seed: int | None = knob(
        "integer",
        "Same seed, same picture. -1 draws one, which is recorded.",
        minimum=-1,
        maximum=MAX_SEED,
        group="sampling",
    )
    refiner_inference_steps: int | None = knob(
        "integer",
        "Steps of the model's refiner after it; 0, the default, leaves it out.",
        minimum=0,
        maximum=150,
        aliases=("refiner_steps",),
        group="sampling",
    )
    high_noise_frac: float | None = knob(
        "number",
        "Share of the noise that the model itself takes away, the refiner the rest; without it, the finished picture "
        "is refined at `strength`.",
        minimum=0.01,
        maximum=0.99,
        aliases=("denoising_end",),
        group="sampling",
    )
    metadata: bool | None = knob(
        "flag", "Write the whole recipe into the file, so that it can be made again.", group="output"
    )

    def problems(self) -> list[Problem]:
        """Everything wrong with the values by themselves."""
        return PICTURE_KNOBS.problems(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> PictureRequest:
        """A request from loose values, accepting aliases and worker-sdxl's names of schedulers. Raises InvalidRequest."""
        parsed = PICTURE_KNOBS.parse(values)
        solver = parsed.get("solver")
        if solver is not None:
            parsed["solver"] = SCHEDULERS.get(solver, solver)
        return cls(**parsed)


PICTURE_KNOBS = KnobTable(PictureRequest)
#: What runpod-workers/worker-sdxl calls them.
SCHEDULERS: Mapping[str, PictureSolver] = {
    "PNDM": "pndm",
    "KLMS": "lms",
    "DDIM": "ddim",
    "K_EULER": "euler",
    "K_EULER_ANCESTRAL": "euler-a",
    "DPMSolverMultistep": "dpm++",
    "DPMSolverSinglestep": "dpm++-single",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedPicture:
    """A request with nothing left open. Equal values on equal software and hardware give equal bytes."""

    mode: Literal["image"] = IMAGE  #: tells it from a video's in records
    prompt: str
    negative_prompt: str | None  #: None: the model's own empty conditioning
    model: str
    image: PictureRef | None
    strength: float
    width: int  #: px generated
    height: int
    export_width: int  #: px in the file; smaller than generated where the centre is cropped out
    export_height: int
    num_images: int
    num_inference_steps: int
    guidance_scale: float
    solver: PictureSolver
    seed: int  #: of the first picture, 0 or more
    refiner: str | None  #: the model that finishes it
    refiner_inference_steps: int
    high_noise_frac: float | None
    metadata: bool
    original_prompt: str = ""  #: as it was written, where help or wildcards made the prompt of it

    @property
    def total_steps(self) -> int:
        """Of all pictures through all models, but for what single solvers add."""
        own = self.num_inference_steps
        if self.image is not None:
            own = max(1, int(own * self.strength))
        elif self.high_noise_frac is not None:
            own = round(own * self.high_noise_frac)
        return self.num_images * (own + self.second_steps)

    @property
    def second_steps(self) -> int:
        """Of one picture through the refiner."""
        steps, share = self.refiner_inference_steps, self.high_noise_frac
        if not steps or share is not None:
            return round(steps * (1 - (share or 0.0)))
        return max(1, int(steps * self.strength))

    # What a job shows of its result, whatever it makes.

    @property
    def num_frames(self) -> int:
        return 1

    @property
    def fps(self) -> float:
        return 0.0

    @property
    def seconds(self) -> float:
        """A picture does not play."""
        return 0.0

    @property
    def finished(self) -> Shape:
        """What a file of it holds."""
        return Shape(1, 0.0, self.export_width, self.export_height)

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> ResolvedPicture:
        """The inverse of `to_dict`. Raises KeyError or TypeError on foreign data."""
        values = dict(cast("Mapping[str, Any]", data))
        values["image"] = PictureRef.from_dict(values["image"]) if values["image"] else None
        return cls(**values)

    def as_request(self) -> PictureRequest:
        """The request that resolves to this one again."""
        return PictureRequest(
            prompt=self.prompt,
            original_prompt=self.original_prompt or None,
            wildcards=False,
            negative_prompt=self.negative_prompt,
            image=self.image,
            strength=self.strength,
            model=self.model,
            width=self.export_width,
            height=self.export_height,
            num_images=self.num_images,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            solver=self.solver,
            seed=self.seed,
            refiner_inference_steps=self.refiner_inference_steps,
            high_noise_frac=self.high_noise_frac,
            metadata=self.metadata,
        )


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
    return _Resolver(request, find, default_edit if edit else default, draw_seed, edit).run()


@dataclass
class _Resolver:
    """Collects problems and adjustments while the request is filled in, one concern a method."""

    request: PictureRequest
    find: Callable[[str], PictureSpec]
    default: str
    draw_seed: Callable[[], int]
    edit: bool
    problems: list[Problem] = field(default_factory=list[Problem])
    adjustments: list[Adjustment] = field(default_factory=list[Adjustment])

    def run(self) -> PictureResolution:
        asked = self.request
        self.problems.extend(asked.problems())
        spec = self._spec(asked.model or self.default)
        if spec is None or self.problems:
            raise InvalidRequest(*self.problems)
        self._check(spec)
        refiner = self._refiner(spec)
        width, height = self._size(spec)
        steps, seed = _or(asked.num_inference_steps, spec.steps), self._seed()
        prompt = self._prompt(seed)
        resolved = ResolvedPicture(
            prompt=prompt.text,
            original_prompt=prompt.original,
            negative_prompt=asked.negative_prompt,
            model=spec.name,
            image=asked.image,
            strength=float(_or(asked.strength, spec.strength)),
            width=_up(width, spec.size_multiple),
            height=_up(height, spec.size_multiple),
            export_width=width,
            export_height=height,
            num_images=_or(asked.num_images, 1),
            num_inference_steps=steps,
            guidance_scale=float(_or(asked.guidance_scale, spec.guidance)),
            solver=_or(asked.solver, spec.solver),
            seed=seed,
            refiner=refiner.name if refiner else None,
            refiner_inference_steps=_or(asked.refiner_inference_steps, 0),
            high_noise_frac=asked.high_noise_frac if refiner else None,
            metadata=_or(asked.metadata, True),
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
            self.problems.append(Problem("image", "required", f"{spec.name} starts from a picture.", hint))
        if edits and asked.strength not in (None, spec.strength):
            text = f"{spec.name} changes what the prompt says and nothing by degrees."
            self.problems.append(Problem("strength", "contradiction", text, "Leave it out."))
        if self.edit and not edits:
            text = f"{spec.name} changes no pictures by instruction."
            self.problems.append(Problem("model", "contradiction", text, f"Leave it out, or choose {self.default}."))
        elif asked.image is not None and not edits and "picture" not in spec.modes:
            text = f"{spec.name} makes pictures from text alone."
            self.problems.append(Problem("image", "contradiction", text, "Leave the picture out."))
        if asked.solver is not None and asked.solver not in spec.solvers:
            hint = f"Choose {' | '.join(spec.solvers)}."
            self.problems.append(
                Problem("solver", "contradiction", f"{spec.name} does not run with {asked.solver}.", hint)
            )
        if asked.strength is not None and asked.image is None and not asked.refiner_inference_steps:
            self._note("strength", asked.strength, None, "there is no picture to begin with")

    def _refiner(self, spec: PictureSpec) -> PictureSpec | None:
        steps, share = self.request.refiner_inference_steps, self.request.high_noise_frac
        if not steps:
            if share is not None:
                self._note("high_noise_frac", share, None, "no refiner was asked for")
            return None
        if spec.refiner is None:
            text = f"{spec.name} has no refiner."
            self.problems.append(Problem("refiner_inference_steps", "contradiction", text, "Leave it out."))
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
            width = max(_LEAST, round(_or(height, 0) * shape[0] / shape[1]))
        elif height is None:
            height = max(_LEAST, round(width * shape[1] / shape[0]))
        chosen = (width, _or(height, 0))
        if max(chosen) > spec.max_side:
            text = f"{chosen[0]}×{chosen[1]} px is more than {spec.name} makes ({spec.max_side} px a side)."
            self.problems.append(Problem("width", "out_of_range", text, "Ask for less."))
        area, own = chosen[0] * chosen[1], spec.width * spec.height
        if not own / 2 <= area <= own * 1.5 and not self.problems:
            self._note(
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
        sides = tuple(min(spec.max_side, max(_LEAST, unit * round(side * scale / unit))) for side in shape)
        self._note("width", None, f"{sides[0]}×{sides[1]}", "the picture's shape at the model's area")
        return sides[0], sides[1]

    def _seed(self) -> int:
        asked = self.request.seed
        if asked is not None and asked >= 0:
            return asked
        drawn = self.draw_seed()
        self._note("seed", asked, drawn, "drawn")
        return drawn

    def _note(self, name: str, asked: object, used: object, reason: str) -> None:
        self.adjustments.append(Adjustment(name, asked, used, reason))


def _up(side: int, unit: int) -> int:
    return -(-side // unit) * unit


def _or(asked: T | None, otherwise: T) -> T:
    return otherwise if asked is None else asked
