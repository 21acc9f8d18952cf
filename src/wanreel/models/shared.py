"""SharedParts: text encoders, image encoders and VAEs that several models have in common, in memory once.

Parts are one when their files are: by SHA-256 where that is known, else by how the files look. Knows nothing of models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from wanreel.models.parts import Part

_SHARED = ("text_encoder", "image_encoder", "vae")


@dataclass
class SharedParts:
    """Holds nothing itself: a part goes with the last model that uses it."""

    known: Callable[[Path], str | None]  #: a file's SHA-256, where it was taken and the file looks untouched
    _parts: WeakValueDictionary[str, Any] = field(default_factory=WeakValueDictionary[str, Any], repr=False)

    def identity(self, part: Part) -> str:
        """What the part's weights are, as a short text: equal for equal files. Reads none."""
        rows = sorted((key, info.dtype, info.shape, info.key, info.scale) for key, info in part.tensors.items())
        marks = [self.known(file) or _looks(file) for file in part.files]
        return hashlib.sha256(repr((part.name, sorted(part.config.items(), key=str), rows, marks)).encode()).hexdigest()

    def get(self, part: Part, where: torch.device, dtype: torch.dtype, load: Callable[[], Any]) -> Any:
        """The module of `part` that is in memory at `where` in `dtype`, or else a new one from `load`."""
        if part.name not in _SHARED:
            return load()
        key = f"{self.identity(part)} {where} {dtype}"
        module = self._parts.get(key)
        if module is None:
            module = self._parts[key] = load()
        return module


def _looks(file: Path) -> str:
    stat = file.stat()
    return f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}"
