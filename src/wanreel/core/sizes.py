"""Frame sizes: which width and height a request becomes. Integer arithmetic only, so that nothing depends on rounding.

Knows nothing of pictures beyond their width and height.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

from wanreel.core.catalog import ModelSpec, Size
from wanreel.core.request import ResolutionName, VideoRequest

#: (field, asked, used, reason), as `Adjustment` takes them
Note = tuple[str, object, object, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """What is generated and what of it is exported, in pixels."""

    width: int
    height: int
    export_width: int
    export_height: int
    flow_shift: float


def frame_for(spec: ModelSpec, request: VideoRequest) -> tuple[Frame, list[Note]]:
    """The frame of a request that has been checked, and what to tell the user about it."""
    notes: list[Note] = []
    if request.width is not None or request.height is not None:
        frame = _exact(spec, request, notes)
    else:
        frame = _by_resolution(spec, request, notes)
    if request.image is not None:
        _note_crop(frame, request, notes)
    return frame, notes


def official_size(width: int, height: int, area: int, multiple: int) -> tuple[int, int]:
    """Size of `area` pixels with the aspect of width × height: round(sqrt(area · aspect)), then down to `multiple`.

    The rule of the Diffusers documentation for Wan image to video (api/pipelines/wan.md), without its floats.
    """
    return (
        _down(_rounded_sqrt(area * width, height), multiple),
        _down(_rounded_sqrt(area * height, width), multiple),
    )


def best_output_size(width: int, height: int, area: int, multiple: int) -> tuple[int, int]:
    """Size of at most `area` pixels whose aspect is nearest to width × height.

    The rule of TI2V-5B (Wan-Video/Wan2.2 wan/utils/utils.py best_output_size), without its floats.
    """
    width_first = _down(isqrt(area * width // height), multiple)
    first = (width_first, _down(area // width_first, multiple))
    height_first = _down(isqrt(area * height // width), multiple)
    second = (_down(area // height_first, multiple), height_first)
    return first if _farther(second, first, width, height) else second


def _by_resolution(spec: ModelSpec, request: VideoRequest, notes: list[Note]) -> Frame:
    name: ResolutionName = request.resolution or spec.default_size_name(picture=request.image is not None)
    size = spec.sizes[name]
    area = size.width * size.height
    if request.image is None:
        width, height = size.width, size.height
    elif spec.conditioning == "first_frame":
        width, height = best_output_size(request.image.width, request.image.height, area, spec.size_multiple)
    else:
        width, height = official_size(request.image.width, request.image.height, area, spec.size_multiple)
    if spec.hard_max_side is not None and max(width, height) > spec.hard_max_side:
        shape = request.image or size
        width, height = _with_longest(spec.hard_max_side, shape.width, shape.height, spec.size_multiple)
    if request.resolution is not None and spec.hard_max_side is not None:
        notes.append(("resolution", name, f"{width}×{height}", f"what {spec.name} makes of {name}"))
    elif not size.trained:
        notes.append(
            ("resolution", request.resolution, f"{width}×{height}", f"{spec.name} was not trained for this size")
        )
    return _padded(spec, width, height, size.flow_shift, notes, request)


def _exact(spec: ModelSpec, request: VideoRequest, notes: list[Note]) -> Frame:
    width, height = _both_sides(spec, request)
    limited = _within(spec, width, height)
    if limited != (width, height):
        notes.append(
            (
                "width",
                f"{width}×{height}",
                f"{limited[0]}×{limited[1]}",
                f"the largest side {spec.name} makes is {spec.hard_max_side} px",
            )
        )
        width, height = limited
    size = _nearest(spec, width * height)
    trained = any(s.trained and s.width * s.height == width * height for s in spec.sizes.values())
    if not trained and spec.hard_max_side is None:
        notes.append(("width", None, f"{width}×{height}", f"{spec.name} was not trained for this size"))
    return _padded(spec, width, height, size.flow_shift, notes, request)


def _both_sides(spec: ModelSpec, request: VideoRequest) -> tuple[int, int]:
    """Width and height asked for; a side left out follows the picture, else the model's default size."""
    if request.width is not None and request.height is not None:
        return request.width, request.height
    default = spec.sizes[spec.default_resolution]
    shape = request.image or default
    if request.width is not None:
        return request.width, max(
            spec.size_multiple, _nearest_multiple(request.width * shape.height, shape.width, spec.size_multiple)
        )
    height = request.height or default.height
    return max(spec.size_multiple, _nearest_multiple(height * shape.width, shape.height, spec.size_multiple)), height


def _padded(
    spec: ModelSpec, width: int, height: int, flow_shift: float, notes: list[Note], request: VideoRequest
) -> Frame:
    """Generate the next multiple up and export the centre, so that the file has exactly the size asked for."""
    export_width, export_height = width + width % 2, height + height % 2
    if (export_width, export_height) != (width, height):
        notes.append(("width", f"{width}×{height}", f"{export_width}×{export_height}", "video sides are even"))
    multiple = spec.size_multiple
    frame = Frame(
        -(-export_width // multiple) * multiple,
        -(-export_height // multiple) * multiple,
        export_width,
        export_height,
        flow_shift,
    )
    if (frame.width, frame.height) != (export_width, export_height):
        asked = request.resolution or f"{export_width}×{export_height}"
        reason = f"generated at multiples of {multiple}, exported as {export_width}×{export_height}"
        notes.append(("width", asked, f"{frame.width}×{frame.height}", reason))
    return frame


def _within(spec: ModelSpec, width: int, height: int) -> tuple[int, int]:
    """Scaled down so that no side passes the model's largest."""
    limit = spec.hard_max_side
    if limit is None or max(width, height) <= limit:
        return width, height
    return _with_longest(limit, width, height, spec.size_multiple)


def _with_longest(limit: int, width: int, height: int, multiple: int) -> tuple[int, int]:
    """The aspect of width × height with the longer side at `limit`, the other at the nearest multiple."""
    longest = max(width, height)
    return (
        min(limit, max(multiple, _nearest_multiple(width * limit, longest, multiple))),
        min(limit, max(multiple, _nearest_multiple(height * limit, longest, multiple))),
    )


def _note_crop(frame: Frame, request: VideoRequest, notes: list[Note]) -> None:
    image = request.image
    if image is None:
        return
    # The share of the picture that covering the frame cuts away; a few pixels of snapping are not worth a word.
    wide, high = image.width * frame.height, image.height * frame.width
    lost = 1 - min(wide, high) / max(wide, high)
    if lost > 0.05:
        notes.append(
            (
                "image",
                f"{image.width}×{image.height}",
                f"{frame.width}×{frame.height}",
                f"{lost:.0%} is cropped away to fill the frame",
            )
        )


def _nearest(spec: ModelSpec, area: int) -> Size:
    """The named size whose area is nearest, as a ratio: its shift is used."""

    def distance(size: Size) -> float:
        named = size.width * size.height
        return max(area / named, named / area)

    return min(spec.sizes.values(), key=distance)


def _down(value: int, multiple: int) -> int:
    return max(multiple, value // multiple * multiple)


def _nearest_multiple(numerator: int, denominator: int, multiple: int) -> int:
    """numerator / denominator, to the nearest multiple (half up)."""
    return (2 * numerator + denominator * multiple) // (2 * denominator * multiple) * multiple


def _rounded_sqrt(numerator: int, denominator: int) -> int:
    """round(sqrt(numerator / denominator)), exactly."""
    root = isqrt(numerator // denominator)
    return root + 1 if (2 * root + 1) ** 2 * denominator <= 4 * numerator else root


def _farther(size: tuple[int, int], other: tuple[int, int], width: int, height: int) -> bool:
    """Whether the aspect of `size` is farther from width : height than that of `other` is."""

    def stretch(candidate: tuple[int, int]) -> float:
        ratio = candidate[0] * height / (candidate[1] * width)
        return max(ratio, 1 / ratio)

    return stretch(size) > stretch(other)
