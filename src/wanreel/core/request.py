"""VideoRequest: what a user may ask for, every knob declared once.

Command-line flags, page controls, OpenAPI and worker schemas are derived from the `Knob` on each field. Knows neither
models nor defaults: `None` means "as the model's authors do", and `resolve` fills it in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.lora import MAX_LORAS, LoraRef, problems_of
from wanreel.core.picture import PictureRef
from wanreel.core.placement import Plan, Precision
from wanreel.core.wishes import MemoryChoices, MemoryMode, OnOom

Kind = Literal["text", "name", "integer", "number", "flag", "picture", "loras"]
OutputFormat = Literal["mp4", "webm", "webp", "gif"]
Quality = Literal["low", "medium", "high", "maximum"]
Solver = Literal["unipc", "dpm++", "euler", "dmd", "distill"]
PresetName = Literal["draft", "standard", "high", "fast", "motion"]
ResolutionName = Literal["480P", "720P", "1080P"]

MAX_SEED = 2**53 - 1  #: the largest integer that JSON and JavaScript carry exactly


@dataclass(frozen=True, slots=True)
class Knob:
    """What one field of VideoRequest means to a user."""

    kind: Kind
    help: str
    unit: str = ""
    minimum: float | None = None  #: smallest value allowed; for text the smallest number of characters
    maximum: float | None = None  #: largest value allowed; for text the largest number of characters
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()  #: other names that front doors accept
    group: str = "basic"  #: where a page or a help text shows it: basic, size, sampling, output, memory


def _knob(kind: Kind, text: str, **facts: Any) -> Any:
    """A field that is None unless asked for. Any, as the type checker takes the annotation beside it."""
    return field(default=None, metadata={"knob": Knob(kind, text, **facts)})


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest:
    """A request as asked. Only the prompt is needed; everything else defaults to the model authors' recipe."""

    prompt: str = field(
        default="",
        metadata={"knob": Knob("text", "What happens in the video.", minimum=1, maximum=4000)},
    )
    negative_prompt: str | None = _knob("text", "What to avoid. The authors' own text by default.", maximum=4000)
    image: PictureRef | None = _knob(
        "picture", "The first frame.", aliases=("input_reference", "first_image", "reference_image")
    )
    last_image: PictureRef | None = _knob("picture", "The last frame, for models that take one.")
    model: str | None = _knob("name", "Which model, for example ti2v-5b. By default the best one installed.")
    preset: PresetName | None = _knob(
        "name",
        "Half, official or 1.25 times the official steps; fast and motion need a few-step model or LoRA.",
        choices=get_args(PresetName),
    )
    resolution: ResolutionName | None = _knob(
        "name",
        "The picture's area; its aspect follows the picture given.",
        choices=get_args(ResolutionName),
        group="size",
    )
    width: int | None = _knob("integer", "Exact width.", unit="px", minimum=64, maximum=4096, group="size")
    height: int | None = _knob("integer", "Exact height.", unit="px", minimum=64, maximum=4096, group="size")
    seconds: float | None = _knob(
        "number",
        "Length in seconds at the model's own frame rate.",
        unit="s",
        minimum=0.05,
        maximum=60,
        aliases=("duration",),
        group="size",
    )
    num_frames: int | None = _knob(
        "integer",
        "Length in frames: 4n+1.",
        unit="frames",
        minimum=1,
        maximum=961,
        aliases=("frames", "frame_num"),
        group="size",
    )
    fps: float | None = _knob(
        "number",
        "Playback rate. Does not change what is generated.",
        unit="frames/s",
        minimum=1,
        maximum=120,
        group="output",
    )
    num_inference_steps: int | None = _knob(
        "integer",
        "Denoise steps.",
        minimum=1,
        maximum=100,
        aliases=("steps", "infer_steps", "sample_steps"),
        group="sampling",
    )
    guidance_scale: float | None = _knob(
        "number",
        "Guidance of both experts; the two below win over it.",
        minimum=0,
        maximum=20,
        aliases=("guidance", "cfg"),
        group="sampling",
    )
    guidance_high: float | None = _knob(
        "number",
        "Guidance of the high-noise expert (early steps: layout and motion).",
        minimum=0,
        maximum=20,
        group="sampling",
    )
    guidance_low: float | None = _knob(
        "number",
        "Guidance of the low-noise expert (late steps: detail).",
        minimum=0,
        maximum=20,
        aliases=("guidance_scale_2",),
        group="sampling",
    )
    flow_shift: float | None = _knob(
        "number",
        "Bends the noise schedule; larger spends more steps on layout.",
        minimum=0.1,
        maximum=100,
        aliases=("shift", "sample_shift"),
        group="sampling",
    )
    solver: Solver | None = _knob(
        "name",
        "How steps are taken.",
        choices=get_args(Solver),
        aliases=("sample_solver", "scheduler"),
        group="sampling",
    )
    seed: int | None = _knob(
        "integer",
        "Same seed, same video. -1 draws one, which is recorded.",
        minimum=-1,
        maximum=MAX_SEED,
        group="sampling",
    )
    loras: tuple[LoraRef, ...] | None = _knob(
        "loras", "LoRAs by name, with their strengths.", aliases=("lora",), group="sampling"
    )
    guided_steps: int | None = _knob(
        "integer",
        "That many first steps run at the model's own guidance, whatever guidance says: motion for few-step LoRAs.",
        minimum=0,
        maximum=100,
        group="sampling",
    )
    boundary_ratio: float | None = _knob(
        "number",
        "Noise level at which the low-noise expert takes over from the high-noise one.",
        minimum=0.01,
        maximum=0.999,
        group="sampling",
    )
    output_format: OutputFormat | None = _knob(
        "name", "The kind of file.", choices=get_args(OutputFormat), aliases=("format",), group="output"
    )
    quality: Quality | None = _knob(
        "name",
        "How finely the file is compressed.",
        choices=get_args(Quality),
        aliases=("output_quality",),
        group="output",
    )
    metadata: bool | None = _knob(
        "flag", "Write the whole recipe into the file, so that it can be made again.", group="output"
    )
    memory_mode: MemoryMode | None = _knob(
        "name",
        "How memory is used: auto takes exact plans first, the fastest of them. As the server is set by default.",
        choices=get_args(MemoryMode),
        group="memory",
    )
    precision: Precision | None = _knob(
        "name",
        "What the transformers' weights are stored in. Fewer bits take less memory and change the numbers.",
        choices=get_args(Precision),
        group="memory",
    )
    offload: Plan | None = _knob(
        "name",
        "Where weights wait: all on the GPU, encoders aside, one part at a time, or block by block.",
        choices=get_args(Plan),
        group="memory",
    )
    vae_tile: int | None = _knob(
        "integer",
        "Side of the windows that pictures are decoded in. 0: whole frames; by default as memory allows.",
        unit="px",
        minimum=0,
        maximum=4096,
        group="memory",
    )
    quantize: bool | None = _knob(
        "flag", "Where nothing else fits, weights may be stored in fewer bits.", group="memory"
    )
    on_oom: OnOom | None = _knob(
        "name",
        "When memory does not suffice: fail, or fail and make a smaller video in its place.",
        choices=get_args(OnOom),
        group="memory",
    )

    @property
    def memory(self) -> MemoryChoices:
        """What it asks of the plan of memory."""
        return MemoryChoices(self.memory_mode, self.precision, self.offload, self.vae_tile, self.quantize)

    storage: str | None = _knob(
        "name",
        "The operator's storage profile that the result is copied to; local: none.",
        maximum=64,
        group="output",
    )

    def problems(self) -> list[Problem]:
        """Everything wrong with the values by themselves: kinds, bounds, choices, NaN. Models are `resolve`'s matter."""
        found: list[Problem] = []
        for name, knob in knobs():
            value = getattr(self, name)
            if value is not None:
                found.extend(_check(name, knob, value))
        return found

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> VideoRequest:
        """A request from loose values (JSON, form fields, flags), accepting aliases.

        Pictures must already be `PictureRef`s. Raises `InvalidRequest` naming every unknown, doubled or unreadable
        field at once; bounds are checked by `problems`.
        """
        known, problems = _by_field(values)
        parsed: dict[str, object] = {}
        for name, value in known.items():
            try:
                parsed[name] = _coerce(KNOBS[name], value)
            except ValueError as exc:
                problems.append(Problem(name, "wrong_type", str(exc)))
        if problems:
            raise InvalidRequest(*problems)
        return cls(**cast("dict[str, Any]", parsed))


def knobs() -> Iterator[tuple[str, Knob]]:
    """(field name, Knob) of every knob, in the order users see them."""
    for item in fields(VideoRequest):
        yield item.name, item.metadata["knob"]


KNOBS: Mapping[str, Knob] = dict(knobs())
_FIELD_OF: Mapping[str, str] = {alias: name for name, knob in KNOBS.items() for alias in (name, *knob.aliases)}


def _by_field(values: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
    """Values under their field names, and what could not be placed. An alias and its field may agree, not differ."""
    known: dict[str, object] = {}
    problems: list[Problem] = []
    for given, value in values.items():
        if value is None:
            continue
        name = _FIELD_OF.get(given)
        if name is None:
            problems.append(Problem(given, "unknown_field", f"there is no knob {given!r}.", _nearest_hint(given)))
        elif name in known and known[name] != value:
            problems.append(
                Problem(
                    name,
                    "contradiction",
                    f"given twice, as {known[name]!r} and as {given} = {value!r}.",
                    "Give it once.",
                )
            )
        else:
            known[name] = value
    return known, problems


def _nearest_hint(given: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(given, _FIELD_OF, n=1)
    return f"Did you mean {near[0]}?" if near else ""


def _coerce(knob: Knob, value: object) -> object:
    """The value as the knob's kind. Raises ValueError saying what was expected; never rounds."""
    match knob.kind:
        case "text" | "name":
            if not isinstance(value, str):
                raise ValueError(f"{value!r} is not text.")
            return value
        case "integer":
            return _integer(value)
        case "number":
            return _number(value)
        case "flag":
            return _flag(value)
        case "picture":
            if not isinstance(value, PictureRef):
                raise ValueError("a picture was expected.")
            return value
        case "loras":
            return _loras(value)


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is not a whole number.")
    try:
        exact = int(value) if not isinstance(value, float) else (int(value) if value.is_integer() else None)
    except (ValueError, OverflowError):
        exact = None
    if exact is None:
        raise ValueError(f"{value!r} is not a whole number.")
    return exact


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is not a number.")
    try:
        return float(value)
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"{value!r} is not a number.") from exc


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "1", "yes", "on"):
        return True
    if isinstance(value, str) and value.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{value!r} is neither true nor false.")


def _loras(value: object) -> tuple[LoraRef, ...]:
    if isinstance(value, (str, LoraRef, Mapping)):
        return (_lora(cast("object", value)),)
    if not isinstance(value, (list, tuple)):
        raise ValueError("a list of LoRAs was expected.")
    return tuple(_lora(item) for item in cast("list[object]", value))


#: What other servers call the members of a LoRA. What they call a path is a name here.
_LORA_ALIASES: Mapping[str, str] = {
    "path": "name",
    "lora_name": "name",
    "lora_path": "name",
    "scale": "strength",
    "weight": "strength",
    "high": "strength_high",
    "low": "strength_low",
}
_LORA_NUMBERS = ("strength", "strength_high", "strength_low")
_LORA_TEXTS = ("name", "schedule", "sha256")


def _lora(item: object) -> LoraRef:
    if isinstance(item, LoraRef):
        return item
    if isinstance(item, str):
        return LoraRef(item)
    if not isinstance(item, Mapping):
        raise ValueError("a LoRA is a name, or an object with name and strengths.")
    given = {name: value for name, value in cast("Mapping[str, object]", item).items() if value is not None}
    values = {_LORA_ALIASES.get(name, name): value for name, value in given.items()}
    unknown = set(values) - {*_LORA_NUMBERS, *_LORA_TEXTS}
    if unknown:
        raise ValueError(f"a LoRA has no {sorted(unknown)[0]!r}.")
    if "name" not in values or len(values) < len(given):
        raise ValueError("a LoRA has one name, and each strength once.")
    for name in _LORA_NUMBERS:
        if name in values:
            values[name] = _number(values[name])
    if not all(isinstance(values[name], str) for name in _LORA_TEXTS if name in values):
        raise ValueError("a LoRA's name and schedule are text.")
    return LoraRef(**cast("dict[str, Any]", values))


def _check(name: str, knob: Knob, value: object) -> Iterator[Problem]:
    if isinstance(value, str):
        yield from _check_text(name, knob, value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _check_number(name, knob, value)
    elif isinstance(value, tuple):
        yield from _check_loras(name, cast("tuple[LoraRef, ...]", value))


def _check_loras(name: str, loras: tuple[LoraRef, ...]) -> Iterator[Problem]:
    if len(loras) > MAX_LORAS:
        yield Problem(name, "too_many", f"{len(loras)} LoRAs; at most {MAX_LORAS} are applied at once.")
    if len({lora.name for lora in loras}) < len(loras):
        yield Problem(name, "contradiction", "the same LoRA stands in it twice.", "Give it once.")
    for lora in loras:
        yield from problems_of(lora)


def _check_text(name: str, knob: Knob, value: str) -> Iterator[Problem]:
    if knob.choices and value not in knob.choices:
        yield Problem(name, "unknown_value", f"{value!r} is not offered.", f"Choose {' | '.join(knob.choices)}.")
    if knob.minimum and len(value.strip()) < knob.minimum:
        yield Problem(name, "required", "is empty.", "Describe what happens in the video.")
    if knob.maximum and len(value) > knob.maximum:
        yield Problem(
            name, "too_long", f"has {len(value)} characters; at most {knob.maximum:g} are read.", "Shorten it."
        )
    if "\x00" in value:
        yield Problem(name, "bad_text", "holds a NUL character.", "Remove it.")


def _check_number(name: str, knob: Knob, value: float) -> Iterator[Problem]:
    if not math.isfinite(value):
        yield Problem(name, "out_of_range", f"{value} is not a number one can use.")
        return
    low, high = knob.minimum, knob.maximum
    if (low is not None and value < low) or (high is not None and value > high):
        unit = f" {knob.unit}" if knob.unit else ""
        yield Problem(name, "out_of_range", f"{value:g} is not within {low:g} to {high:.17g}{unit}.")
