"""Which attention kernel is the fastest here: measured once for a GPU, its software and a class of shapes, and kept.

Knows nothing of models or requests. What was chosen before stays chosen, so that seeds and resumed runs keep their bits.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wanreel.host import replace_durably
from wanreel.models.step.kernels import DEFAULT, KERNELS, Kernel, Numbers, attend_of, kernel_faults, usable

_log = logging.getLogger(__name__)
_RUNS = 3  #: timed, after one that is not
_SMALLEST, _LARGEST = 2048, 131072  #: tokens of the classes of shapes, powers of two


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kernel's speed depends on."""

    heads: int
    width: int  #: of a head
    tokens: int

    @property
    def name(self) -> str:
        """ "40x128x32768": the class, its tokens the nearest power of two."""
        tokens = 1 << round(math.log2(max(1, self.tokens)))
        return f"{self.heads}x{self.width}x{min(max(tokens, _SMALLEST), _LARGEST)}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The kernel for a class of shapes, and what it was chosen from."""

    name: str
    milliseconds: Mapping[str, float] = field(default_factory=dict[str, float])
    refused: Mapping[str, str] = field(default_factory=dict[str, str])  #: kernels that failed, and how

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "milliseconds": dict(self.milliseconds), "refused": dict(self.refused)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Chosen:
        """Raises KeyError, TypeError."""
        return cls(str(values["name"]), dict(values["milliseconds"]), dict(values["refused"]))


Timer = Callable[[Kernel, Shape, torch.device], float]


@dataclass
class Choices:
    """What was chosen, in memory and in files of `folder`, if there is one."""

    folder: Path | None = None
    kernels: Sequence[Kernel] = KERNELS
    timer: Timer | None = None  #: milliseconds of one call; by default with CUDA's own clock
    _known: dict[str, Chosen] = field(default_factory=dict[str, Chosen])

    def choose(self, device: torch.device, shape: Shape, numbers: Numbers) -> Chosen | None:
        """The fastest of those that run on `device`; None where there is none (of "exact" ones there always is one)."""
        candidates = usable(device, numbers, self.kernels)
        if not candidates:
            return None
        if len(candidates) == 1 and candidates[0].name == DEFAULT:
            return Chosen(DEFAULT)
        key = self._key(device, shape, numbers, candidates)
        chosen = self._known.get(key) or self._read(key)
        if chosen is None:
            chosen = self._measured(candidates, shape, device)
            self._write(key, chosen)
        self._known[key] = chosen
        return chosen if chosen.name else None

    def _measured(self, candidates: Sequence[Kernel], shape: Shape, device: torch.device) -> Chosen:
        found: dict[str, float] = {}
        refused: dict[str, str] = {}
        for kernel in candidates:
            try:
                found[kernel.name] = round((self.timer or milliseconds)(kernel, shape, device), 3)
            except kernel_faults() as error:
                refused[kernel.name] = f"{type(error).__name__}: {error}"[:200]
                _log.warning("attention kernel %s does not work here: %s", kernel.name, error)
        return Chosen(min(found, key=lambda name: found[name], default=""), found, refused)

    def _key(self, device: torch.device, shape: Shape, numbers: Numbers, candidates: Sequence[Kernel]) -> str:
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        versions = [f"torch {torch.__version__}", f"cudnn {torch.backends.cudnn.version()}"]
        versions += [f"{it.name} {it.version}".strip() for it in candidates]
        return "; ".join((gpu, *versions, numbers, shape.name))

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def _read(self, key: str) -> Chosen | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            values = cast("dict[str, Any]", json.loads(path.read_text()))
            return Chosen.from_dict(values) if values["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("%s can't be read, so kernels are measured again: %s", path, error)
            return None

    def _write(self, key: str, chosen: Chosen) -> None:
        """A disk that refuses costs the record alone."""
        path = self._path(key)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps({"key": key} | chosen.to_dict(), indent=1))
            replace_durably(partial, path)
        except OSError as error:
            _log.warning("the choice of a kernel was not saved: %s", error)


def milliseconds(kernel: Kernel, shape: Shape, device: torch.device) -> float:
    """Of one call on `device`, a GPU: the median of three, on random numbers."""
    generator = torch.Generator(device).manual_seed(0)
    size = (1, shape.tokens, shape.heads, shape.width)

    def drawn() -> Tensor:
        return torch.randn(size, device=device, generator=generator, dtype=torch.bfloat16)

    given, attend = [drawn() for _ in range(3)], attend_of(kernel.name)
    times: list[float] = []
    for _ in range(_RUNS + 1):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        attend(*given)
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return statistics.median(times[1:])
