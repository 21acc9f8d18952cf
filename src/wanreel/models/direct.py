"""Tensors of a safetensors file, read into memory of their own: several reads at once, in the order of the file.

A mapped file is read where it is touched, a few pages at a time, which a disk answers at half of its rate. Knows nothing of
what the tensors mean.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wanreel.models.safetensors_header import Entry, read_header

#: By safetensors' names.
DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_READERS = 4
_CHUNK = 2**24  # bytes of one read
_AHEAD = 2**28  # bytes that are being read beyond the tensor at hand


@dataclass(frozen=True, slots=True)
class _Coming:
    """A tensor whose bytes are on their way."""

    name: str
    tensor: Tensor
    reads: tuple[Future[None], ...]


def read_direct(path: Path, names: Collection[str]) -> Generator[tuple[str, Tensor]]:
    """Each of `names` with its tensor, in the order of the file. Raises BrokenWeights, OSError, ValueError, KeyError.

    At most 256 MiB are read ahead of whoever takes them.
    """
    header = read_header(path)
    entries = sorted(((name, header.entries[name]) for name in names), key=lambda it: it[1].start)
    coming, ahead = deque[_Coming](), 0
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="weights")
    try:
        for name, entry in entries:
            coming.append(_begun(readers, path, name, entry, header.data_start))
            ahead += entry.stop - entry.start
            while ahead > _AHEAD and len(coming) > 1:
                yield (taken := _whole(coming.popleft()))
                ahead -= taken[1].nbytes
        while coming:
            yield _whole(coming.popleft())
    finally:
        readers.shutdown(cancel_futures=True)


def _begun(readers: ThreadPoolExecutor, path: Path, name: str, entry: Entry, data_start: int) -> _Coming:
    tensor, size = torch.empty(entry.shape, dtype=DTYPES[entry.dtype]), entry.stop - entry.start
    flat = tensor.view(-1).view(torch.uint8).numpy() if size else None
    whole = memoryview(flat.data) if flat is not None else memoryview(b"")
    starts = [start * _CHUNK for start in range(math.ceil(size / _CHUNK))]
    reads = (
        readers.submit(_fill, path, data_start + entry.start + start, whole[start : start + _CHUNK]) for start in starts
    )
    return _Coming(name, tensor, tuple(reads))


def _fill(path: Path, position: int, target: memoryview) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(position)
        while target:
            read = file.readinto(target)
            if not read:
                raise ValueError(f"{path.name} became shorter while it was read")
            target = target[read:]


def _whole(coming: _Coming) -> tuple[str, Tensor]:
    for read in coming.reads:
        read.result()
    return coming.name, coming.tensor
