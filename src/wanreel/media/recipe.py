"""The recipe inside a result: a JSON text in the file's own metadata. Knows nothing of what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

from wanreel.core.errors import UnreadableRecipe
from wanreel.media.animation import xmp_text
from wanreel.media.containers import open_container

MARK = "wanreel"  #: first key of every recipe, by which ours are told from others' comments
MAX_BYTES = 4 * 2**20
MAX_TITLE = 200  #: characters
_KINDS_HINT = "Give an MP4, WebM, WebP or GIF that Wanreel made."
_LONE = re.compile("[\ud800-\udfff]")  # halves of characters, which UTF-8 can't write


def recipe_metadata(recipe: str, title: str) -> Mapping[str, str]:
    """Container metadata that carries `recipe`, a JSON text; `title` is what players show."""
    # Within JSON, half a character can be written as its escape and is read back as it was.
    comment = _LONE.sub(lambda half: f"\\u{ord(half[0]):04x}", recipe)
    shown = " ".join(_LONE.sub(" ", title).replace("\0", " ").split())
    return {"title": shown[:MAX_TITLE], "comment": comment}


def read_recipe(path: Path) -> str:
    """The recipe that `path` carries: a JSON object. Raises UnreadableRecipe when it has none or can't be read."""
    comment = _comment(path)
    if len(comment) > MAX_BYTES:
        raise _refuse(f"{path.name} carries a comment larger than any recipe.", _KINDS_HINT)
    if f'"{MARK}"' not in comment[:64]:
        raise _refuse(
            f"{path.name} carries no recipe of Wanreel's.", "It may have been made with --no-metadata, or re-encoded."
        )
    try:
        json.loads(comment)
    except (ValueError, RecursionError) as exc:
        raise _refuse(f"{path.name} carries a recipe that was cut short or changed.", _KINDS_HINT) from exc
    return comment


def _comment(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(12)
            file.seek(0)
            if head[:4] == b"GIF8" or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
                return _picture_comment(file)
            with open_container(file) as container:
                tags = {key.lower(): value for key, value in container.metadata.items()}
                return tags.get("comment", "")
    except (FFmpegError, UnidentifiedImageError, SyntaxError, ValueError, EOFError) as exc:
        raise _refuse(f"{path.name} is no video that can be read.", _KINDS_HINT) from exc
    except OSError as exc:
        raise _refuse(f"{path} can't be read: {exc.strerror or 'unknown format'}.", "Check the path.") from exc


def _picture_comment(file: BinaryIO) -> str:
    with Image.open(file, formats=["WEBP", "GIF"]) as image:
        if image.format == "GIF":
            comment = image.info.get("comment", b"")
            return comment.decode(errors="replace") if isinstance(comment, bytes) else str(comment)
        return xmp_text(image.info.get("xmp", b""))


def _refuse(message: str, hint: str) -> UnreadableRecipe:
    return UnreadableRecipe.of("from", "unreadable_recipe", message, hint)
