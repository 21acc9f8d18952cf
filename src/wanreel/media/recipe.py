"""The recipe inside a result: a JSON text in the file's own metadata. Knows nothing of what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from wanreel.core.errors import UnreadableRecipe
from wanreel.media.skim import NoVideo, comment_of

MARK = "wanreel"  #: first key of every recipe, by which ours are told from others' comments
MAX_TITLE = 200  #: characters
_KINDS_HINT = "Give an MP4, WebM, WebP, GIF or PNG that Wanreel made."
_LONE = re.compile("[\ud800-\udfff]")  # halves of characters, which UTF-8 can't write


def recipe_metadata(recipe: str, title: str) -> Mapping[str, str]:
    """Container metadata that carries `recipe`, a JSON text; `title` is what players show."""
    # Within JSON, half a character can be written as its escape and is read back as it was.
    comment = _LONE.sub(lambda half: f"\\u{ord(half[0]):04x}", recipe)
    shown = " ".join(_LONE.sub(" ", title).replace("\0", " ").split())
    return {"title": shown[:MAX_TITLE], "comment": comment}


def read_recipe(path: Path) -> str:
    """The recipe that `path` carries: a JSON object. Raises UnreadableRecipe when it has none or can't be read."""
    try:
        with path.open("rb") as file:
            return recipe_in(file, path.name)
    except OSError as exc:
        raise _refuse(f"{path} can't be read: {exc.strerror or 'unknown format'}.", "Check the path.") from exc


def recipe_in(file: BinaryIO, name: str) -> str:
    """The same from an open file, which may be anybody's: only its headers and its comment are read."""
    try:
        comment = comment_of(file)
    except NoVideo as exc:
        raise _refuse(f"{name} is no video or picture that can be read.", _KINDS_HINT) from exc
    if f'"{MARK}"' not in comment[:64]:
        raise _refuse(
            f"{name} carries no recipe of Wanreel's.", "It may have been made with --no-metadata, or re-encoded."
        )
    try:
        json.loads(comment)
    except (ValueError, RecursionError) as exc:
        raise _refuse(f"{name} carries a recipe that was cut short or changed.", _KINDS_HINT) from exc
    return comment


def _refuse(message: str, hint: str) -> UnreadableRecipe:
    return UnreadableRecipe.of("from", "unreadable_recipe", message, hint)
