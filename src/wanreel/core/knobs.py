"""Knobs: what one field of a request means to a user, and loose values read by that. Knows no request.

Command-line flags, page controls, OpenAPI and worker schemas are derived from the `Knob` on each field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, cast

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.lora import MAX_LORAS, LoraRef, problems_of
from wanreel.core.picture import PictureRef
from wanreel.core.sound import SoundRef

Kind = Literal["text", "name", "integer", "number", "flag", "picture", "sound", "loras"]

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


def knob(kind: Kind, text: str, **facts: Any) -> Any:
    """A field that is None unless asked for. Any, as the type checker takes the annotation beside it."""
    return field(default=None, metadata={"knob": Knob(kind, text, **facts)})


def prompt_knob(text: str) -> Any:
    """The one field that must be given. `text` continues the word "Describe"."""
    return field(default="", metadata={"knob": Knob("text", text, minimum=1, maximum=4000)})


class KnobTable(Mapping[str, Knob]):
    """The knobs of one request class by field name, in the order users see them."""

    def __init__(self, request: type) -> None:
        self._knobs: dict[str, Knob] = {item.name: item.metadata["knob"] for item in fields(request)}
        self._field_of = {alias: name for name, knob in self._knobs.items() for alias in (name, *knob.aliases)}

    def __getitem__(self, name: str) -> Knob:
        return self._knobs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._knobs)

    def __len__(self) -> int:
        return len(self._knobs)

    def problems(self, request: object) -> list[Problem]:
        """Everything wrong with the values by themselves: kinds, bounds, choices, NaN."""
        found: list[Problem] = []
        for name, knob in self._knobs.items():
            value = getattr(request, name)
            if value is not None:
                found.extend(_check(name, knob, value))
        return found

    def parse(self, values: Mapping[str, object]) -> dict[str, Any]:
        """Loose values (JSON, form fields, flags) as the fields' own, accepting aliases.

        Pictures must already be `PictureRef`s. Raises `InvalidRequest` naming every unknown, doubled or unreadable
        field at once; bounds are checked by `problems`.
        """
        known, problems = self._by_field(values)
        parsed: dict[str, Any] = {}
        for name, value in known.items():
            try:
                parsed[name] = _coerce(self._knobs[name], value)
            except ValueError as exc:
                problems.append(Problem(name, "wrong_type", str(exc)))
        if problems:
            raise InvalidRequest(*problems)
        return parsed

    def _by_field(self, values: Mapping[str, object]) -> tuple[dict[str, object], list[Problem]]:
        """Values under their field names, and what could not be placed. An alias and its field may agree, not differ."""
        known: dict[str, object] = {}
        problems: list[Problem] = []
        for given, value in values.items():
            if value is None:
                continue
            name = self._field_of.get(given)
            if name is None:
                problems.append(
                    Problem(given, "unknown_field", f"there is no knob {given!r}.", self._nearest_hint(given))
                )
            elif name in known and known[name] != value:
                text = f"given twice, as {known[name]!r} and as {given} = {value!r}."
                problems.append(Problem(name, "contradiction", text, "Give it once."))
            else:
                known[name] = value
        return known, problems

    def _nearest_hint(self, given: str) -> str:
        near = get_close_matches(given, self._field_of, n=1)
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
        case "picture" | "sound":
            return _reference(knob, value)
        case "loras":
            return _loras(value)


def _reference(knob: Knob, value: object) -> PictureRef | SoundRef:
    if not isinstance(value, PictureRef if knob.kind == "picture" else SoundRef):
        raise ValueError(f"a {knob.kind} was expected.")
    return value


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
        yield Problem(name, "required", "is empty.", f"Describe {knob.help[:1].lower()}{knob.help[1:]}")
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
