"""ModelPool: which models are in memory. Knows nothing of requests, queues or where weights come from."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from wanreel.core.catalog import ModelSpec
from wanreel.models.wan_model import WanModel


@dataclass(frozen=True, slots=True)
class Acquired:
    """A model ready to use, and what it cost."""

    model: WanModel
    seconds: float  #: spent loading; 0.0 when it was in memory


class ModelPool:
    """Keeps the model used last and loads another in its place when one is asked for."""

    def __init__(self, load: Callable[[ModelSpec], WanModel]) -> None:
        self._load = load
        self._held: WanModel | None = None

    @property
    def held(self) -> str | None:
        """Name of the model in memory."""
        return self._held.spec.name if self._held is not None else None

    def acquire(self, spec: ModelSpec) -> Acquired:
        """The model of `spec`. Raises ModelNotInstalled or BrokenWeights."""
        if self._held is not None and self._held.spec == spec:
            return Acquired(self._held, 0.0)
        self.evict()
        began = time.monotonic()
        self._held = self._load(spec)
        return Acquired(self._held, time.monotonic() - began)

    def evict(self) -> None:
        """Free the memory of whatever is held."""
        self._held = None
        gc.collect()  # hooks and caches of a model refer to each other in circles
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
