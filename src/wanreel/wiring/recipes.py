"""Recipes: the request inside a file that Wanreel made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from wanreel.core.errors import UnreadableRecipe
from wanreel.core.resolved import ResolvedRequest
from wanreel.core.work import Work, work_from_dict
from wanreel.media.recipe import read_recipe, recipe_in

if TYPE_CHECKING:
    pass


def read_request(video: Path) -> ResolvedRequest:
    """The request inside a video that Wanreel made. Raises UnreadableRecipe."""
    return _request_of(read_recipe(video), video.name)


def read_work(file: Path) -> Work:
    """What the recipe inside a video or a picture asks for. Raises UnreadableRecipe."""
    return _work_of(read_recipe(file), file.name)


def request_in(file: BinaryIO, name: str) -> ResolvedRequest:
    """The same of a file that came from anywhere. Its values are not checked."""
    return _request_of(recipe_in(file, name), name)


def _request_of(recipe: str, name: str) -> ResolvedRequest:
    work = _work_of(recipe, name)
    if not isinstance(work, ResolvedRequest):
        raise UnreadableRecipe.of("from", "no_video", f"{name} is a picture.", "Give it as the first frame.")
    return work


def _work_of(recipe: str, name: str) -> Work:
    try:
        values = cast("Mapping[str, Mapping[str, object]]", json.loads(recipe))
        return work_from_dict(values["request"])
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UnreadableRecipe.of(
            "from", "unreadable_recipe", f"{name} carries a recipe this version can't read."
        ) from exc
