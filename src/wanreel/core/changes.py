"""Changes to a request that was made before. Knows nothing of jobs or of how a request is resolved."""

from __future__ import annotations

from collections.abc import Mapping

from wanreel.core.few_step import without_recipe
from wanreel.core.request import VideoRequest

#: Knobs that mean the same for every model.
_ANY_MODEL = ("prompt", "image", "last_image", "seed", "output_format", "quality", "metadata")
#: What asking for a knob takes the place of.
_INSTEAD: Mapping[str, tuple[str, ...]] = {
    "resolution": ("width", "height"),
    "image": ("width", "height"),
    "seconds": ("num_frames",),
    "preset": ("num_inference_steps",),
    "guidance_scale": ("guidance_high", "guidance_low"),
}


def changed_request(kept: VideoRequest, changes: Mapping[str, object]) -> VideoRequest:
    """The request with other knobs. Raises InvalidRequest.

    Another model brings its own defaults: of the old values only those that mean the same everywhere are kept.
    """
    values = {name: getattr(kept, name) for name in VideoRequest.__dataclass_fields__}
    if changes.get("model", kept.model) != kept.model:
        values = {name: values[name] for name in _ANY_MODEL}
    if "preset" in changes:
        values = without_recipe(values)
    replaced = {name for asked in changes for name in _INSTEAD.get(asked, ())}
    values = {
        name: value for name, value in values.items() if value is not None and name not in replaced | set(changes)
    }
    return VideoRequest.from_mapping(values | dict(changes))
