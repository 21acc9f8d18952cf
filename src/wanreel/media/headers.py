"""Kind and size of a picture by its first bytes. Knows nothing of pixels: nothing is decoded, nothing is allocated."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_MAGIC: Mapping[str, tuple[int, bytes]] = {
    "PNG": (0, b"\x89PNG\r\n\x1a\n"),
    "JPEG": (0, b"\xff\xd8\xff"),
    "WEBP": (8, b"WEBP"),
}
#: (offset, bytes there, name): what people also try, so that a message can say what it is.
_OTHER_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\x00", "a TIFF or camera raw file"),
    (0, b"MM\x00*", "a TIFF or camera raw file"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (4, b"ftypheic", "a HEIC photo"),
    (4, b"ftypheix", "a HEIC photo"),
    (4, b"ftyphevc", "a HEIC photo"),
    (4, b"ftypmif1", "a HEIF photo"),
    (4, b"ftypmsf1", "a HEIF photo"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an SVG drawing"),
    (0, b"<!DOC", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"PK\x03\x04", "an archive"),
)
#: JPEG markers that state a size: SOF0 to SOF15 but for DHT, JPG and DAC (ITU-T T.81, table B.1).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  #: JPEG markers without a length (ITU-T T.81, B.1.1.3)


def kind_of(data: bytes) -> str | None:
    """PNG, JPEG or WEBP; None for anything else. Names and content types are never asked."""
    return next((kind for kind, (at, magic) in _MAGIC.items() if data[at : at + len(magic)] == magic), None)


def other_kind(data: bytes) -> str | None:
    """What it is instead, with its article; None when it isn't known."""
    head = data[:512].lstrip()[:16] if data[:1].isspace() else data[:16]
    head = head.removeprefix(b"\xef\xbb\xbf").lower()
    return next((name for at, magic, name in _OTHER_KINDS if head[at:].startswith(magic.lower())), None)


def stated_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """(width, height) in px that a header of `kind` states; None where it states none."""
    try:
        return {"PNG": _png_size, "JPEG": _jpeg_size, "WEBP": _webp_size}[kind](data)
    except (struct.error, IndexError):
        return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """The header comes first (PNG specification, 11.2.1)."""
    name, width, height = struct.unpack_from(">4sII", data, 12)
    return (width, height) if name == b"IHDR" else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """RFC 9649: the canvas of the extended format, or the frame of the two simple ones."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The largest of all frame headers, since decoders differ in which one they believe."""
    position, found = 2, (0, 0)
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1] if position + 1 < len(data) else 0xD9
        if marker in (0xDA, 0xD9):  # the picture itself, or its end
            break
        if marker == 0xFF or marker in _BARE or marker == 0:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, position + 5)
            found = max(found, (width, height), key=lambda size: size[0] * size[1])
        position += 2 + length
    return found if found != (0, 0) else None
