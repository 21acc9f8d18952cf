"""Which files of a repository in Diffusers layout a model needs: an allow-list, so that nothing else is ever fetched.

Knows nothing of downloads. No `.py`, no pickle, no path that leaves its folder can match.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from wanreel.core.errors import HubUnavailable, InvalidRequest
from wanreel.core.picture_models import PictureSpec
from wanreel.core.work import AnySpec
from wanreel.models.registry.hub import HubFile

INDEX = "model_index.json"
_STEM = r"(diffusion_pytorch_model|model)"
_TOKENIZER = r"(special_tokens_map\.json|added_tokens\.json|spiece\.model|tokenizer\.json|tokenizer_config\.json|vocab\.json|merges\.txt)"
#: By component: its files' names within its folder.
_NAMES = {
    "tokenizer": _TOKENIZER,
    "tokenizer_2": _TOKENIZER,
    "scheduler": r"scheduler_config\.json",
    "processor": r"preprocessor_config\.json",
    "image_processor": r"preprocessor_config\.json",
}
_LARGEST_TEXT = 64 * 2**20  # bytes of a file that is no weights


def components(spec: AnySpec) -> tuple[str, ...]:
    """The folders of `spec`'s repository that are used."""
    if isinstance(spec, PictureSpec):
        return spec.components
    clip = ("image_encoder", "image_processor") if spec.clip else ()
    experts = ("transformer", "transformer_2")[: spec.experts]
    return ("scheduler", "tokenizer", "text_encoder", *clip, "vae", *experts)


def _module(variant: str | None) -> str:
    """Names of a module's files; of a variant's, where a repository has several."""
    kind = rf"\.{variant}" if variant else ""
    weights = rf"{_STEM}{kind}(-\d{{5}}-of-\d{{5}})?\.safetensors"
    return rf"(config\.json|{weights}|{_STEM}\.safetensors\.index{kind}\.json)"


def wanted_files(spec: AnySpec, files: Iterable[HubFile], only: Collection[str] = ()) -> tuple[HubFile, ...]:
    """Those of `files` that `spec` needs, or that its components `only` need.

    Raises InvalidRequest for a component it has not, HubUnavailable when the repository lacks one.
    """
    names = components(spec)
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise InvalidRequest.of(
            "component", "unknown_value", f"{spec.name} has no {unknown[0]}.", f"It has {', '.join(names)}."
        )
    chosen = tuple(only) or names
    module = _module(spec.variant if isinstance(spec, PictureSpec) else None)
    patterns = {name: re.compile(f"{name}/{_NAMES.get(name, module)}") for name in chosen}
    found = {name: [file for file in files if patterns[name].fullmatch(file.path)] for name in chosen}
    missing = [name for name, rows in found.items() if not rows]
    index = [file for file in files if file.path == INDEX and not only]
    if missing or not (index or only):
        raise HubUnavailable(
            f"{spec.hub_id} holds no {', '.join(missing) or INDEX} in safetensors.", hint="Check the repository's name."
        )
    wanted = [file for rows in found.values() for file in rows] + index
    for file in wanted:
        if not file.path.endswith(".safetensors") and file.size > _LARGEST_TEXT:
            raise HubUnavailable(f"{spec.hub_id}: {file.path} would have {file.size} bytes.", hint="It is not fetched.")
    return tuple(wanted)
