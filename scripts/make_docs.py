"""Writes docs/reference.md: knobs, models, presets, settings, errors and exit codes, from the code that declares them.

python scripts/make_docs.py          write it
python scripts/make_docs.py --check  exit 1 when it is out of date
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from wanreel.core import errors
from wanreel.core.catalog import MODELS
from wanreel.core.presets import preset_steps
from wanreel.core.request import Knob, PresetName, knobs
from wanreel.core.settings import Settings
from wanreel.frontends.cli.failure import exit_code

TARGET = Path(__file__).parent.parent / "docs" / "reference.md"


def main() -> int:
    text = "\n".join(_document())
    if "--check" in sys.argv:
        return 0 if TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


def _document() -> Iterator[str]:
    yield "# Reference\n\nWritten by `scripts/make_docs.py` from the code; do not edit.\n"
    yield from _table(
        "Knobs",
        "What a request may say. Only the prompt is needed; everything else defaults to the model authors' recipe. Front doors "
        "accept the aliases too; on the command line a knob is a flag with dashes.",
        ("knob", "kind", "allowed", "meaning", "aliases"),
        [
            (f"`{name}`", knob.kind, _allowed(knob), knob.help, ", ".join(f"`{alias}`" for alias in knob.aliases))
            for name, knob in knobs()
        ],
    )
    yield from _table(
        "Presets",
        "Denoise steps. A preset never changes the shift, but with few-step LoRAs, which bring their own recipe ([loras.md](loras.md)).",
        ("model", *get_args(PresetName)),
        [
            (f"`{spec.name}`", *(str(preset_steps(spec, name) or "–") for name in get_args(PresetName)))
            for spec in MODELS
        ],
    )
    yield from _table(
        "Resolutions",
        "Size and shift of each. With a picture the size keeps the area and follows the picture's aspect; nothing is stretched. "
        "`*`: the model was not trained for it.",
        ("model", "480P", "720P", "1080P"),
        [
            (
                f"`{spec.name}`",
                *(
                    f"{size.width}×{size.height}, shift {size.flow_shift:g}{'' if size.trained else ' *'}"
                    for size in spec.sizes.values()
                ),
            )
            for spec in MODELS
        ],
    )
    yield from _table(
        "Where each value was read",
        "",
        ("model", "weights", "sources"),
        [
            (f"`{spec.name}`", f"`{spec.hub_id}`" if spec.hub_id else "shipped", "; ".join(spec.sources))
            for spec in MODELS
        ],
    )
    yield from _table(
        "Settings",
        "From `WANREEL_*` variables, then `config.toml` in the data directory.",
        ("variable", "default", "meaning"),
        list(_settings("WANREEL_", Settings)),
    )
    yield from _table(
        "Errors",
        "Each error has a stable code. *Retryable*: the same call may succeed later unchanged.",
        ("code", "exit code", "retryable", "meaning"),
        [
            (f"`{kind.code}`", str(_exit_code(kind)), "yes" if kind.retryable else "no", _first_line(kind))
            for kind in _error_kinds()
        ],
    )


def _settings(prefix: str, model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Rows of every setting, those of a group under the group's name."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _settings(f"{prefix}{name.upper()}__", kind)
        elif name != "fault":
            yield f"`{prefix}{name.upper()}`", _default(field), field.description or ""


def _table(title: str, words: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"## {title}\n"
    if words:
        yield f"{words}\n"
    yield f"| {' | '.join(headings)} |"
    yield f"|{' --- |' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _allowed(knob: Knob) -> str:
    choices, unit = knob.choices, knob.unit
    minimum, maximum, kind = knob.minimum, knob.maximum, knob.kind
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if kind in ("integer", "number"):
        return f"{minimum:g} to {maximum:.17g} {unit}".strip()
    return f"up to {maximum:g} characters" if maximum else ""


def _default(field: FieldInfo) -> str:
    value = field.default
    return "" if value is None or "Undefined" in repr(value) else f"`{value}`"


def _error_kinds() -> list[type[errors.WanreelError]]:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.WanreelError)]
    return sorted(kinds, key=lambda kind: inspect.getsourcelines(kind)[1])


def _exit_code(kind: type[errors.WanreelError]) -> int:
    return exit_code(kind.__new__(kind))


def _first_line(kind: type[errors.WanreelError]) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
