"""The header of a GGUF file, read by ourselves and judged before anything else opens the file.

Knows nothing of torch or of what the tensors mean. Source of the format: ggml-org/ggml docs/gguf.md (version 2 and 3).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from wanreel.core.errors import BrokenWeights
from wanreel.models.safetensors_header import MAX_TENSORS, Entry, Header

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_TEXT = 1 << 20  # bytes of one name or value
_MAX_VALUES = 100_000  # of metadata, and in one array of it
_MAX_HEADER = 64 << 20  # bytes
_MAX_DIMENSIONS = 4
_MAX_SIDE = 1 << 40
#: Kinds of tensors by number: name, elements of a block, bytes of a block.
KINDS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}
#: Metadata of one value by number of its type; 8 is text, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  #: of tensors with more dimensions than GGUF has


@dataclass
class _Reader:
    """Reads little-endian values, never past a bound."""

    path: Path
    file: BinaryIO
    size: int
    values: int = field(default=0)

    def take(self, count: int) -> bytes:
        if self.file.tell() + count > min(self.size, _MAX_HEADER):
            refuse(self.path, "is cut short, or its header is damaged")
        data = self.file.read(count)
        if len(data) < count:
            refuse(self.path, "is cut short")
        return data

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        length = self.number("Q")
        if length > _MAX_TEXT:
            refuse(self.path, f"has a damaged header: a text of {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> Any:
        self.values += 1
        if self.values > _MAX_VALUES:
            refuse(self.path, "has too much metadata")
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY or depth:
            refuse(self.path, f"has a damaged header: metadata of the unknown type {kind}")
        inner, length = self.number("I"), self.number("Q")
        if length > _MAX_VALUES:
            refuse(self.path, f"has a damaged header: an array of {length} values")
        return [self.value(inner, depth + 1) for _ in range(length)]


def read_gguf_header(path: Path) -> Header:
    """The header of `path` in the form of a safetensors one; shapes are torch's (slowest dimension first).

    Raises BrokenWeights naming what is wrong with the file.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _read(_Reader(path, file, size))
    except OSError as exc:
        raise BrokenWeights(f"{path} can't be read ({exc.strerror}).") from exc


def refuse(path: Path, what: str) -> NoReturn:
    raise BrokenWeights(f"{path.name} {what}.")


def _read(reader: _Reader) -> Header:
    path = reader.path
    if reader.size < 24 or reader.take(4) != MAGIC:
        refuse(path, "is no GGUF file")
    version, tensors, pairs = reader.number("I"), reader.number("Q"), reader.number("Q")
    if version not in _VERSIONS:
        refuse(path, f"is GGUF of version {version}; 2 and 3 can be read")
    if tensors > MAX_TENSORS or pairs > _MAX_VALUES:
        refuse(path, f"has a damaged header: {tensors} tensors and {pairs} values of metadata")
    metadata: dict[str, Any] = {}
    for _ in range(pairs):
        key = reader.text()
        metadata[key] = reader.value(reader.number("I"))
    rows = [_row(reader) for _ in range(tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 16:
        refuse(path, "has a damaged header: its alignment makes no sense")
    start = -(-reader.file.tell() // alignment) * alignment
    entries = {name: _with_shape(path, entry, metadata.get(_ORIGINAL_SHAPE + name)) for name, entry in rows}
    if len(entries) < len(rows):
        refuse(path, "has a damaged header: a name stands in it twice")
    _check_layout(path, entries, reader.size - start)
    texts = {key: str(value) for key, value in metadata.items() if isinstance(value, str | int | float)}
    return Header(path, entries, texts, start)


def _row(reader: _Reader) -> tuple[str, Entry]:
    name, dimensions = reader.text(), reader.number("I")
    if not 0 < dimensions <= _MAX_DIMENSIONS:
        refuse(reader.path, f"has a damaged header: {ascii(name[:80])} has {dimensions} dimensions")
    shape = tuple(reader.number("Q") for _ in range(dimensions))[::-1]
    kind, offset = reader.number("I"), reader.number("Q")
    if kind not in KINDS:
        refuse(reader.path, f"holds {ascii(name[:80])} in the unknown kind {kind}")
    label, block, block_bytes = KINDS[kind]
    if any(side >= _MAX_SIDE for side in shape) or offset >= _MAX_SIDE or (shape[-1] % block):
        refuse(reader.path, f"has a damaged header: {ascii(name[:80])} can't have its shape")
    return name, Entry(label, shape, offset, offset + math.prod(shape) // block * block_bytes)


def _with_shape(path: Path, entry: Entry, original: Any) -> Entry:
    if original is None:
        return entry
    shape = tuple(original) if isinstance(original, list) else ()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) != entry.elements:
        refuse(path, "has a damaged header: an original shape has another number of elements")
    return Entry(entry.dtype, shape, entry.start, entry.stop)


def _check_layout(path: Path, entries: Mapping[str, Entry], size: int) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start < position:
            refuse(path, f"has a damaged header: {ascii(name[:80])} overlaps another tensor")
        position = entry.stop
    if position > size:
        refuse(path, f"is cut short: {position - size} bytes are missing")
