"""Shelf: where each model's weights lie on this machine. Looks at names only; opens no weight and imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wanreel import demo
from wanreel.core.catalog import TINY_PREFIX, ModelSpec
from wanreel.core.errors import ModelNotInstalled

INDEX = "model_index.json"  #: what makes a folder a Diffusers pipeline
PREVIEW = "preview.safetensors"  #: a preview decoder in a model's folder


@dataclass(frozen=True)
class Shelf:
    """Finds the folder of a model: the operator's own, then `root/NAME`, then what ships with Wanreel."""

    root: Path
    own_folders: Mapping[str, Path] = field(default_factory=dict[str, Path])

    def folder(self, spec: ModelSpec) -> Path:
        """The Diffusers folder of `spec`. Raises ModelNotInstalled, saying where one was looked for."""
        for folder in self._candidates(spec):
            if (folder / INDEX).is_file():
                return folder
        looked = ", ".join(str(folder) for folder in self._candidates(spec))
        cure = f"`wanreel models pull {spec.name}` downloads it" if spec.hub_id else "Put its weights there"
        raise ModelNotInstalled(
            f"{spec.name} is not installed: no {INDEX} in {looked}.", hint=f"{cure}; `--model demo` needs nothing."
        )

    def preview(self, spec: ModelSpec) -> Path | None:
        """The model's preview decoder, where it brings one."""
        path = demo.preview_path() if spec.builtin else self.folder(spec) / PREVIEW
        return path if path.is_file() else None

    def has(self, spec: ModelSpec) -> bool:
        """Whether `spec` can be loaded. Tiny models are made on the spot."""
        return is_tiny(spec) or any((folder / INDEX).is_file() for folder in self._candidates(spec))

    def installed(self, specs: Iterable[ModelSpec]) -> frozenset[str]:
        return frozenset(spec.name for spec in specs if self.has(spec))

    def _candidates(self, spec: ModelSpec) -> tuple[Path, ...]:
        own = self.own_folders.get(spec.name)
        if own is not None:
            return (own,)
        if spec.builtin:
            return (demo.weights_path(),)
        return (self.root / spec.name,)


def is_tiny(spec: ModelSpec) -> bool:
    """Whether the model is made up on the spot instead of loaded."""
    return spec.name.startswith(TINY_PREFIX)
