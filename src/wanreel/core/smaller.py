"""smaller: what a request that ran out of memory is reduced to, and what that changes. Knows nothing of jobs."""

from __future__ import annotations

from wanreel.core.catalog import ModelSpec
from wanreel.core.resolved import Adjustment, ResolvedRequest


def smaller(request: ResolvedRequest, spec: ModelSpec) -> dict[str, object]:
    """Knobs of the next smaller request; empty where there is none.

    Both sides become three quarters of what they are, until the shorter one would be under half of the model's default.
    From there on every second frame's time is given up.
    """
    unit = spec.size_multiple
    width, height = (side * 3 // 4 // unit * unit for side in (request.width, request.height))
    usual = spec.sizes[spec.default_resolution]
    if 2 * min(width, height) >= min(usual.width, usual.height):
        return {"width": width, "height": height}
    stride = spec.temporal_stride
    frames = (request.num_frames - 1) // 2 // stride * stride + 1
    return {"num_frames": frames} if frames > 1 else {}


def changes_between(before: ResolvedRequest, after: ResolvedRequest, reason: str) -> tuple[Adjustment, ...]:
    """Every value in which two requests differ."""
    old, new = before.to_dict(), after.to_dict()
    return tuple(Adjustment(name, old[name], new[name], reason) for name in old if old[name] != new[name])
