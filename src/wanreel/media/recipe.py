"""The recipe inside a result: a JSON text in the file's own metadata. Knows nothing of what it says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import av
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

from wanreel.core.errors import UnreadableRecipe
from wanreel.media.animation import xmp_text

MARK = "wanreel"  #: first key of every recipe, by which ours are told from others' comments
MAX_BYTES = 4 * 2**20


def recipe_metadata(recipe: str, title: str) -> Mapping[str, str]:
    """Container metadata that carries `recipe`; `title` is what players show."""
    return {"title": title[:200], "comment": recipe}


def read_recipe(path: Path) -> str:
    """The recipe that `path` carries. Raises UnreadableRecipe when it has none or can't be read."""
    comment = _comment(path)
    if not comment or f'"{MARK}"' not in comment[:64]:
        raise _refuse(
            f"{path.name} carries no recipe of Wanreel's.", "It may have been made with --no-metadata, or re-encoded."
        )
    if len(comment) > MAX_BYTES:
        raise _refuse(f"{path.name} carries a recipe larger than any of ours.", "")
    return comment


def _comment(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if head[:4] == b"GIF8" or (head[:4] == b"RIFF" and head[8:] == b"WEBP"):
            return _picture_comment(path)
        with av.open(str(path), metadata_errors="replace") as container:
            tags = {key.lower(): value for key, value in container.metadata.items()}
            return tags.get("comment", "")
    except FFmpegError as exc:
        raise _refuse(
            f"{path.name} is no video that can be read.", "Give an MP4, WebM, WebP or GIF that Wanreel made."
        ) from exc
    except OSError as exc:
        raise _refuse(f"{path} can't be read: {exc.strerror or 'unknown format'}.", "") from exc


def _picture_comment(path: Path) -> str:
    try:
        with Image.open(path, formats=["WEBP", "GIF"]) as image:
            if image.format == "GIF":
                comment = image.info.get("comment", b"")
                return comment.decode(errors="replace") if isinstance(comment, bytes) else str(comment)
            return xmp_text(image.info.get("xmp", b""))
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError) as exc:
        raise _refuse(f"{path.name} is no picture that can be read.", "") from exc


def _refuse(message: str, hint: str) -> UnreadableRecipe:
    return UnreadableRecipe.of("from", "unreadable_recipe", message, hint)
