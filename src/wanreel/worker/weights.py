"""Weight hashes: what a manifest says of the weights, and whether it is still so. Knows nothing of their meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from wanreel.core.catalog import Catalog
from wanreel.core.errors import BrokenWeights, ModelError, UnknownModel, UnreadableRecipe
from wanreel.core.manifest import Manifest
from wanreel.core.work import AnySpec, Work, models_of
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


def hashes_of_work(work: Work, hashes_of: Callable[[str], Mapping[str, str]]) -> Mapping[str, str]:
    """The hashes of every model that takes part; files of those after the first stand under their model's name."""
    first, *others = models_of(work)
    found = dict(hashes_of(first))
    for model in others:
        found |= {f"{model}/{name}": digest for name, digest in hashes_of(model).items()}
    return found


def same_weights(manifest: Path, catalog: Catalog, folder_of: FolderOf, digests: Digests) -> bool:
    """Whether the weights that a manifest names are surely the ones here now. Reads no weight: unknown means no."""

    def known(model: str) -> Mapping[str, str]:
        folder = folder_of(catalog.weights(model))
        if folder is None:
            return _MADE_UP
        return {name: digests.known(path) or "" for name, path in _files(folder)}

    try:
        recorded = Manifest.from_json(manifest.read_text(encoding="utf-8"))
        return recorded.weights == hashes_of_work(recorded.request, known)
    except (OSError, UnreadableRecipe, UnknownModel, ModelError):
        return False


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of each file; of an assembly, wherever they lie. Raises OSError, BrokenWeights."""
    assembly = Assembly.read(folder)
    if assembly is not None:
        return sorted(assembly.files())
    found = sorted(path for path in folder.rglob("*") if path.suffix in _KINDS and path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in found]
