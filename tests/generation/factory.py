"""What the tests of this folder share: tiny models, requests for them, and small pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog, Mode, ModelSpec
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.core.resolve import Defaults, resolve
from wanreel.core.resolved import ResolvedRequest
from wanreel.generation.conditioning import Conditioning
from wanreel.generation.encode import Pictures, encode
from wanreel.models.wan_model import WanModel
from wanreel.testing import build_tiny

#: Every architecture: catalogue name and mode.
ARCHITECTURES: tuple[tuple[str, Mode], ...] = (
    ("t2v-1.3b", "text"),
    ("i2v-14b-480p", "picture"),
    ("flf2v-14b-720p", "first_last"),
    ("t2v-a14b", "text"),
    ("i2v-a14b", "picture"),
    ("ti2v-5b", "text"),
    ("ti2v-5b", "picture"),
)
CATALOG = Catalog()


@dataclass(frozen=True)
class Case:
    """A tiny model and a request for it."""

    spec: ModelSpec
    request: ResolvedRequest
    pictures: Pictures

    def model(self) -> WanModel:
        """The same objects each time."""
        return model_of(self.spec.name)

    def fresh_model(self) -> WanModel:
        """Equal weights in new objects."""
        return build_tiny(self.spec)

    def encode(self, model: WanModel | None = None) -> Conditioning:
        return encode(model or self.model(), self.request, self.pictures, CancelToken())


@cache
def model_of(name: str) -> WanModel:
    return build_tiny(CATALOG.get(name))


def noise_picture(seed: int, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def make_case(name: str, mode: Mode = "text", **knobs: Any) -> Case:
    """A request with 6 steps and guidance 4 (low noise: 3) unless `knobs` say otherwise."""
    spec = CATALOG.get(f"tiny:{name}")
    size = spec.sizes["480P"]
    values: dict[str, Any] = {"num_inference_steps": 6, "guidance_high": 4.0, "seed": 3} | knobs
    if spec.two_experts:
        values.setdefault("guidance_low", 3.0)
    if spec.few_step:
        del values["num_inference_steps"]
    pictures = Pictures()
    if mode != "text":
        last = noise_picture(2, size.width, size.height) if mode == "first_last" else None
        pictures = Pictures(noise_picture(1, size.width, size.height), last)
        values["image"] = PictureRef("1" * 64, size.width, size.height)
        values["last_image"] = PictureRef("2" * 64, size.width, size.height) if last else None
    asked = VideoRequest(prompt="a red  circle &amp; a cat", model=spec.name, resolution="480P", **values)
    return Case(spec, resolve(asked, CATALOG, Defaults({}, frozenset())).request, pictures)
