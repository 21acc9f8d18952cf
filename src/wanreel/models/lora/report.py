"""What is said of a LoRA before anything runs: whether it fits a model, and how much of it is used. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import BrokenWeights, InvalidRequest
from wanreel.core.lora import LoraFacts, LoraRef, target_of
from wanreel.models.lora.file import LoraFile, read_lora
from wanreel.models.lora.fit import Fit, base_of, fit, numbers_of
from wanreel.models.lora.shelf import LoraShelf, Shelved

#: Finds a model's folder; None where its weights are not here.
FolderOf = Callable[[ModelSpec], Path | None]

_SHOWN = 3  # of a list of tensors


@dataclass(frozen=True)
class LoraDesk:
    """Judges the LoRAs of one shelf for the models of one catalogue."""

    shelf: LoraShelf
    folder_of: FolderOf

    def facts(self, ref: LoraRef, spec: ModelSpec) -> LoraFacts:
        """What a request with `ref` must know. Raises InvalidRequest: not here, damaged, changed, of another base."""
        shelved = self.shelf.get(ref.name)
        found = self.fit_of(shelved, spec)
        if not found.ok:
            hint = f"`wanreel loras inspect {shelved.name}` shows which models it fits."
            raise InvalidRequest.of(
                "loras", "wrong_base", f"{shelved.name} is not for {spec.name}: {found.fault}.", hint
            )
        sha256 = self.shelf.sha256(shelved)
        if ref.sha256 not in ("", sha256):
            hint = "Give the old file back its name, or leave the hash out to take the new one."
            text = f"{shelved.name} is another file now than the one asked for."
            raise InvalidRequest.of("loras", "changed", text, hint)
        partner = self.shelf.partner(shelved)
        notes = (_unmatched_note(found),) if found.unmatched else ()
        rank = max(layer.rank for layer in found.matched)
        return LoraFacts(shelved.name, sha256, shelved.target, partner.name if partner else "", rank, notes)

    def fit_of(self, shelved: Shelved, spec: ModelSpec) -> Fit:
        """How much of it `spec` takes, by its header. Raises InvalidRequest for a damaged file."""
        try:
            return self.judge(read_lora(shelved.path), spec)
        except BrokenWeights as error:
            text = f"{shelved.name} can't be used: {error.message}"
            raise InvalidRequest.of("loras", "broken_lora", text, "Remove it and add it again.") from error

    def judge(self, file: LoraFile, spec: ModelSpec) -> Fit:
        numbers = numbers_of(spec, self.folder_of(spec))
        if numbers is None:
            return Fit(spec.name, fault=f"the shapes of {spec.name} are not known while it is not installed")
        return fit(file, spec, numbers)

    def report(self, shelved: Shelved, specs: Iterable[ModelSpec]) -> dict[str, Any]:
        """Everything about it, as plain JSON values. A damaged file is reported as such."""
        partner = self.shelf.partner(shelved)
        own = {"partner": partner.name if partner else None, "builtin": shelved.builtin}
        try:
            file = read_lora(shelved.path)
        except BrokenWeights as error:
            return report_of(shelved.name, None) | own | {"fault": error.message}
        fits = [fit_row(self.judge(file, spec)) for spec in specs]
        return report_of(shelved.name, file) | own | {"sha256": self.shelf.known_sha256(shelved), "fits": fits}


def report_of(name: str, file: LoraFile | None) -> dict[str, Any]:
    """The same keys for a file that is on no shelf; None for one that can't be read."""
    shelf = {"partner": None, "builtin": False, "fault": None, "sha256": None, "fits": []}
    return {"name": name, "target": target_of(name)} | shelf | _facts_of(file)


def fit_row(found: Fit) -> dict[str, Any]:
    """{"model": …, "ok": …, "matched": …, "unmatched": …, "examples": […], "fault": …}"""
    return {
        "model": found.model,
        "ok": found.ok,
        "matched": len(found.matched),
        "unmatched": len(found.unmatched),
        "examples": list(found.unmatched[:_SHOWN]) if found.ok else [],
        "fault": found.fault or None,
    }


def _facts_of(file: LoraFile | None) -> dict[str, Any]:
    if file is None:
        none = dict.fromkeys(("size_bytes", "format", "base", "layers", "rank", "scale"))
        return {**none, "dtypes": [], "two_experts": False, "about": {}}
    scales = [layer.scale for layer in file.layers]
    return {
        "size_bytes": file.size,
        "format": file.format,
        "base": base_of(file),
        "layers": len(file.layers),
        "rank": list(file.ranks),
        "scale": [min(scales), max(scales)],
        "dtypes": list(file.dtypes),
        "two_experts": file.two_experts,
        "about": dict(file.about),
    }


def _unmatched_note(found: Fit) -> str:
    shown = ", ".join(found.unmatched[:_SHOWN]) + (", …" if len(found.unmatched) > _SHOWN else "")
    return f"{len(found.unmatched)} of its tensors are not used: {shown}"
