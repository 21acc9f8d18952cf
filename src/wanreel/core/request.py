"""VideoRequest: what a user may ask for, every knob declared once.

Command-line flags, page controls, OpenAPI and worker schemas are derived from the `Knob` on each field. Knows neither
models nor defaults: `None` means "as the model's authors do", and `resolve` fills it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from wanreel.core.compute import Compute
from wanreel.core.errors import Problem
from wanreel.core.finishing import Loop
from wanreel.core.knobs import MAX_SEED, Knob, KnobTable, knob, prompt_knob
from wanreel.core.lora import LoraRef
from wanreel.core.picture import PictureRef
from wanreel.core.placement import Plan, Precision
from wanreel.core.sound import SoundRef
from wanreel.core.wishes import MemoryChoices, MemoryMode, OnOom

__all__ = ["KNOBS", "Knob", "VideoRequest", "knobs"]

OutputFormat = Literal["mp4", "webm", "webp", "gif", "mov"]  #: mov holds ProRes, for editing
Quality = Literal["low", "medium", "high", "maximum"]
Solver = Literal["unipc", "dpm++", "euler", "dmd", "distill"]
PresetName = Literal["draft", "standard", "high", "fast", "motion"]
ResolutionName = Literal["480P", "720P", "1080P"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """A request as asked. Only the prompt is needed; everything else defaults to the model authors' recipe."""

    prompt: str = prompt_knob("What happens in the video.")
    original_prompt: str | None = knob(
        "text", "The prompt as it was written, where this one came of it with help; kept in the recipe.", maximum=4000
    )
    wildcards: bool | None = knob("flag", "Draw {red|green|blue} in the prompt by the seed. Yes by default.")
    enhance: bool | None = knob(
        "flag",
        "Add what the prompt does not say of camera, light and look, by rules.",
        aliases=("use_prompt_enhancer",),
    )
    negative_prompt: str | None = knob("text", "What to avoid. The authors' own text by default.", maximum=4000)
    image: PictureRef | None = knob(
        "picture", "The first frame.", aliases=("input_reference", "first_image", "reference_image")
    )
    last_image: PictureRef | None = knob("picture", "The last frame, for models that take one.")
    edit_prompt: str | None = knob(
        "text", "First the picture is changed as this says; the video begins with what comes out.", maximum=4000
    )
    edit_model: str | None = knob("name", "Which model changes it. qwen-image-edit-2509 by default.")
    model: str | None = knob("name", "Which model, for example ti2v-5b. By default the best one installed.")
    preset: PresetName | None = knob(
        "name",
        "Half, official or 1.25 times the official steps; fast and motion need a few-step model or LoRA.",
        choices=get_args(PresetName),
    )
    resolution: ResolutionName | None = knob(
        "name",
        "The picture's area; its aspect follows the picture given.",
        choices=get_args(ResolutionName),
        group="size",
    )
    width: int | None = knob("integer", "Exact width.", unit="px", minimum=64, maximum=4096, group="size")
    height: int | None = knob("integer", "Exact height.", unit="px", minimum=64, maximum=4096, group="size")
    seconds: float | None = knob(
        "number",
        "Length in seconds at the model's own frame rate.",
        unit="s",
        minimum=0.05,
        maximum=60,
        aliases=("duration",),
        group="size",
    )
    num_frames: int | None = knob(
        "integer",
        "Length in frames: 4n+1.",
        unit="frames",
        minimum=1,
        maximum=961,
        aliases=("frames", "frame_num"),
        group="size",
    )
    fps: float | None = knob(
        "number",
        "Playback rate. Does not change what is generated.",
        unit="frames/s",
        minimum=1,
        maximum=120,
        group="output",
    )
    num_inference_steps: int | None = knob(
        "integer",
        "Denoise steps.",
        minimum=1,
        maximum=100,
        aliases=("steps", "infer_steps", "sample_steps"),
        group="sampling",
    )
    guidance_scale: float | None = knob(
        "number",
        "Guidance of both experts; the two below win over it.",
        minimum=0,
        maximum=20,
        aliases=("guidance", "cfg"),
        group="sampling",
    )
    guidance_high: float | None = knob(
        "number",
        "Guidance of the high-noise expert (early steps: layout and motion).",
        minimum=0,
        maximum=20,
        group="sampling",
    )
    guidance_low: float | None = knob(
        "number",
        "Guidance of the low-noise expert (late steps: detail).",
        minimum=0,
        maximum=20,
        aliases=("guidance_scale_2",),
        group="sampling",
    )
    flow_shift: float | None = knob(
        "number",
        "Bends the noise schedule; larger spends more steps on layout.",
        minimum=0.1,
        maximum=100,
        aliases=("shift", "sample_shift"),
        group="sampling",
    )
    solver: Solver | None = knob(
        "name",
        "How steps are taken.",
        choices=get_args(Solver),
        aliases=("sample_solver", "scheduler"),
        group="sampling",
    )
    seed: int | None = knob(
        "integer",
        "Same seed, same video. -1 draws one, which is recorded.",
        minimum=-1,
        maximum=MAX_SEED,
        group="sampling",
    )
    compute: Compute | None = knob(
        "name",
        "exact: the model's own numbers. fast: in fp8, where the GPU can. turbo: fast, and foretold steps are left out.",
        choices=get_args(Compute),
        aliases=("computation",),
        group="sampling",
    )
    loras: tuple[LoraRef, ...] | None = knob(
        "loras", "LoRAs by name, with their strengths.", aliases=("lora",), group="sampling"
    )
    guided_steps: int | None = knob(
        "integer",
        "That many first steps run at the model's own guidance, whatever guidance says: motion for few-step LoRAs.",
        minimum=0,
        maximum=100,
        group="sampling",
    )
    boundary_ratio: float | None = knob(
        "number",
        "Noise level at which the low-noise expert takes over from the high-noise one.",
        minimum=0.01,
        maximum=0.999,
        group="sampling",
    )
    output_format: OutputFormat | None = knob(
        "name",
        "The kind of file; mov is ProRes, for editing.",
        choices=get_args(OutputFormat),
        aliases=("format",),
        group="output",
    )
    quality: Quality | None = knob(
        "name",
        "How finely the file is compressed.",
        choices=get_args(Quality),
        aliases=("output_quality",),
        group="output",
    )
    metadata: bool | None = knob(
        "flag", "Write the whole recipe into the file, so that it can be made again.", group="output"
    )
    memory_mode: MemoryMode | None = knob(
        "name",
        "How memory is used: auto takes exact plans first, the fastest of them. As the server is set by default.",
        choices=get_args(MemoryMode),
        group="memory",
    )
    precision: Precision | None = knob(
        "name",
        "What the transformers' weights are stored in. Fewer bits take less memory and change the numbers.",
        choices=get_args(Precision),
        group="memory",
    )
    offload: Plan | None = knob(
        "name",
        "Where weights wait: all on the GPU, encoders aside, one part at a time, or block by block.",
        choices=get_args(Plan),
        group="memory",
    )
    vae_tile: int | None = knob(
        "integer",
        "Side of the windows that pictures are decoded in. 0: whole frames; by default as memory allows.",
        unit="px",
        minimum=0,
        maximum=4096,
        group="memory",
    )
    quantize: bool | None = knob(
        "flag", "Where nothing else fits, weights may be stored in fewer bits.", group="memory"
    )
    on_oom: OnOom | None = knob(
        "name",
        "When memory does not suffice: fail, or fail and make a smaller video in its place.",
        choices=get_args(OnOom),
        group="memory",
    )

    @property
    def memory(self) -> MemoryChoices:
        """What it asks of the plan of memory."""
        return MemoryChoices(self.memory_mode, self.precision, self.offload, self.vae_tile, self.quantize)

    storage: str | None = knob(
        "name",
        "The operator's storage profile that the result is copied to; local: none.",
        maximum=64,
        group="output",
    )
    trim_start: float | None = knob(
        "number", "Leaves out the video's beginning, up to here.", unit="s", minimum=0, maximum=240, group="finish"
    )
    trim_end: float | None = knob(
        "number", "Where the video ends, counted from its generated beginning.", unit="s", minimum=0.01, maximum=240,
        group="finish",
    )  # fmt: skip
    loop: Loop | None = knob(
        "name",
        "Repeats evenly: boomerang plays it backwards too, seamless blends its end into its beginning.",
        choices=get_args(Loop),
        group="finish",
    )
    speed: float | None = knob(
        "number",
        "Plays so many times as fast, at the same frame rate.",
        minimum=0.25,
        maximum=4,
        aliases=("playback_speed",),
        group="finish",
    )
    interpolate_fps: float | None = knob(
        "number",
        "Frame rate of the file; frames in between are made from the motion.",
        unit="frames/s",
        minimum=1,
        maximum=120,
        group="finish",
    )
    upscale: float | None = knob("number", "Enlarges the picture so many times.", minimum=1, maximum=4, group="finish")
    upscaler: str | None = knob(
        "name",
        "What enlarges it: lanczos, the default, or a network that `wanreel upscalers` lists.",
        maximum=64,
        group="finish",
    )
    audio: SoundRef | None = knob(
        "sound", "Plays with the video, cut or silent where it is longer or shorter.", group="finish"
    )

    def problems(self) -> list[Problem]:
        """Everything wrong with the values by themselves: kinds, bounds, choices, NaN. Models are `resolve`'s matter."""
        return KNOBS.problems(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> VideoRequest:
        """A request from loose values (JSON, form fields, flags), accepting aliases.

        Pictures must already be `PictureRef`s. Raises `InvalidRequest` naming every unknown, doubled or unreadable
        field at once; bounds are checked by `problems`.
        """
        return cls(**KNOBS.parse(values))


KNOBS = KnobTable(VideoRequest)


def knobs() -> Iterator[tuple[str, Knob]]:
    """(field name, Knob) of every knob, in the order users see them."""
    yield from KNOBS.items()
