"""The header of a safetensors file, read by ourselves and judged before anything else opens the file.

Knows nothing of torch or of what the tensors mean. Source of the format: safetensors' README (8 bytes of length, JSON, data).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeGuard, cast

from wanreel.core.errors import BrokenWeights

MAX_HEADER = 100 * 2**20  #: bytes; safetensors' own limit
MAX_TENSORS = 200_000  #: the largest Wan file has about 1,500
_MAX_SIDE = 2**40  # of one dimension; keeps products of hostile shapes small
_MAX_RANK = 16
#: Bits of one element by safetensors' name of its dtype.
BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
#: First bytes of files that are something else, and what they are.
_FOREIGN: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive: a pickle of PyTorch, which can run code",
    b"\x80\x02": "a pickle, which can run code",
    b"\x80\x03": "a pickle, which can run code",
    b"\x80\x04": "a pickle, which can run code",
    b"\x80\x05": "a pickle, which can run code",
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"<!DO": "a web page",
    b"<htm": "a web page",
    b"vers": "a pointer of Git LFS, not the file itself",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as the header describes it."""

    dtype: str  #: safetensors' name: "BF16", "F8_E4M3", …
    shape: tuple[int, ...]
    start: int  #: of its bytes, counted from the end of the header
    stop: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A header that passed every check."""

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    data_start: int = 0  #: of the tensors' bytes in the file

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.data_start + max((entry.stop for entry in self.entries.values()), default=0)


def read_header(path: Path) -> Header:
    """The header of `path`; reads nothing else. Raises BrokenWeights naming what is wrong with the file.

    Every tensor lies within the file, none overlaps another, nothing is left over, and each has as many bytes as its
    shape and dtype say.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = _length(path, start, size)
            raw = file.read(length)
    except OSError as exc:
        raise BrokenWeights(f"{path} can't be read ({exc.strerror}).") from exc
    if len(raw) < length:
        _refuse(path, "is cut short")
    metadata, rows = _parse(path, raw)
    entries = {name: _entry(path, name, row) for name, row in rows.items()}
    _check_layout(path, entries, size - 8 - length)
    return Header(path, entries, metadata, 8 + length)


def foreign_kind(start: bytes) -> str | None:
    """What a file is that begins with these bytes, where it is known to be no safetensors file."""
    return next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), None)


def _refuse(path: Path, what: str) -> NoReturn:
    raise BrokenWeights(f"{path.name} {what}.")


def _length(path: Path, start: bytes, size: int) -> int:
    kind = foreign_kind(start)
    if kind is not None:
        _refuse(path, f"is no safetensors file but {kind}")
    if len(start) < 8:
        _refuse(path, "is no safetensors file: it is too short")
    length = int.from_bytes(start, "little")
    if not 2 <= length <= MAX_HEADER:
        _refuse(path, f"is no safetensors file: its header would have {length} bytes")
    if 8 + length > size:
        _refuse(path, "is cut short")
    return length


def _parse(path: Path, raw: bytes) -> tuple[dict[str, str], dict[str, Any]]:
    if not raw.startswith(b"{"):
        _refuse(path, "is no safetensors file: its header is no JSON object")
    try:
        rows = cast("dict[str, Any]", json.loads(raw, object_pairs_hook=_no_twins, parse_constant=_no_constant))
    except (ValueError, RecursionError) as exc:
        raise BrokenWeights(f"{path.name} has a damaged header ({exc}).") from exc
    metadata = rows.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        _refuse(path, "has a damaged header: its metadata is no object")
    texts = cast("dict[str, Any]", metadata)
    if not all(isinstance(value, str) for value in texts.values()):
        _refuse(path, "has a damaged header: its metadata is not text")
    if len(rows) > MAX_TENSORS:
        _refuse(path, f"names {len(rows)} tensors")
    return cast("dict[str, str]", texts), rows


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} stands in it")


def _entry(path: Path, name: str, row: Any) -> Entry:
    values = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    dtype, shape, offsets = (values.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        _refuse(path, f"has a damaged header: {_shown(name)} is not described as a tensor")
    if dtype not in BITS:
        _refuse(path, f"holds {_shown(name)} in the unknown dtype {_shown(dtype)}")
    entry = Entry(dtype, tuple(shape), offsets[0], offsets[1])
    if len(entry.shape) > _MAX_RANK or entry.elements * BITS[dtype] != (entry.stop - entry.start) * 8:
        _refuse(path, f"has a damaged header: {_shown(name)} has another number of bytes than its shape")
    return entry


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of plain whole numbers that may be a size."""
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < _MAX_SIDE for value in cast("list[Any]", values)
    )


def _check_layout(path: Path, entries: Mapping[str, Entry], size: int) -> None:
    """No gap, no overlap, no end but the file's: what is not described could hide anything."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start < position:
            _refuse(path, f"has a damaged header: {_shown(name)} overlaps another tensor")
        if entry.start > position:
            _refuse(path, f"has a damaged header: bytes before {_shown(name)} belong to no tensor")
        position = entry.stop
    if position > size:
        _refuse(path, f"is cut short: {position - size} bytes are missing")
    if position < size:
        _refuse(path, f"has {size - position} bytes that belong to no tensor")


def _shown(text: str) -> str:
    """A name from the file, short and printable."""
    return ascii(text if len(text) <= 80 else text[:77] + "…")
