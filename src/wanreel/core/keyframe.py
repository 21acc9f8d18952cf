"""Keyframe: the picture that a video begins with, made anew as an instruction says before the video is.

A request with `image` and `edit_prompt` runs *picture → edit → animate* in one job: the picture is edited as
`edit_prompt` says, by `edit_model`, with the video's seed, and the video begins with what comes out.

    VideoRequest(image=ref, edit_prompt="the same man, now on a beach", prompt="he turns and smiles", edit_model=None)

`resolve` makes of it a `ResolvedRequest` whose `keyframe` is the edit, a ResolvedPicture, and whose `image` is still the
picture given: so a job may be bound to a picture later (see worker/taking.py), and the video's size is known before
anything is drawn. While it runs, `generation.keyframe` puts the drawn picture in the place of `image` and the picture
given into `keyframe.image`; files hold the request so, and `as_request` of either is the request that was asked. The
drawn picture is the job's file "keyframe". Knows no files, devices or time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wanreel.core.edit_models import DEFAULT_EDIT
from wanreel.core.picture import PictureRef
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import PictureRequest, ResolvedPicture
from wanreel.core.picture_resolve import PictureResolution, resolve_picture
from wanreel.core.request import VideoRequest


def keyframe_of(
    request: VideoRequest, find: Callable[[str], PictureSpec], seed: int, default: str = DEFAULT_EDIT
) -> PictureResolution:
    """The edit that comes first. Raises InvalidRequest naming every problem, by the names of `PictureRequest`."""
    asked = PictureRequest(
        prompt=request.edit_prompt or "",
        wildcards=request.wildcards,
        image=request.image,
        mode="edit",
        model=request.edit_model,
        seed=seed,
        metadata=request.metadata,
    )
    return resolve_picture(asked, find, default, default_edit=default)


def shown_size(keyframe: ResolvedPicture) -> tuple[int, int]:
    """(width, height) in px of what it makes."""
    return keyframe.export_width, keyframe.export_height


def with_picture(keyframe: ResolvedPicture, picture: PictureRef) -> ResolvedPicture:
    """The edit of that picture."""
    return replace(keyframe, image=picture)
