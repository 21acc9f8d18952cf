"""The page's words in its languages, from the files that its scripts read too."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

LANGUAGES = {"en": "English", "zh": "中文"}


@cache
def words(language: str) -> dict[str, str]:
    """Text by key."""
    file = Path(__file__).with_name("static") / "locales" / f"{language}.json"
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return found
