"""Assembly: a model put together from parts that lie in several places, written down as a small file. Imports no torch.

It takes the place of `model_index.json` in the model's folder; the weights stay where they are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wanreel.core.catalog import Catalog, ModelSpec
from wanreel.core.errors import BrokenWeights, InvalidRequest
from wanreel.host import replace_durably

NAME = "assembly.json"
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = 1
_READ = (".safetensors", ".gguf", ".json", ".model", ".txt")


@dataclass(frozen=True, slots=True)
class Assembly:
    """Where each part of a model lies."""

    base: str  #: the shipped row whose architecture and recipe it has
    parts: Mapping[str, Path]  #: by part: a folder in Diffusers layout, the authors' folder, or one file

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        body = {"version": _VERSION, "base": self.base, "parts": {name: str(it) for name, it in self.parts.items()}}
        temporary = folder / f".{NAME}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        replace_durably(temporary, folder / NAME)

    @classmethod
    def read(cls, folder: Path) -> Assembly | None:
        """The one in `folder`; None when there is none. Raises BrokenWeights for one that can't be read."""
        try:
            body: Any = json.loads((folder / NAME).read_text(encoding="utf-8"))
            if body["version"] != _VERSION:
                raise ValueError(f"version {body['version']}")
            return cls(str(body["base"]), {str(name): Path(str(path)) for name, path in body["parts"].items()})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise BrokenWeights(f"{folder / NAME} can't be read ({exc}).", hint="Add the model again.") from exc

    def files(self) -> Iterator[tuple[str, Path]]:
        """Every file that the model is read from, with a name for it."""
        for part, path in self.parts.items():
            found = [path] if path.is_file() else sorted(path.iterdir())
            for file in found:
                if file.suffix in _READ and file.is_file():
                    yield f"{part}/{file.name}", file


def added_rows(root: Path, shipped: Catalog) -> tuple[ModelSpec, ...]:
    """Rows of the catalogue for the assemblies under `root` whose names are not shipped ones."""
    rows: list[ModelSpec] = []
    for place in sorted(root.glob(f"*/{NAME}")):
        try:
            assembly = Assembly.read(place.parent)
        except BrokenWeights:
            continue  # said when it is used
        name = place.parent.name
        if assembly is not None and assembly.base in shipped and name not in shipped:
            base = shipped.get(assembly.base)
            title = f"{base.title}, as {name}"
            rows.append(replace(base, name=name, title=title, hub_id=None, builtin=False, qualified=False))
    return tuple(rows)


def check_name(name: str) -> str:
    """Raises InvalidRequest for a name that can't be a folder's."""
    if MODEL_NAME.fullmatch(name) is None:
        raise InvalidRequest.of("name", "invalid", f"{name!r} can't be a model's name.", "Letters, digits, . _ -")
    return name
