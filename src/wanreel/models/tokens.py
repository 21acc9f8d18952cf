"""TokenCounts: how many tokens a prompt has for a model, by its own tokenizer where that is here. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wanreel.core.catalog import ModelSpec
from wanreel.core.errors import ModelNotInstalled
from wanreel.core.prompt_help import Tokens, estimated_tokens
from wanreel.models.shelf import Shelf, is_tiny

FILE = "tokenizer.json"


@dataclass(frozen=True)
class TokenCounts:
    """Of the models on one shelf. Tokenizers are read once."""

    shelf: Shelf
    _read: dict[Path, Any] = field(default_factory=dict[Path, Any], repr=False)

    def of(self, spec: ModelSpec) -> Tokens:
        """Who counts for `spec`: its own tokenizer, or an estimate that says so."""
        path = self._path(spec)
        if path is None:
            return Tokens(estimated_tokens, spec.prompt_tokens, source=f"an estimate; {spec.name} is not here")
        tokenizer = self._read.get(path) or self._read.setdefault(path, _opened(path))
        return Tokens(_counter(tokenizer), spec.prompt_tokens, exact=True, source=f"{spec.name}'s tokenizer")

    def _path(self, spec: ModelSpec) -> Path | None:
        if is_tiny(spec):
            return None
        try:
            path = self.shelf.folder(spec) / "tokenizer" / FILE
        except ModelNotInstalled:
            return None
        return path if path.is_file() else None


def _opened(path: Path) -> Any:
    from tokenizers import Tokenizer  # here, as most processes count nothing

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _counter(tokenizer: Any) -> Callable[[str], int]:
    return lambda text: len(tokenizer.encode(text).ids)
