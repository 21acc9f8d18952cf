"""Part: one component's weights as they lie on disk, and its tensors as they are read. Knows nothing of whole models.

Whatever the names, the kind of file and the precision on disk, `read_tensors` gives Diffusers' names and plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wanreel.core.errors import BrokenWeights, MissingDependency
from wanreel.models.direct import DTYPES, read_direct

#: FastVideo's sparse attention (VSA) adds this gate to every block; dense attention has no use for it.
VSA_GATE = "to_gate_compress"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file's header."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  #: safetensors' name ("BF16", "F32", …), or GGUF's ("Q4_K")
    key: str = ""  #: its name in the file, where that is another
    scale: str = ""  #: name of the tensor that it is multiplied with
    start: int = -1  #: of its bytes in a GGUF file
    size: int = 0  #: of them there

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Part:
    """One component."""

    name: str
    folder: Path  #: or the file that holds it
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    hugging: bool = True  #: a folder that transformers can load by itself
    origin: str = ""  #: what it was before it got Diffusers' names, for people

    @property
    def diffusers(self) -> bool:
        """Whether it becomes one of Diffusers' modules; transformers' are the encoders."""
        return not self.name.endswith("encoder")

    @property
    def elements(self) -> int:
        """Number of weights that are used."""
        return sum(info.elements for key, info in self.tensors.items() if VSA_GATE not in key)

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(sorted({info.file for info in self.tensors.values()}))

    @property
    def has_vsa_gates(self) -> bool:
        return any(VSA_GATE in key for key in self.tensors)


def read_tensors(part: Part, *, mapped: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by Diffusers' name, one after the other. Raises BrokenWeights.

    `mapped`: plain ones are not read but lie in the mapped file, where only what is touched takes memory.
    """
    for file in part.files:
        rows = [(key, info) for key, info in part.tensors.items() if info.file == file]
        plain = [] if mapped else [row for row in rows if _is_plain(row[1])]
        others = rows if mapped else [row for row in rows if not _is_plain(row[1])]
        read = _read_gguf if rows[0][1].start >= 0 else _read_safetensors
        try:
            yield from _read_plain(file, plain)
            yield from read(file, others)
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            raise BrokenWeights(f"{part.name}: {file.name} can't be read ({error}).") from error


def _is_plain(info: TensorInfo) -> bool:
    """Whether its bytes in a safetensors file are its numbers."""
    return info.start < 0 and not info.scale and info.dtype in DTYPES


def _read_plain(file: Path, rows: list[tuple[str, TensorInfo]]) -> Iterator[tuple[str, Tensor]]:
    known = {info.key or key: (key, info) for key, info in rows}
    for name, tensor in read_direct(file, known) if known else ():
        key, info = known[name]
        yield key, tensor.reshape(info.shape)


def _read_safetensors(file: Path, rows: list[tuple[str, TensorInfo]]) -> Iterator[tuple[str, Tensor]]:
    with safe_open(file, framework="pt") as opened:
        for key, info in rows:
            tensor = opened.get_tensor(info.key or key)
            if info.scale:
                scale = opened.get_tensor(info.scale).float()
                tensor = tensor.float() * (scale.reshape(-1, 1) if scale.numel() > 1 else scale.reshape(()))
            yield key, tensor.reshape(info.shape)


def _read_gguf(file: Path, rows: list[tuple[str, TensorInfo]]) -> Iterator[tuple[str, Tensor]]:
    unpack = _gguf_unpacker()
    mapped = np.memmap(file, dtype=np.uint8, mode="r")
    for key, info in sorted(rows, key=lambda row: row[1].start):
        # A copy: the map is read-only, and a tensor of it must not be.
        raw = torch.from_numpy(np.array(mapped[info.start : info.start + info.size]))
        yield key, unpack(raw, info)


def _gguf_unpacker() -> Callable[[Tensor, TensorInfo], Tensor]:
    """Diffusers' own arithmetic for every kind. Raises MissingDependency."""
    try:
        import gguf
        from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
    except ImportError as error:
        raise MissingDependency(
            "GGUF files need the package gguf.", hint="Install it: pip install 'wanreel[quant]'."
        ) from error
    plain = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

    def unpack(raw: Tensor, info: TensorInfo) -> Tensor:
        if info.dtype in plain:
            return raw.view(plain[info.dtype]).reshape(info.shape)
        kind = gguf.GGMLQuantizationType[info.dtype]
        rows = raw.reshape(math.prod(info.shape[:-1]), -1)
        parameter: Any = GGUFParameter
        tensor: Any = dequantize_gguf_tensor(parameter(rows, quant_type=kind))
        return torch.Tensor._make_subclass(torch.Tensor, tensor).reshape(info.shape)

    return unpack
