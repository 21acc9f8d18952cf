"""LoRAs on a shelf, worn and merged, and what a model then predicts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.architectures import inputs_for
from models.lora_files import RandomLora
from wanreel.core.cancel import CancelToken
from wanreel.core.lora import ResolvedLora
from wanreel.models.lora.shelf import LoraShelf
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel
from wanreel.models.wear import wear

#: Largest difference from merged weights, relative to the largest value: fp32 sums in another order.
BOUND = 2e-5


@dataclass
class Wardrobe:
    """A shelf and what is on it."""

    shelf: LoraShelf

    def put(self, name: str, lora: RandomLora, format: str = "Diffusers with alpha") -> ResolvedLora:
        lora.save(self.shelf.root / f"{name}.safetensors", format)
        return self.resolved(name)

    def resolved(self, name: str, high: float = 1.0, low: float = 1.0, schedule: str = "") -> ResolvedLora:
        sha256 = hashlib.sha256((self.shelf.root / f"{name}.safetensors").read_bytes()).hexdigest()
        return ResolvedLora(name, sha256, high, low, schedule)

    def wear(self, model: WanModel, *loras: ResolvedLora, steps: int = 4) -> Any:
        return wear(model, loras, steps, self.shelf)


def predict(model: WanModel, strengths: Sequence[float] = (), expert: int = 0) -> Tensor:
    given = inputs_for(model)
    model.experts[expert].loras.strengthen(strengths)
    return model.experts[expert].predict(given.latents, given.timestep, given.text, given.image, CancelToken())


def merged(spec: Any, *loras: tuple[RandomLora, float], expert: int = 0) -> Tensor:
    model = build_tiny(spec)
    for lora, strength in loras:
        lora.merge(model.experts[expert].transformer, strength)
    return predict(model, expert=expert)


def near(one: Tensor, other: Tensor, bound: float = BOUND) -> bool:
    return bool((one - other).abs().max() <= bound * other.abs().max())


def weights(model: WanModel) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.experts[0].transformer.state_dict().items()}


def predict_as_is(model: WanModel) -> Tensor:
    given = inputs_for(model)
    return model.experts[0].predict(given.latents, given.timestep, given.text, given.image, CancelToken())
