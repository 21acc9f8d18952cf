"""PictureRequest: what may be asked of the picture stage, and what then runs. Knows no files, devices or time.

One request makes one picture or several: from words, or from a picture and words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from wanreel.core.errors import Problem
from wanreel.core.finishing import Shape
from wanreel.core.knobs import MAX_SEED, KnobTable, knob, prompt_knob
from wanreel.core.picture import PictureRef
from wanreel.core.picture_models import PictureSolver

PictureTask = Literal["image", "edit"]
IMAGE: Literal["image"] = "image"  #: the mode of a job that makes pictures
LEAST_SIDE = 64  #: px of a side
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
    width: int | None = knob("integer", "Exact width.", unit="px", minimum=LEAST_SIDE, maximum=4096, group="size")
    height: int | None = knob("integer", "Exact height.", unit="px", minimum=LEAST_SIDE, maximum=4096, group="size")
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
