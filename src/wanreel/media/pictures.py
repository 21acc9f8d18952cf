"""read_picture: bytes from anybody to a clean picture. Knows nothing of files, models or what the picture is for.

Nothing is decoded before its size is known, and only by the three decoders named here.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wanreel.core.errors import UnreadablePicture

MAX_BYTES = 20 * 2**20  #: of the file
MAX_SIDE = 8192  #: px
MIN_SIDE = 16  #: px
MAX_PIXELS = 33_000_000
FORMATS = ("PNG", "JPEG", "WEBP")

#: (offset, first bytes): what people also try. Named, so that the message can say what it is.
_OTHER_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\x00", "a TIFF"),
    (0, b"MM\x00*", "a TIFF"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop file"),
    (4, b"ftypheic", "a HEIC photo"),
    (4, b"ftypheix", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIF photo"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an SVG drawing"),
    (0, b"<!DOC", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"PK\x03\x04", "an archive"),
)
_MAGIC: Mapping[str, tuple[int, bytes]] = {
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "JPEG": (0, b"\xff\xd8\xff"),
    "WEBP": (8, b"WEBP"),
}


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
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=[kind]) as opened:
            _check_size(opened.size, knob)
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                notes.append(f"the first of {'more than 1000' if frames > 1000 else frames} frames is used")
            opened.load()
            image = _to_rgb(_upright(opened, notes), notes)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, EOFError) as exc:
        # Pillow's own text can hold addresses and paths; ours can't.
        raise _refuse(
            knob, f"is a {kind} file that is damaged or cut short.", "Save it again with another program."
        ) from exc
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=1)
    return Picture(png.getvalue(), image.width, image.height, tuple(notes))


def open_picture(png: bytes) -> Image.Image:
    """The RGB image of a `Picture.png`."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
        return opened.convert("RGB")


def cover_and_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """`image` scaled to cover width × height px, what sticks out cropped evenly. Never stretched."""
    return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def _kind(data: bytes, knob: str) -> str:
    """The format by its first bytes; names and content types are never believed."""
    if not data:
        raise _refuse(knob, "is empty.", "Give a PNG, JPEG or WebP picture.")
    if len(data) > MAX_BYTES:
        raise _refuse(knob, f"has more than {MAX_BYTES // 2**20} MiB.", "Save it smaller.")
    for kind, (offset, magic) in _MAGIC.items():
        if data[offset : offset + len(magic)] == magic:
            return kind
    head = data.lstrip()[:16] if data[:1].isspace() else data
    named = next(
        (name for offset, magic, name in _OTHER_KINDS if head[offset : offset + len(magic)].lower() == magic.lower()),
        None,
    )
    what = f"is {named}, which can't be read." if named else "is no picture that can be read."
    raise _refuse(knob, what, "Save it as PNG, JPEG or WebP.")


def _check_size(size: tuple[int, int], knob: str) -> None:
    """Limits before a pixel is decoded."""
    width, height = size
    if max(size) > MAX_SIDE or width * height > MAX_PIXELS:
        limit = f"at most {MAX_SIDE} px a side and {MAX_PIXELS // 10**6} megapixels are read."
        raise _refuse(knob, f"is {width}×{height} px; {limit}", "Save it smaller.")
    if min(size) < MIN_SIDE:
        raise _refuse(knob, f"is {width}×{height} px; at least {MIN_SIDE} px a side are needed.", "Give a larger one.")


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    if turned.size != image.size or image.getexif().get(0x0112, 1) not in (0, 1):
        notes.append("turned upright as its EXIF orientation says")
    return turned


def _to_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """8-bit RGB of any mode that PNG, JPEG and WebP have."""
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow's own conversion clips 16 bits instead of scaling them.
        notes.append("16 bits a channel became 8")
        scaled = (np.asarray(image, dtype=np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        if layered.getchannel("A").getextrema() != (255, 255):
            notes.append("transparency was laid over white")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _refuse(knob: str, what: str, cure: str) -> UnreadablePicture:
    return UnreadablePicture.of(knob, "unreadable_picture", what, cure)
