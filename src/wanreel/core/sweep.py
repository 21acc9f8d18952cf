"""Sweep: one request made many times, each time with other values of a few knobs. Knows no jobs and no pixels.

An axis is a knob with its values, the pair of guidance scales, or the strengths of one LoRA; cells are all combinations of
the axes' values, the last axis fastest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, cast

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.lora import LoraRef
from wanreel.core.picture import PictureRef
from wanreel.core.request import KNOBS, VideoRequest
from wanreel.core.sound import SoundRef

MAX_CELLS = 64
MAX_AXES = 4
LORA = "lora:"  #: begins the name of an axis of strengths; the LoRA's name follows
GUIDANCE = "guidance"  #: the axis of pairs: high-noise expert, low-noise expert
#: Knobs that can be an axis. All cells have one size and length, so that they can be laid side by side.
AXES = (
    *("prompt", "negative_prompt", "seed", GUIDANCE, "num_inference_steps", "flow_shift", "solver", "preset"),
    *("guidance_high", "guidance_low", "guided_steps", "boundary_ratio"),
)
_ALIASES: Mapping[str, str] = {
    "steps": "num_inference_steps",
    "prompts": "prompt",
    "seeds": "seed",
    "shift": "flow_shift",
}
_SHORTEST_WRAP = 6  # cells of one axis alone stand in one row up to so many

Value = str | int | float | tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """What differs from cell to cell."""

    name: str  #: one of AXES, or LORA and a LoRA's name
    values: tuple[Value, ...]  #: of guidance and LoRAs, pairs: high and low

    def label(self, place: int) -> str:
        """A value for people, short: the begin of a prompt."""
        value = self.values[place]
        if isinstance(value, tuple):
            shown = f"{value[0]:g}" if value[0] == value[1] else f"{value[0]:g} : {value[1]:g}"
        else:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
        name = self.name.removeprefix(LORA)
        return shown if name == "prompt" else f"{_SHORT.get(name, name)} {shown}"


_SHORT: Mapping[str, str] = {"num_inference_steps": "steps", "flow_shift": "shift", "negative_prompt": "without"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination."""

    places: tuple[int, ...]  #: of its value on each axis
    labels: tuple[str, ...]  #: of its values, one per axis
    request: VideoRequest


@dataclass(frozen=True, slots=True)
class Sweep:
    """A grid."""

    base: VideoRequest  #: what all cells have in common
    axes: tuple[Axis, ...]
    title: str = ""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns that cells are laid out in: of two axes the last across, of more those that make it nearest
        to a square, and one axis alone wrapped."""
        sizes = [len(axis.values) for axis in self.axes]
        count = math.prod(sizes)
        if len(sizes) == 1:
            columns = count if count <= _SHORTEST_WRAP else math.ceil(math.sqrt(count))
        else:
            across = [math.prod(sizes[place:]) for place in range(1, len(sizes))]
            columns = across[0] if len(sizes) == 2 else min(across, key=lambda it: abs(math.log(it * it / count)))
        return math.ceil(count / columns), columns

    def cells(self) -> tuple[Cell, ...]:
        """All of them, in order."""
        made: list[Cell] = []
        for places in itertools.product(*(range(len(axis.values)) for axis in self.axes)):
            request = self.base
            for axis, place in zip(self.axes, places, strict=True):
                request = _with(request, axis, place)
            labels = tuple(axis.label(place) for axis, place in zip(self.axes, places, strict=True))
            made.append(Cell(places, labels, request))
        return tuple(made)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        base = {name: value for name, value in asdict(self.base).items() if value is not None}
        axes = [{"name": axis.name, "values": [_plain(value) for value in axis.values]} for axis in self.axes]
        return {"base": base, "axes": axes, "title": self.title}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sweep:
        """The inverse of `to_dict`. Raises KeyError or TypeError on foreign data."""
        base = dict(data["base"])
        for field in fields(VideoRequest):
            value = base.get(field.name)
            if value is not None and KNOBS[field.name].kind == "picture":
                base[field.name] = PictureRef.from_dict(value)
        if base.get("audio") is not None:
            base["audio"] = SoundRef(**base["audio"])
        if base.get("loras") is not None:
            base["loras"] = tuple(LoraRef(**lora) for lora in base["loras"])
        axes = tuple(Axis(axis["name"], tuple(_restored(value) for value in axis["values"])) for axis in data["axes"])
        return cls(VideoRequest(**base), axes, data.get("title", ""))


def parse_sweep(values: Mapping[str, object]) -> Sweep:
    """A sweep from loose values: `axes` (by name, or a list of {name, values}), `title`, and knobs that all cells have.

    Pictures must already be `PictureRef`s. Raises InvalidRequest naming every problem at once.
    """
    rest = dict(values)
    given, title = rest.pop("axes", None), rest.pop("title", None)
    problems: list[Problem] = []
    if title is not None and (not isinstance(title, str) or len(title) > 200):
        problems.append(Problem("title", "bad_text", "must be text of at most 200 characters."))
    axes = tuple(_axes(given, problems))
    if "prompt" not in rest:
        first = next((axis.values[0] for axis in axes if axis.name == "prompt"), None)
        rest |= {"prompt": first} if first is not None else {}
    try:
        base = VideoRequest.from_mapping(rest)
    except InvalidRequest as error:
        raise InvalidRequest(*problems, *error.problems) from error
    problems.extend(_grid_problems(axes, base))
    if problems:
        raise InvalidRequest(*problems)
    return Sweep(base, axes, title if isinstance(title, str) else "")


def _axes(given: object, problems: list[Problem]) -> Iterator[Axis]:
    if isinstance(given, Mapping):
        pairs = list(cast("Mapping[str, object]", given).items())
    elif isinstance(given, list):
        items = [cast("Mapping[str, object]", it) for it in cast("list[object]", given) if isinstance(it, Mapping)]
        pairs = [(str(item.get("name", "")), item.get("values")) for item in items]
    else:
        pairs = []
    if not pairs:
        problems.append(Problem("axes", "required", "names no axis.", 'Give for example {"seed": [1, 2, 3]}.'))
    for name, values in pairs:
        known = _ALIASES.get(name, name)
        if known not in AXES and not (known.startswith(LORA) and len(known) > len(LORA)):
            hint = f"Choose {', '.join(AXES)} or {LORA}NAME."
            problems.append(Problem("axes", "unknown_value", f"{name[:64]!r} is no axis.", hint))
            continue
        if not isinstance(values, list) or not values:
            problems.append(Problem("axes", "wrong_type", f"{known} needs a list of values."))
            continue
        yield from _axis(known, cast("list[object]", values), problems)


def _axis(name: str, values: list[object], problems: list[Problem]) -> Iterator[Axis]:
    try:
        read = tuple(_value(name, value) for value in values)
    except ValueError as exc:
        problems.append(Problem("axes", "wrong_type", f"{name}: {exc}"))
        return
    if len(set(read)) < len(read):
        problems.append(Problem("axes", "contradiction", f"{name} has the same value twice.", "Give each once."))
        return
    yield Axis(name, read)


def _value(name: str, value: object) -> Value:
    """One value as its axis has it. Raises ValueError."""
    if name == GUIDANCE or name.startswith(LORA):
        return _pair(value)
    try:
        parsed = KNOBS.parse({name: value})[name]
    except (InvalidRequest, KeyError) as exc:
        raise ValueError(f"{str(value)[:64]!r} is no value of it.") from exc
    problems = replace(VideoRequest(prompt="-"), **{name: parsed}).problems()
    if problems:
        raise ValueError(problems[0].message)
    if name == "seed" and parsed < 0:
        raise ValueError("-1 draws a seed; give the numbers themselves.")
    return parsed


def _pair(value: object) -> tuple[float, float]:
    """3, "3", "3:4" or [3, 4]: high and low."""
    parts = value.split(":") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    try:
        numbers = [float(cast("float", part)) for part in cast("Sequence[object]", parts)]
    except (TypeError, ValueError) as exc:
        raise ValueError(f"{str(value)[:64]!r} is no number or pair.") from exc
    if not 1 <= len(numbers) <= 2 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{str(value)[:64]!r} is no number or pair.")
    return numbers[0], numbers[-1]


def _grid_problems(axes: Sequence[Axis], base: VideoRequest) -> Iterator[Problem]:
    names = [axis.name for axis in axes]
    if len(axes) > MAX_AXES:
        yield Problem("axes", "too_many", f"{len(axes)} axes; at most {MAX_AXES} can be laid out.")
    if len(set(names)) < len(names):
        yield Problem("axes", "contradiction", "the same axis stands in it twice.", "Give it once.")
    if GUIDANCE in names and {"guidance_high", "guidance_low"} & set(names):
        yield Problem("axes", "contradiction", "guidance is the pair of guidance_high and guidance_low.", "Give one.")
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_CELLS:
        sizes = " × ".join(str(len(axis.values)) for axis in axes)
        text = f"{sizes} = {count} cells; at most {MAX_CELLS} are made at once."
        yield Problem("axes", "too_many", text, "Leave some values out, or make two sweeps.")
    shelf = {lora.name for lora in base.loras or ()}
    for name in names:
        if name.startswith(LORA) and name.removeprefix(LORA) in shelf:
            yield Problem("axes", "contradiction", f"{name} stands in loras too.", "Leave it out there.")


def _with(request: VideoRequest, axis: Axis, place: int) -> VideoRequest:
    value = axis.values[place]
    if axis.name == GUIDANCE:
        high, low = cast("tuple[float, float]", value)
        return replace(request, guidance_scale=None, guidance_high=high, guidance_low=low)
    if axis.name.startswith(LORA):
        high, low = cast("tuple[float, float]", value)
        lora = LoraRef(axis.name.removeprefix(LORA), strength_high=high, strength_low=low)
        return replace(request, loras=(*(request.loras or ()), lora))
    change: dict[str, Any] = {axis.name: value}
    return replace(request, **change)


def _plain(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else value


def _restored(value: Any) -> Value:
    return (float(value[0]), float(value[1])) if isinstance(value, list) else value
