"""LoraFile: what a LoRA file holds, read from its header alone and judged before anything opens it.

Imports no torch. Knows nothing of models; whether a file fits one is `fit`'s matter.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from wanreel.core.errors import BrokenWeights
from wanreel.core.lora import SUFFIX
from wanreel.models.lora.keys import Format, Key, Role, other_method, read_key
from wanreel.models.safetensors_header import Entry, Header, foreign_kind, read_header

MAX_BYTES = 4 * 2**30  #: of a file
MAX_RANK = 1024
#: What tensors may be stored in: the floats of which a LoRA can be made.
DTYPES = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CHUNK = 32 * 2**20  # bytes looked at at once
_SHOWN_TEXT = 200  # characters of one value of the metadata


@dataclass(frozen=True, slots=True)
class LayerChange:
    """What a file does to one layer. Tensors are named as in the file."""

    layer: str  #: in Diffusers' names
    second: bool  #: named for Diffusers' second transformer, the low-noise expert
    down: str = ""  #: [rank, inputs]; empty: there is no pair
    up: str = ""  #: [outputs, rank]
    rank: int = 0
    alpha: float = 0.0  #: equal to the rank where the file says none
    inputs: int = 0
    outputs: int = 0
    weight: str = ""  #: a whole difference of the layer's weight
    weight_shape: tuple[int, ...] = ()
    bias: str = ""  #: of its bias
    bias_shape: tuple[int, ...] = ()

    @property
    def scale(self) -> float:
        """alpha / rank: what the pair is multiplied by at strength 1."""
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def tensors(self) -> tuple[str, ...]:
        return tuple(name for name in (self.down, self.up, self.weight, self.bias) if name)


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A file whose header passed every check."""

    path: Path
    size: int  #: bytes
    format: Format
    layers: tuple[LayerChange, ...]
    strays: tuple[str, ...]  #: tensors whose names mean nothing here
    dtypes: tuple[str, ...]
    about: Mapping[str, str] = field(default_factory=dict[str, str])  #: what its maker wrote, shortened

    @property
    def ranks(self) -> tuple[int, int]:
        """The smallest and the largest; (0, 0) for a file of differences alone."""
        ranks = [layer.rank for layer in self.layers if layer.rank]
        return min(ranks, default=0), max(ranks, default=0)

    @property
    def two_experts(self) -> bool:
        """Whether it holds a part of its own for the low-noise expert."""
        return any(layer.second for layer in self.layers)


def read_lora(path: Path) -> LoraFile:
    """Reads the header, and of the tensors the alphas alone. Raises BrokenWeights naming what is wrong."""
    _check_kind(path)
    header = read_header(path)
    rows, strays = _sorted_by_layer(path, header)
    alphas = _scalars(header, {where: names["alpha"] for where, names in rows.items() if "alpha" in names})
    layers = [_layer(path, header, where, names, alphas.get(where)) for where, names in rows.items()]
    keys = [read_key(name) for name in header.entries]
    formats: Counter[Format] = Counter(key.format for key in keys if key is not None)
    kept = tuple(layer for layer in layers if layer is not None)
    if not kept:
        _refuse(path, "holds nothing for a Wan transformer: " + _examples(header))
    return LoraFile(
        path=path,
        size=header.size,
        format=formats.most_common(1)[0][0],
        layers=kept,
        strays=tuple(strays),
        dtypes=tuple(sorted({entry.dtype for entry in header.entries.values()})),
        about={_short(key): _short(value) for key, value in list(header.metadata.items())[:20]},
    )


def check_values(path: Path) -> None:
    """Reads every number of a file. Raises BrokenWeights naming a tensor that holds NaN or infinity."""
    header = read_header(path)
    if not any(entry.elements for entry in header.entries.values()):
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for name, start, stop in _spans(header):
            # Copied out of the map: an array on it would keep it from being closed.
            if not _finite(data[start:stop], header.entries[name].dtype):
                _refuse(path, f"holds NaN or infinity in {ascii(name[:80])}")


def _spans(header: Header) -> Iterator[tuple[str, int, int]]:
    """Every tensor's bytes in the file, in portions."""
    for name, entry in header.entries.items():
        for start in range(entry.start, entry.stop, _CHUNK):
            yield name, header.data_start + start, header.data_start + min(start + _CHUNK, entry.stop)


def _check_kind(path: Path) -> None:
    """By name, by first bytes and by size, before anything reads more."""
    if path.suffix.lower() in _PICKLES:
        _refuse(path, "is a pickle, which can run code; a LoRA must be a .safetensors file")
    if path.suffix.lower() != SUFFIX:
        _refuse(path, "is no .safetensors file")
    try:
        with path.open("rb") as file:
            start, size = file.read(8), os.fstat(file.fileno()).st_size
    except OSError as exc:
        raise BrokenWeights(f"{path.name} can't be read ({exc.strerror}).") from exc
    kind = foreign_kind(start)
    if kind is not None:
        _refuse(path, f"is no safetensors file but {kind}")
    if size > MAX_BYTES:
        _refuse(path, f"has {size / 2**30:.1f} GiB; a LoRA has at most {MAX_BYTES // 2**30}")


def _sorted_by_layer(path: Path, header: Header) -> tuple[dict[tuple[str, bool], dict[Role, str]], list[str]]:
    """Names of tensors by layer and role, and those that mean nothing."""
    rows: dict[tuple[str, bool], dict[Role, str]] = {}
    strays: list[str] = []
    for name, entry in header.entries.items():
        method = other_method(name)
        if method is not None:
            _refuse(path, f"is made with {method}, which Wanreel does not apply")
        if entry.dtype not in DTYPES:
            _refuse(path, f"holds {ascii(name[:80])} in {entry.dtype}, which is no float")
        key: Key | None = read_key(name)
        if key is None:
            strays.append(name)
            continue
        roles = rows.setdefault((key.layer, key.second), {})
        if key.role in roles:
            _refuse(path, f"names {key.layer} twice, as {ascii(roles[key.role][:80])} and {ascii(name[:80])}")
        roles[key.role] = name
    return rows, strays


def _layer(
    path: Path, header: Header, where: tuple[str, bool], names: Mapping[Role, str], alpha: float | None
) -> LayerChange | None:
    """One layer's tensors, checked against each other. None where an alpha stands alone."""
    entries: Mapping[str, Entry] = header.entries
    change: dict[str, Any] = {}
    if "down" in names or "up" in names:
        if "down" not in names or "up" not in names:
            _refuse(path, f"is damaged: {where[0]} has one matrix of its pair")
        down, up = entries[names["down"]].shape, entries[names["up"]].shape
        if len(down) != 2 or len(up) != 2 or down[0] != up[1] or not down[0]:
            _refuse(path, f"is damaged: the matrices of {where[0]} have shapes {down} and {up}")
        if down[0] > MAX_RANK:
            _refuse(path, f"has rank {down[0]} at {where[0]}; at most {MAX_RANK} is applied")
        rank = down[0]
        change |= {"down": names["down"], "up": names["up"], "rank": rank, "inputs": down[1], "outputs": up[0]}
        change["alpha"] = float(rank) if alpha is None else alpha
    for role in ("weight", "bias"):
        if role in names:
            change |= {role: names[role], f"{role}_shape": entries[names[role]].shape}
    return LayerChange(*where, **change) if change else None


def _scalars(header: Header, names: Mapping[tuple[str, bool], str]) -> dict[tuple[str, bool], float]:
    """The values of tensors with one element. Raises BrokenWeights."""
    found: dict[tuple[str, bool], float] = {}
    with header.path.open("rb") as file:
        for where, name in names.items():
            entry = header.entries[name]
            if entry.elements != 1:
                _refuse(header.path, f"is damaged: {ascii(name[:80])} is not one number")
            file.seek(header.data_start + entry.start)
            value = _numbers(file.read(entry.stop - entry.start), entry.dtype)
            if value is None or not np.isfinite(value).all():
                _refuse(header.path, f"holds no finite number in {ascii(name[:80])}")
            found[where] = float(value[0])
    return found


def _numbers(raw: bytes, dtype: str) -> NDArray[Any] | None:
    """The bytes as numbers; None for a dtype that NumPy does not know."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    kinds = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}
    return np.frombuffer(raw, kinds[dtype]) if dtype in kinds else None


def _finite(raw: bytes, dtype: str) -> bool:
    """Whether all of them are finite. The small floats by their bits: NumPy does not know them."""
    match dtype:
        case "BF16":
            return not bool(((np.frombuffer(raw, "<u2") & 0x7F80) == 0x7F80).any())
        case "F8_E4M3":  # has no infinity, and one NaN of either sign
            return not bool(((np.frombuffer(raw, "u1") & 0x7F) == 0x7F).any())
        case "F8_E5M2":
            return not bool(((np.frombuffer(raw, "u1") & 0x7C) == 0x7C).any())
        case _:
            values = _numbers(raw, dtype)
            return values is not None and bool(np.isfinite(values).all())


def _examples(header: Header) -> str:
    names = [ascii(name[:80]) for name in list(header.entries)[:2]]
    return f"{len(header.entries)} tensors like {', '.join(names)}" if names else "no tensor"


def _short(text: str) -> str:
    shown = "".join(char for char in text if char.isprintable())
    return shown if len(shown) <= _SHOWN_TEXT else shown[: _SHOWN_TEXT - 1] + "…"


def _refuse(path: Path, what: str) -> NoReturn:
    raise BrokenWeights(f"{path.name} {what}.")
