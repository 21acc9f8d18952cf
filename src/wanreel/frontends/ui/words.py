"""The page's words in its languages, from the files that its scripts read too."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

LANGUAGES = {"en": "English", "zh": "中文"}


@cache
def words(language: str) -> dict[str, str]:
    """Text by key."""
    file = files(__package__).joinpath("static", "locales", f"{language}.json")
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return found
