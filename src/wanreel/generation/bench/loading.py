"""How fast weights come into memory, beside plain reads of the same file. Random bytes in the shapes of a 14B expert."""

from __future__ import annotations

import gc
import json
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wanreel.core.bench import Figure
from wanreel.core.catalog import ModelSpec
from wanreel.core.components import in_channels
from wanreel.host import forget_cached
from wanreel.models.components import TRANSFORMER_SIZES
from wanreel.models.folder import meta_module
from wanreel.models.load import Dtypes, load_part
from wanreel.models.parts import Part, TensorInfo

_TIMES = 3
_CHUNK = 2**26


def loading(
    spec: ModelSpec, blocks: int, folder: Path, device: torch.device, say: Callable[[str], None]
) -> list[Figure]:
    """A file of `blocks` blocks of `spec`'s transformer in `folder`, read plainly and by the loader, cold and warm. Its bytes
    are removed afterwards. Raises OSError where there is no room."""
    part = _part(spec, blocks, folder / "weights.safetensors")
    path = part.files[0]
    try:
        _write(path, part.tensors)
        size = path.stat().st_size
        dtypes = Dtypes(transformer=torch.bfloat16, text_encoder=torch.bfloat16)
        work = {"plain read": lambda: path.read_bytes(), "loader": lambda: load_part(part, device, dtypes)}
        figures: list[Figure] = []
        for state in ("cold", "warm"):
            say(f"{size / 1e9:.1f} GB, {state} …")
            took = {name: _least(call, path, cold=state == "cold") for name, call in work.items()}
            plain = took["plain read"]
            for name, seconds in took.items():
                note = f"{size / seconds / 1e9:.2f} GB/s, {plain / seconds:.2f} of the plain read's rate"
                figures.append(Figure(f"{state}: {name}", seconds, note=note))
        return figures
    finally:
        path.unlink(missing_ok=True)


def _least(call: Callable[[], Any], path: Path, *, cold: bool) -> float:
    seconds: list[float] = []
    for _ in range(_TIMES):
        if cold:
            forget_cached(path)
        began = time.monotonic()
        made = call()
        seconds.append(time.monotonic() - began)
        del made
        gc.collect()
    return min(seconds)


def _part(spec: ModelSpec, blocks: int, path: Path) -> Part:
    config = dict(TRANSFORMER_SIZES[spec.parameters]) | {
        "num_layers": blocks,
        "in_channels": in_channels(spec),
        "out_channels": spec.latent_channels,
    }
    empty = Part("transformer", path.parent, config, {})
    shapes = {name: tuple(tensor.shape) for name, tensor in meta_module(empty).state_dict().items()}
    tensors = {name: TensorInfo(path, shape, "BF16") for name, shape in shapes.items()}
    return Part("transformer", path.parent, config, tensors)


def _write(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """As safetensors lay it out, with random numbers between -1 and 1."""
    table, position = dict[str, Any](), 0
    for name, info in tensors.items():
        end = position + 2 * info.elements
        table[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [position, end]}
        position = end
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.default_rng(0).integers(0, 2**16, _CHUNK // 2, dtype=np.uint16)
    piece = memoryview((random & 0xBF7F).view(np.uint8).data)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, position, _CHUNK):
            file.write(piece[: min(_CHUNK, position - start)])
        file.flush()
