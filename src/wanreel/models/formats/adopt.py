"""Adopting weights where they lie: one model from given parts, or whatever a folder of ComfyUI or Wan2GP holds.

Nothing is copied or moved. Knows nothing of loading; imports no torch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights, InvalidRequest, ModelNotInstalled
from wanreel.models.formats.assembly import Assembly, check_name
from wanreel.models.formats.detect import PICKLES, SUFFIXES, Found, identify, misfits, replacement
from wanreel.models.registry.contents import components

_OPTIONAL = ("scheduler", "image_processor")  #: what has a good answer without a file
_DEEPEST = 6  # folders below the one that is scanned
_MOST_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One file of a folder that was looked through."""

    path: Path
    found: Found | None  #: None when it can't be read
    problem: str = ""  #: why


@dataclass(frozen=True, slots=True)
class Proposal:
    """A model that a folder's files make."""

    name: str
    base: ModelSpec
    parts: Mapping[str, Path]
    missing: tuple[str, ...] = ()  #: parts that are neither in the folder nor installed


@dataclass(frozen=True)
class Adopter:
    """Puts models together in the models' folder `root`."""

    root: Path
    rows: Sequence[ModelSpec]  #: of the catalogue
    taken: Callable[[str], bool] = field(default=lambda name: False)  #: whether a model of that name is installed

    def adopt(self, name: str, base: ModelSpec, parts: Mapping[str, Path], folder: Path | None = None) -> Assembly:
        """Write down `parts` (files, folders, and what the authors' `folder` holds) as the model `name`.

        Parts not given come from models that are here. Raises InvalidRequest, BrokenWeights naming what was found and
        what was needed, ModelNotInstalled naming what is still missing.
        """
        check_name(name)
        if self.taken(name):
            raise InvalidRequest.of("name", "taken", f"there is a model {name} already.", "Choose another name.")
        given = (dict(folder_parts(base, folder)) if folder is not None else {}) | {
            part: path.expanduser().resolve() for part, path in parts.items()
        }
        if not any(part.startswith("transformer") for part in given):
            raise InvalidRequest.of("transformer", "required", "no transformer was given.", "Name its file or folder.")
        for part, path in given.items():
            self._check(base, part, path)
        whole = given | self._found(base, given)
        missing = [part for part in components(base) if part not in whole and part not in _OPTIONAL]
        if missing:
            flags = " ".join(f"--component {part}" for part in missing)
            raise ModelNotInstalled(
                f"{name} still lacks {', '.join(missing)}.{_pickled(folder, missing)}",
                hint=f"`wanreel models pull {base.name} {flags}` brings them; then add it again.",
            )
        assembly = Assembly(base.name, whole)
        assembly.save(self.root / name)
        return assembly

    def proposals(self, seen: Iterable[Seen]) -> list[Proposal]:
        """The models that these files make, with what is installed."""
        found = [it.found for it in seen if it.found is not None]
        proposals: list[Proposal] = []
        for base, parts in _transformer_sets(self.rows, found):
            whole = dict(parts)
            for part in ("vae", "text_encoder", "image_encoder"):
                fitting = [it.path for it in found if part in components(base) and not misfits(it, base, part)]
                if fitting:
                    whole[part] = max(fitting, key=lambda path: path.stat().st_size)
            whole |= self._found(base, whole)
            missing = tuple(part for part in components(base) if part not in whole and part not in _OPTIONAL)
            name = self._free_name(base, parts, [it.name for it in proposals])
            proposals.append(Proposal(name, base, whole, missing))
        return proposals

    def save(self, proposal: Proposal) -> None:
        """Write a complete proposal down."""
        Assembly(proposal.base.name, proposal.parts).save(self.root / proposal.name)

    def _check(self, base: ModelSpec, part: str, path: Path) -> None:
        """By the header of a file. Folders are judged when they are loaded, by their configs too."""
        if part not in components(base):
            raise InvalidRequest.of(part, "unknown_value", f"{base.name} has no {part}.")
        if path.is_file():
            reason = misfits(identify(path), base, part)
            if reason:
                raise BrokenWeights(f"{reason}.")
        elif not path.is_dir():
            raise InvalidRequest.of(part, "missing", f"{path} is not there.")

    def _found(self, base: ModelSpec, have: Iterable[str]) -> dict[str, Path]:
        """Parts of models that are here, for those not in `have`: of the base itself first."""
        wanted = [part for part in components(base) if part not in have and not part.startswith("transformer")]
        homes = [self.root / base.name, *sorted(path for path in self.root.glob("*") if path.is_dir())]
        return {part: place for part in wanted if (place := _first(homes, part, base)) is not None}

    def _free_name(self, base: ModelSpec, parts: Mapping[str, Path], used: Sequence[str]) -> str:
        """The base's name and the precision of its weights."""
        precision = re.sub(r"[^a-z0-9_]+", "-", identify(parts["transformer"]).precision.lower())
        wanted, number = f"{base.name}-{precision}", 1
        name = wanted
        while name in used or self.taken(name):
            if self._is(name, parts):
                break
            number += 1
            name = f"{wanted}-{number}"
        return name

    def _is(self, name: str, parts: Mapping[str, Path]) -> bool:
        """Whether the model of that name has just these transformers: then it is adopted again, not twice."""
        assembly = Assembly.read(self.root / name)
        return assembly is not None and all(assembly.parts.get(part) == path for part, path in parts.items())


def folder_parts(base: ModelSpec, folder: Path) -> Iterator[tuple[str, Path]]:
    """The parts in a folder in Diffusers' or the authors' layout. Pickles are left out."""
    folder = folder.expanduser().resolve()
    for part in components(base):
        if (folder / part).is_dir():
            yield part, folder / part
    experts = {"transformer": "high_noise_model", "transformer_2": "low_noise_model"} if base.two_experts else {}
    for part, name in experts.items():
        if (folder / name).is_dir():
            yield part, folder / name
    if not experts and any(folder.glob("diffusion_pytorch_model*.safetensors")):
        yield "transformer", folder
    tokenizer = folder / "google" / "umt5-xxl"
    if tokenizer.is_dir():
        yield "tokenizer", tokenizer


def look_through(folder: Path) -> Iterator[Seen]:
    """Every file of weights below `folder`, by its header. Links out of it and hidden folders are not followed."""
    count = 0
    for place, folders, files in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and depth < _DEEPEST)
        for name in sorted(files):
            path = Path(place) / name
            if path.suffix.lower() not in (*SUFFIXES, *PICKLES):
                continue
            count += 1
            if count > _MOST_FILES:
                raise InvalidRequest.of("folder", "too_large", f"{folder} holds more than {_MOST_FILES} files.")
            try:
                yield Seen(path.resolve(), identify(path))
            except BrokenWeights as error:
                yield Seen(path.resolve(), None, str(error))


def _transformer_sets(rows: Sequence[ModelSpec], found: Sequence[Found]) -> Iterator[tuple[ModelSpec, dict[str, Path]]]:
    """Each transformer, or pair of experts, with the row that it most probably is."""
    transformers = [it for it in found if it.part == "transformer"]
    for one in transformers:
        base = _best_row(rows, one)
        if base is None or one.expert == "low":
            continue
        if not base.two_experts:
            yield base, {"transformer": one.path}
            continue
        partner = next((it for it in transformers if it.expert == "low" and _pair(it) == _pair(one)), None)
        if partner is not None and not misfits(partner, base, "transformer_2"):
            yield base, {"transformer": one.path, "transformer_2": partner.path}


def _best_row(rows: Sequence[ModelSpec], found: Found) -> ModelSpec | None:
    name = found.path.name.lower()
    fitting = [
        row
        for row in rows
        if row.hub_id and not misfits(found, row, "transformer") and row.two_experts == bool(found.expert)
    ]
    few_step = [row for row in fitting if row.few_step == ("fastwan" in name)]
    sized = [row for row in few_step if any(size in name and size in row.name for size in ("480", "720"))]
    return next(iter(sized or few_step), None)


def _pair(found: Found) -> str:
    return re.sub(r"high|low", "", found.path.name.lower())


def _first(homes: Iterable[Path], part: str, base: ModelSpec) -> Path | None:
    for home in homes:
        assembly = Assembly.read(home)
        place = assembly.parts.get(part) if assembly is not None else home / part
        if place is not None and place.exists() and _suits(place, part, base):
            return place
    return None


def _suits(place: Path, part: str, base: ModelSpec) -> bool:
    """Whether an installed part is the one that `base` needs: VAEs differ, the other shared parts are one for all."""
    if place.is_file():
        try:
            return not misfits(identify(place), base, part)
        except BrokenWeights:
            return False
    if part in ("tokenizer", "scheduler", "image_processor"):
        return any(place.glob("*.json"))
    config = _config(place / "config.json")
    if part == "vae" and config.get("z_dim", 16) != base.latent_channels:
        return False
    return any(place.glob("*.safetensors"))


def _config(path: Path) -> Mapping[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}


def _pickled(folder: Path | None, missing: Sequence[str]) -> str:
    """A word on the authors' pickles that hold what is missing."""
    if folder is None:
        return ""
    files = [path for path in sorted(folder.expanduser().iterdir()) if path.suffix in PICKLES]
    meant = [path.name for path in files if any(f"--component {part}" in replacement(path) for part in missing)]
    return f" {', '.join(meant)}: pickles, which can run code and are never read." if meant else ""
