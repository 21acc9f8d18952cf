"""read_picture: bytes from anybody to a clean picture. Knows nothing of files, models or what the picture is for.

Nothing is decoded before its size is known, and only by the three decoders named here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from wanreel.core.errors import UnreadablePicture
from wanreel.media.headers import kind_of, other_kind, stated_size

MAX_BYTES = 20 * 2**20  #: of the file
MAX_SIDE = 8192  #: px
MIN_SIDE = 16  #: px
MAX_PIXELS = 33_000_000
#: Passes over a JPEG. Programs write about ten; each costs the whole picture's time again, however few bytes it has.
MAX_SCANS = 64
_SCAN = b"\xff\xda"  # starts a scan (ITU-T T.81, B.2.3); within a scan's data 0xff is followed by 0x00

#: What undoes each EXIF orientation (EXIF 2.32, tag 0x0112); 1 is upright.
_ORIENTATION = 0x0112
_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: What Pillow raises for files that are not what they say.
_DAMAGE = (
    *(OSError, ValueError, TypeError, SyntaxError, EOFError, LookupError, struct.error, UnidentifiedImageError),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as it will be used: 8-bit RGB, upright, without metadata."""

    png: bytes
    width: int
    height: int
    notes: tuple[str, ...]  #: what was changed on the way


def read_picture(data: bytes, knob: str = "image") -> Picture:
    """Checks and cleans a PNG, JPEG or WebP. Raises UnreadablePicture, which names `knob`, the fault and the cure.

    The first frame is taken, EXIF orientation applied, transparency laid over white, 16 bits scaled to 8.
    """
    kind = _kind(data, knob)
    _check_size(stated_size(kind, data), kind, knob)
    if kind == "JPEG" and data.count(_SCAN) > MAX_SCANS:
        raise _refuse(knob, f"is a JPEG of more than {MAX_SCANS} scans.", "Save it again with another program.")
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as opened:
            # Once more: what the decoder believes is what it will allocate.
            _check_size(opened.size, kind, knob)
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                notes.append(f"the first of {'more than 1000' if frames > 1000 else frames} frames is used")
            opened.load()
            image = _to_rgb(_upright(opened, notes), notes)
    except _DAMAGE as exc:
        # Pillow's own text can hold addresses and paths; ours can't.
        raise _damaged(knob, kind) from exc
    image.info.clear()  # or the colour profile would be saved too
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=1)
    return Picture(png.getvalue(), image.width, image.height, tuple(notes))


def open_picture(png: bytes) -> Image.Image:
    """The RGB image of a `Picture.png`."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
        return opened.convert("RGB")


def pixels_of(png: bytes) -> NDArray[np.uint8]:
    """The same as [h, w, 3]."""
    return np.asarray(open_picture(png), dtype=np.uint8)


def cover_and_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """`image` scaled to cover width × height px, what sticks out cropped evenly. Never stretched."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def _kind(data: bytes, knob: str) -> str:
    """The format by its first bytes; names and content types are never believed."""
    if not data:
        raise _refuse(knob, "is empty.", "Give a PNG, JPEG or WebP picture.")
    if len(data) > MAX_BYTES:
        raise _refuse(knob, f"has more than {MAX_BYTES // 2**20} MiB.", "Save it smaller.")
    kind = kind_of(data)
    if kind is None:
        named = other_kind(data)
        what = f"is {named}, which can't be read." if named else "is no picture that can be read."
        raise _refuse(knob, what, "Save it as PNG, JPEG or WebP.")
    return kind


def _check_size(size: tuple[int, int] | None, kind: str, knob: str) -> None:
    """Limits before a pixel is decoded."""
    if size is None or min(size) < 1:
        raise _damaged(knob, kind)
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        limit = f"at most {MAX_SIDE} px a side and {MAX_PIXELS // 10**6} megapixels are read."
        raise _refuse(knob, f"is {width}×{height} px; {limit}", "Save it smaller.")
    if min(size) < MIN_SIDE:
        raise _refuse(knob, f"is {width}×{height} px; at least {MIN_SIDE} px a side are needed.", "Give a larger one.")


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turned as EXIF says. Pillow's own way writes the rest of EXIF again and fails over its faults."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DAMAGE:  # broken metadata, sound picture
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    notes.append("turned upright as its EXIF orientation says")
    return image.transpose(turn)


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """8-bit RGB of any mode that PNG, JPEG and WebP have."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16 bits instead of scaling them.
        notes.append("16 bits a channel became 8")
        scaled = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")  # a copy of a large one is a lot of memory
        if layered.getchannel("A").getextrema() != (255, 255):
            notes.append("transparency was laid over white")
        ground = Image.new("RGB", layered.size, "white")
        ground.paste(layered, mask=layered)
        return ground
    return image.convert("RGB")


def _damaged(knob: str, kind: str) -> UnreadablePicture:
    return _refuse(knob, f"is a {kind} file that is damaged or cut short.", "Save it again with another program.")


def _refuse(knob: str, what: str, cure: str) -> UnreadablePicture:
    return UnreadablePicture.of(knob, "unreadable_picture", what, cure)
