"""Work: what a job may be asked to make, whatever it is. The one place that tells kinds apart in records."""

from __future__ import annotations

from collections.abc import Mapping

from wanreel.core.catalog import ModelSpec
from wanreel.core.picture_models import PictureSpec
from wanreel.core.picture_request import IMAGE, ResolvedPicture
from wanreel.core.picture_resolve import PictureResolution
from wanreel.core.resolved import Resolution, ResolvedRequest

Work = ResolvedRequest | ResolvedPicture
AnyResolution = Resolution | PictureResolution
AnySpec = ModelSpec | PictureSpec


def models_of(work: Work) -> tuple[str, ...]:
    """Names of the models that take part in making it, the one that it is named for first."""
    if isinstance(work, ResolvedPicture):
        return (work.model, work.refiner) if work.refiner else (work.model,)
    return (work.model, work.keyframe.model) if work.keyframe is not None else (work.model,)


def work_from_dict(data: Mapping[str, object]) -> Work:
    """The inverse of `to_dict` of either. Raises KeyError or TypeError on foreign data."""
    return ResolvedPicture.from_dict(data) if data["mode"] == IMAGE else ResolvedRequest.from_dict(data)
