"""What Diffusers' and transformers' own loaders read from a folder. Knows nothing of which model the parts belong to.

Never goes online, takes safetensors alone, and a part that lacks a tensor is an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from wanreel.core.errors import BrokenWeights
from wanreel.models.components import quiet


def read_module(kind: Any, folder: Path, name: str, **options: Any) -> Any:
    """A module of the class `kind`, called `name` in errors, for inference; `options` go to its `from_pretrained`.

    Raises BrokenWeights when it can't be read, or tensors are missing or have another shape.
    """
    try:
        with quiet():
            module, info = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BrokenWeights(f"{name}/ can't be loaded ({error}).") from error
    wrong = sorted(str(key) for what in ("missing_keys", "mismatched_keys") for key in info[what])
    if wrong:
        raise BrokenWeights(f"{name}/ lacks {len(wrong)} tensors, or they have another shape ({wrong[0]}, …).")
    return module.eval().requires_grad_(False)


def read_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer in `folder`, called `name` in errors. Raises BrokenWeights when it can't be read."""
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenWeights(f"{name}/ can't be loaded ({error}).") from error
