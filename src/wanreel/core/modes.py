"""Modes: what kind of video the pictures of a request ask for. Knows nothing of what is in them."""

from __future__ import annotations

from collections.abc import Iterator

from wanreel.core.catalog import Mode, ModelSpec
from wanreel.core.errors import Problem
from wanreel.core.request import VideoRequest


def mode_of(request: VideoRequest) -> Mode:
    """What kind of video the pictures given ask for."""
    if request.last_image is not None:
        return "first_last"
    return "picture" if request.image is not None else "text"


def mode_problems(request: VideoRequest, spec: ModelSpec) -> Iterator[Problem]:
    """Why a model can't make what the pictures given ask for."""
    mode = mode_of(request)
    if request.last_image is not None and request.image is None:
        yield Problem("image", "required", "a last frame was given without a first one.", "Give both.")
    elif mode in spec.modes:
        return
    elif mode == "text":
        yield Problem("image", "required", f"{spec.name} starts from a picture.", "Give one, or choose a text model.")
    elif mode == "picture" and "first_last" in spec.modes:
        yield Problem("last_image", "required", f"{spec.name} needs the last frame too.", "Give one.")
    elif mode == "first_last" and "picture" in spec.modes:
        hint = "Leave it out, or choose flf2v-14b-720p."
        yield Problem("last_image", "contradiction", f"{spec.name} takes no last frame.", hint)
    else:
        hint = "Leave the picture out, or choose a model that starts from one."
        yield Problem("image", "contradiction", f"{spec.name} makes video from text alone.", hint)
