"""One flag per knob of VideoRequest, derived from its declaration, and the way back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from wanreel.core.finishing import EXPORT_KNOBS
from wanreel.core.request import KNOBS, Knob

Command = TypeVar("Command", bound=Callable[..., Any])

#: knobs that are arguments or options of their own
_NOT_FLAGS = frozenset({"prompt", "image", "last_image", "audio"})
#: flags users know by a shorter name; the knob's own name works too
_SHORT: Mapping[str, tuple[str, ...]] = {
    "model": ("-m",),
    "preset": ("-p",),
    "resolution": ("-r",),
    "num_inference_steps": ("--steps",),
    "num_frames": ("--frames",),
    "output_format": ("--format",),
    "loras": ("--lora",),
    "num_images": ("-n",),
    "refiner_inference_steps": ("--refiner-steps",),
}
_LORA_WORD = "NAME_OR_FILE[:HIGH[:LOW]][@SCHEDULE]"
_STRENGTH = r"-?[0-9]*\.?[0-9]+"
_LORA = re.compile(
    rf"(?P<name>.+?)(?::(?P<high>{_STRENGTH}))?(?::(?P<low>{_STRENGTH}))?(?:@(?P<schedule>[-0-9.,> ]+))?"
)
_TYPES: Mapping[str, click.ParamType[Any] | None] = {"integer": click.INT, "number": click.FLOAT}


def knob_options(command: Command) -> Command:
    """Adds a flag for each knob of a video."""
    return options_of(KNOBS)(command)


def export_options(command: Command) -> Command:
    """Adds a flag for each knob with which a finished video can be written again."""
    audio = click.option("--audio", type=click.Path(path_type=Path), help=KNOBS["audio"].help)
    return audio(options_of({name: KNOBS[name] for name in EXPORT_KNOBS})(command))


def options_of(knobs: Mapping[str, Knob]) -> Callable[[Command], Command]:
    """Adds a flag for each knob. Bounds are left to the request itself, so that every fault is named at once."""

    def add(command: Command) -> Command:
        for name in reversed([name for name in knobs if name not in _NOT_FLAGS]):
            command = _option(name, knobs[name])(command)
        return command

    return add


def asked_values(options: Mapping[str, object]) -> dict[str, object]:
    """The knobs that were given, by field name."""
    given = {name: options.get(name) for name in KNOBS if name not in _NOT_FLAGS}
    loras = given.pop("loras", None)
    values = {name: value for name, value in given.items() if value is not None}
    if loras:
        values["loras"] = [_lora(text) for text in loras]  # type: ignore[attr-defined]
    return values


def _option(name: str, knob: Knob) -> Callable[[Command], Command]:
    flag = name.replace("_", "-")
    spellings = [*_SHORT.get(name, ()), f"--{flag}"]
    if knob.kind == "flag":
        return click.option(*spellings[:-1], f"--{flag}/--no-{flag}", name, default=None, help=_help(knob))
    if knob.kind == "loras":
        return click.option(*spellings, name, multiple=True, metavar=_LORA_WORD, help=_help(knob))
    metavar = "|".join(knob.choices) if knob.choices else None
    return click.option(*spellings, name, type=_TYPES.get(knob.kind), metavar=metavar, help=_help(knob))


def _help(knob: Knob) -> str:
    bounds = (
        f" [{knob.minimum:g} to {knob.maximum:g}]"
        if knob.kind in ("integer", "number") and knob.maximum is not None
        else ""
    )
    unit = f" ({knob.unit})" if knob.unit else ""
    return f"{knob.help}{unit}{bounds}"


def _lora(text: str) -> dict[str, object]:
    """The words behind --lora as a LoRA's members. `name` may still be a file's path; see `tasks`."""
    match = _LORA.fullmatch(text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not {_LORA_WORD}.", param_hint="--lora")
    values: dict[str, object] = {"name": match["name"]}
    if match["low"] is not None:
        values |= {"strength_high": match["high"], "strength_low": match["low"]}
    elif match["high"] is not None:
        values["strength"] = match["high"]
    return values | ({"schedule": match["schedule"]} if match["schedule"] else {})
