"""comment_of: the comment in a video file, found by its headers alone. Decodes nothing and trusts no size it reads.

For files from anywhere: a few hundred headers at most are looked at, and of the file's bytes only the comment is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from wanreel.media.animation import xmp_text

MAX_BYTES = 4 * 2**20  #: of a comment
_MOST_PARTS = 2000  #: boxes, elements or chunks looked at in one file
#: Matroska's element ids (RFC 9559, section 5.1).
_SEGMENT, _TAGS, _TAG, _SIMPLE, _NAME, _STRING = 0x18538067, 0x1254C367, 0x7373, 0x67C8, 0x45A3, 0x4487

_COMMENT = b"Comment\0\0"  #: PNG's keyword, and that the text is not compressed


class NoVideo(ValueError):
    """The bytes are no video of a kind that is read here, or it is damaged or oversized."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A box, element or chunk: what it is, and where its content lies."""

    kind: bytes | int
    start: int
    end: int


def comment_of(file: BinaryIO) -> str:
    """The comment of an MP4, WebM, WebP, GIF or PNG; empty where there is none. Raises NoVideo."""
    skim = _Skim(file)
    head = skim.read(0, 12)
    if head[4:8] == b"ftyp":
        return skim.mp4()
    if head[:4] == b"\x1aE\xdf\xa3":
        return skim.webm()
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return skim.webp()
    if head[:4] == b"GIF8":
        return skim.gif()
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return skim.png()
    raise NoVideo("no kind of video that is read here")


class _Skim:
    """One file and how much of it has been looked at."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        self._looks = 0

    def read(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)

    def _content(self, part: _Part) -> bytes:
        if part.end - part.start > MAX_BYTES:
            raise NoVideo("a comment larger than any recipe")
        return self.read(part.start, part.end - part.start)

    def _exactly(self, start: int, size: int) -> bytes:
        self._looks += 1
        data = self.read(start, size)
        if len(data) < size or self._looks > _MOST_PARTS:
            raise NoVideo("it ends in the middle, or has too many parts")
        return data

    # MP4 and MOV: ISO/IEC 14496-12, section 4.2; the comment is QuickTime's moov/udta/meta/ilst/©cmt/data

    def mp4(self) -> str:
        place = [_Part(b"", 0, self._size)]
        for kind in (b"moov", b"udta", b"meta"):
            place = [box for box in self._boxes(place[0].start, place[0].end) if box.kind == kind][:1]
            if not place:
                return ""
        parts = {box.kind: box for box in self._boxes(place[0].start + 4, place[0].end)}  # after version and flags
        names = self._key_of_comment(parts[b"keys"]) if b"keys" in parts else b"\xa9cmt"
        place = [parts[b"ilst"]] if b"ilst" in parts else []
        for kind in (names, b"data"):
            place = [box for box in self._boxes(place[0].start, place[0].end) if box.kind == kind][:1] if place else []
        return self._content(place[0])[8:].decode(errors="replace") if place else ""  # after type and locale

    def _key_of_comment(self, keys: _Part) -> bytes:
        """The name under which QuickTime's list has the comment: its number in the table of keys (QTFF, "Metadata")."""
        names = (box for box in self._boxes(keys.start + 8, keys.end))  # after version, flags and count
        found = (n for n, box in enumerate(names, 1) if self._content(box) == b"comment")
        return struct.pack(">I", next(found, 0))

    def _boxes(self, at: int, end: int) -> Iterator[_Part]:
        while at + 8 <= end:
            size, kind = struct.unpack(">I4s", self._exactly(at, 8))
            header = 8
            if size == 1:
                (size,), header = struct.unpack(">Q", self._exactly(at + 8, 8)), 16
            box = _Part(kind, at + header, min(at + size if size else end, end))
            if box.end < box.start:
                raise NoVideo("a box smaller than its header")
            yield box
            at = box.end

    # WebM: RFC 8794 (EBML), RFC 9559 (Matroska)

    def webm(self) -> str:
        found: Iterable[_Part] = [_Part(b"", 0, self._size)]
        for kind in (_SEGMENT, _TAGS, _TAG, _SIMPLE):
            found = [part for outer in found for part in self._elements(outer.start, outer.end, kind)]
        for simple in found:
            parts = {part.kind: part for part in self._elements(simple.start, simple.end)}
            if _NAME in parts and _STRING in parts and self._content(parts[_NAME]) == b"COMMENT":
                return self._content(parts[_STRING]).rstrip(b"\0").decode(errors="replace")
        return ""

    def _elements(self, at: int, end: int, only: int | None = None) -> Iterator[_Part]:
        while at < end:
            kind, at = self._number(at, keep_marker=True)
            size, start = self._number(at)
            at = end if size is None else min(start + size, end)
            if kind is not None and only in (None, kind):
                yield _Part(kind, start, at)

    def _number(self, at: int, *, keep_marker: bool = False) -> tuple[int | None, int]:
        """EBML's number of variable length, and where it ends. None is the size that nobody knew."""
        first = self._exactly(at, 1)[0]
        length = 9 - first.bit_length()
        if length > 8:
            raise NoVideo("a number longer than there are")
        value = int.from_bytes(self._exactly(at, length))
        if keep_marker:
            return value, at + length
        bits = 7 * length
        value &= (1 << bits) - 1
        return (None if value == (1 << bits) - 1 else value), at + length

    # WebP: RFC 9649, section 2.3. Its XMP chunk stands behind the frames

    def webp(self) -> str:
        at = 12
        while at + 8 <= self._size:
            kind, size = struct.unpack("<4sI", self._exactly(at, 8))
            if kind == b"XMP ":
                return xmp_text(self._content(_Part(kind, at + 8, min(at + 8 + size, self._size))))
            at += 8 + size + size % 2
        return ""

    # PNG, third edition, sections 5.3 and 11.3.3. Comments stand before the pixels in ours

    def png(self) -> str:
        at = 8
        while at + 8 <= self._size:
            size, kind = struct.unpack(">I4s", self._exactly(at, 8))
            part = _Part(kind, at + 8, min(at + 8 + size, self._size))
            if kind == b"IDAT":
                return ""
            # Keyword, compression flag and method, language, translated keyword, text; NUL between them.
            # What is compressed is another's, and may unpack to any size.
            if kind == b"iTXt" and self.read(part.start, len(_COMMENT)) == _COMMENT:
                return self._content(part)[len(_COMMENT) + 1 :].split(b"\0", 2)[-1].decode(errors="replace")
            at += 12 + size
        return ""

    # GIF89a, sections 18, 24 and 26. Comments stand before the first picture in ours

    def gif(self) -> str:
        flags = self._exactly(10, 1)[0]
        at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        while self.read(at, 1) == b"!":
            label = self._exactly(at + 1, 1)
            text, at = self._blocks(at + 2)
            if label == b"\xfe":
                return text.decode(errors="replace")
        return ""

    def _blocks(self, at: int) -> tuple[bytes, int]:
        """Sub-blocks up to the empty one, joined, and where they end."""
        text = bytearray()
        # Blocks are small, so of these there may be more than of other parts.
        while (data := self.read(at, 256)) and data[0]:
            text += data[1 : 1 + data[0]]
            at += 1 + data[0]
            if len(text) > MAX_BYTES:
                raise NoVideo("a comment larger than any recipe")
        return bytes(text), at + 1
