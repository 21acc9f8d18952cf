"""Weight hashes: what a manifest says of the weights, and whether it is still so. Knows nothing of their meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from wanreel.core.catalog import Catalog
from wanreel.core.errors import BrokenWeights, ModelError, UnknownModel, UnreadableRecipe
from wanreel.core.manifest import Manifest
from wanreel.core.work import AnySpec
from wanreel.models.formats.assembly import Assembly
from wanreel.storage.digests import Digests

#: Finds a model's folder; None for a model that is made up on the spot.
FolderOf = Callable[[AnySpec], Path | None]

_KINDS = (".safetensors", ".json", ".model", ".txt")  # weights, configurations, tokenizers
_MADE_UP = {"made up": "from the model's name"}  # tiny models: equal for equal code, which `software` names


def weight_hashes(folder: Path | None, digests: Digests) -> Mapping[str, str]:
    """SHA-256 of every file that the model is read from, by its path within the folder. Raises BrokenWeights."""
    if folder is None:
        return _MADE_UP
    try:
        return {name: digests.of(path) for name, path in _files(folder)}
    except OSError as exc:
        raise BrokenWeights(f"The weights in {folder} can't be read: {exc.strerror}.") from exc


def same_weights(manifest: Path, catalog: Catalog, folder_of: FolderOf, digests: Digests) -> bool:
    """Whether the weights that a manifest names are surely the ones here now. Reads no weight: unknown means no."""
    try:
        recorded = Manifest.from_json(manifest.read_text(encoding="utf-8"))
        folder = folder_of(catalog.weights(recorded.request.model))
    except (OSError, UnreadableRecipe, UnknownModel, ModelError):
        return False
    if folder is None:
        return recorded.weights == _MADE_UP
    try:
        return recorded.weights == {name: digests.known(path) for name, path in _files(folder)}
    except (OSError, ModelError):
        return False


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of each file; of an assembly, wherever they lie. Raises OSError, BrokenWeights."""
    assembly = Assembly.read(folder)
    if assembly is not None:
        return sorted(assembly.files())
    found = sorted(path for path in folder.rglob("*") if path.suffix in _KINDS and path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in found]
