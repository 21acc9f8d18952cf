"""What the words and flags of `wanreel sweep` mean, here and against a server. Opens no picture and no service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import click

from wanreel.core.errors import InvalidRequest
from wanreel.core.request import KNOBS
from wanreel.core.sweep import AXES, GUIDANCE, LORA
from wanreel.frontends.cli.knobs import asked_values, options_of
from wanreel.frontends.storyboard_file import parse_text

_LARGEST = 2**20  # bytes of a file
_SUFFIXES = (".yaml", ".yml", ".json")
_FILE_KNOBS = ("image", "last_image", "audio")
#: Axes with a flag of their own, in the place of the knob's flag; their values are separated by commas.
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "seed": ("--seed",),
    GUIDANCE: ("--guidance",),
    "num_inference_steps": ("--steps",),
    "flow_shift": ("--shift",),
    "solver": ("--solver",),
    "preset": ("--preset", "-p"),
}
_OPTIONS = (
    click.argument("inputs", nargs=-1, metavar="[SWEEP.yaml | [IMAGE] PROMPT]"),
    click.option("--prompt", "prompts", multiple=True, help="A prompt to compare with the others; once for each."),
    click.option(
        "--lora-strength", "strengths", multiple=True, metavar="NAME=A,B,…", help="Strengths of a LoRA; H:L for pairs."
    ),
    click.option(
        "--axis", "axes", multiple=True, metavar="NAME=A,B,…", help=f"Values of another axis: {', '.join(AXES)}."
    ),
    click.option("--title", help="What stands above the sheet."),
    click.option("--last-image", type=click.Path(path_type=Path), help="The last frame, for models that take one."),
    click.option("--audio", type=click.Path(path_type=Path), help=KNOBS["audio"].help),
)


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Everything that says what a sweep is of."""
    for name, flags in reversed(list(_FLAGS.items())):
        what = "pairs high:low" if name == GUIDANCE else KNOBS[name].help
        command = click.option(*flags, f"axis_{name}", metavar="A,B,…", help=f"Values to compare: {what}")(command)
    command = options_of({name: knob for name, knob in KNOBS.items() if name not in _FLAGS})(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_sweep(inputs: tuple[str, ...], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """The file's values, and over them what words and flags say; and apart the files that knobs stand for, by knob.

    Raises InvalidRequest.
    """
    words, values, folder = list(inputs), dict[str, Any](), Path()
    if words and words[0].lower().endswith(_SUFFIXES):
        file = Path(words.pop(0))
        values, folder = _read(file), file.parent
    files = {name: folder / str(values.pop(name)) for name in _FILE_KNOBS if values.get(name)}
    files |= {name: options[name] for name in ("last_image", "audio") if options[name] is not None}
    if len(words) > 2:
        raise click.UsageError(f"At most a picture and a prompt are expected, got {len(words)} words.")
    if len(words) == 2:
        files["image"] = Path(words.pop(0))
    if words:
        values["prompt"] = words[0]
    values |= asked_values(options) | ({"title": options["title"]} if options["title"] else {})
    axes = values.get("axes", {})
    values["axes"] = (dict(axes) | _axes(options)) if isinstance(axes, dict) else axes
    return values, files


def _read(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()[: _LARGEST + 1]
    except OSError as exc:
        raise InvalidRequest.of("sweep", "unreadable", f"{file} can't be read: {exc.strerror}.") from exc
    values = parse_text(data, file.name).values if len(data) <= _LARGEST else None
    if not isinstance(values, dict):
        raise InvalidRequest.of("sweep", "bad_file", f"{file.name} is no list of knobs and axes, YAML or JSON.")
    return cast("dict[str, Any]", values)


def _axes(options: Mapping[str, Any]) -> dict[str, object]:
    axes: dict[str, object] = {"prompt": list(options["prompts"])} if options["prompts"] else {}
    for name in _FLAGS:
        if options[f"axis_{name}"] is not None:
            axes[name] = _values(options[f"axis_{name}"])
    for flag, prefix, pairs in (("--lora-strength", LORA, options["strengths"]), ("--axis", "", options["axes"])):
        for pair in pairs:
            name, equals, text = pair.rpartition("=") if prefix else pair.partition("=")
            if not equals:
                raise click.UsageError(f"{flag} {pair!r}: NAME=A,B was expected.")
            axes[prefix + name] = _values(text)
    return axes


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split(",")]
