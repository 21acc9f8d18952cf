"""Shelf: where each model's weights lie on this machine. Looks at names only; opens no weight and imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wanreel import demo
from wanreel.core.catalog import TINY_PREFIX, ModelSpec
from wanreel.core.errors import ModelNotInstalled
from wanreel.core.work import AnySpec
from wanreel.models.formats.assembly import NAME as ASSEMBLY

INDEX = "model_index.json"  #: what makes a folder a Diffusers pipeline
PREVIEW = "preview.safetensors"  #: a preview decoder in a model's folder


@dataclass(frozen=True)
class Shelf:
    """Finds the folder of a model: the operator's own, then `root/NAME`, then what ships with Wanreel."""

    root: Path
    own_folders: Mapping[str, Path] = field(default_factory=dict[str, Path])
    elsewhere: frozenset[str] = frozenset()  #: models that run on other machines, which have their weights

    def folder(self, spec: AnySpec) -> Path:
        """The folder of `spec`: in Diffusers layout, or an assembly. Raises ModelNotInstalled, saying where one was looked for."""
        for folder in self._candidates(spec):
            if _holds_model(folder):
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

    def has(self, spec: AnySpec) -> bool:
        """Whether `spec` can be loaded, here or where it runs. Tiny models are made on the spot."""
        return is_tiny(spec) or spec.name in self.elsewhere or self.holds(spec)

    def holds(self, spec: AnySpec) -> bool:
        """Whether its weights lie on this machine."""
        return any(_holds_model(folder) for folder in self._candidates(spec))

    def installed(self, specs: Iterable[AnySpec]) -> frozenset[str]:
        return frozenset(spec.name for spec in specs if self.has(spec))

    def _candidates(self, spec: AnySpec) -> tuple[Path, ...]:
        own = self.own_folders.get(spec.name)
        if own is not None:
            return (own,)
        if spec.builtin:
            return (demo.weights_path(),)
        return (self.root / spec.name,)


def _holds_model(folder: Path) -> bool:
    return (folder / INDEX).is_file() or (folder / ASSEMBLY).is_file()


def is_tiny(spec: AnySpec) -> bool:
    """Whether the model is made up on the spot instead of loaded."""
    return spec.name.startswith(TINY_PREFIX)
