"""A model whose tensors have the real sizes and whose mathematics costs nothing: what is left of a job's time is ours.

Experts and decoder wait as long as they are told to, as a host waits for its GPU. Knows nothing of jobs or of measuring.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import ModelSpec
from wanreel.core.lora import ResolvedLora
from wanreel.core.parallel import Parallel
from wanreel.core.placement import Placement
from wanreel.models.prompt_cache import PromptCache, PromptMemory, SightMemory
from wanreel.models.ranks.bands import Bands
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel

_TEXT_DIM = 4096
_GRAIN = 3.0  # of 255, standard deviation: about as much as a camera's
_SOFT = 24  # px between the points of the soft colours
_PAN = (3, 1)  # px that the two layers move by from frame to frame


@dataclass
class Working:
    """How long the parts take, and when they were at work: seconds of `clock`, beginning and end."""

    step: float = 0.0  #: seconds of one step
    decode: float = 0.0  #: of the whole video
    clock: Callable[[], float] = time.monotonic
    steps: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    encoders: int = 0  #: times that the text encoder or the picture's encoder was asked

    def one_step(self) -> None:
        began = self.clock()
        time.sleep(self.step)
        self.steps.append((began, self.clock()))


def build_stand_in(spec: ModelSpec, placement: Placement, working: Working, cache: PromptCache) -> WanModel:
    """A model of `spec` on the CPU, which remembers prompts and pictures in `cache`."""
    tiny = build_tiny(spec, placement=placement)
    tiny.vae.encoder = _Encoder(tiny.vae.config.z_dim, spec.temporal_stride, spec.spatial_stride, working)
    tiny.vae.quant_conv = nn.Identity()
    for expert in tiny.experts:
        expert.lead = _velocity(spec.latent_channels, working)
    return replace(
        tiny,
        text_encoder=_TextEncoder(working),
        prompts=PromptMemory(cache, "stand-in", "cpu"),
        sights=SightMemory(cache, "stand-in", "cpu"),
        lead=_Lead(working, spec.spatial_stride),
        notes=("Nothing was computed: the frames are a drawn pattern.",),
    )


class _TextEncoder(nn.Module):
    def __init__(self, working: Working) -> None:
        super().__init__()
        self._working = working

    def forward(self, ids: Tensor, mask: Tensor) -> Any:
        self._working.encoders += 1
        return SimpleNamespace(last_hidden_state=torch.zeros(*ids.shape, _TEXT_DIM))


class _Encoder(nn.Module):
    """Of pictures: means over blocks of pixels, in the shape of the VAE's moments."""

    def __init__(self, channels: int, time_stride: int, space_stride: int, working: Working) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList()
        self.nonlinearity = self.norm_out = nn.Identity()
        self._sizes = (channels, time_stride, space_stride)
        self._working = working

    def conv_in(self, given: Tensor, before: Tensor | None) -> Tensor:
        self._working.encoders += before is None
        channels, _, stride = self._sizes
        means = functional.avg_pool2d(given[0, :, -1], stride).mean(dim=0)
        return means.expand(1, 2 * channels, 1, *means.shape).clone()

    def mid_block(self, given: Tensor, **_: Any) -> Tensor:
        return given

    def conv_out(self, given: Tensor, before: Tensor | None) -> Tensor:
        return given


def _velocity(channels: int, working: Working) -> Any:
    def predict(
        latents: Tensor, timestep: Tensor, texts: Sequence[Tensor], image: Tensor | None, cancel: CancelToken
    ) -> list[Tensor]:
        working.one_step()
        cancel.check()
        return [latents[:, :channels] for _ in texts]

    return predict


class _Lead:
    """Decodes in the model's place."""

    def __init__(self, working: Working, stride: int) -> None:
        self.parallel = Parallel()
        self.overflowed: int | None = None
        self._working = working
        self._stride = stride
        self._frames: NDArray[np.uint8] | None = None

    def wear(self, loras: Sequence[ResolvedLora], steps: int) -> None:
        """There is nobody else."""

    def bands(self, latents: Tensor) -> Bands:
        nobody: Any = None
        return Bands(nobody, (latents.shape[3],))

    def decoder(self, vae: Any, bands: Bands, *, lean: bool) -> _Lead:
        return self

    def chunks(self, latents: Tensor) -> Iterator[Tensor]:
        count, height, width = latents.shape[2], self._stride * latents.shape[3], self._stride * latents.shape[4]
        shape = (4 * count - 3, height, width)
        if self._frames is None or self._frames.shape[:3] != shape:
            self._frames = drawn_frames(*shape)  # once: what it costs is nobody's time but the first job's
        began, frames = time.monotonic(), torch.from_numpy(self._frames)
        for number in range(count):
            due = began + self._working.decode * (number + 1) / count
            time.sleep(max(0.0, due - time.monotonic()))
            yield frames[:1] if number == 0 else frames[4 * number - 3 : 4 * number + 1]


def drawn_frames(count: int, height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [count, height, width, 3]: two layers of soft colours with grain that pass over each other, for an encoder to
    have as much to do as with a film."""
    random = np.random.default_rng(0)
    layers = [_layer(random, height, width + speed * count) for speed in _PAN]
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        parts = [layer[:, speed * number :][:, :width] for layer, speed in zip(layers, _PAN, strict=True)]
        grain = random.integers(-1, 2, (height, width, 1), dtype=np.int16)
        frames[number] = np.clip((parts[0] + parts[1]) // 2 + grain, 0, 255)
    return frames


def _layer(random: np.random.Generator, height: int, width: int) -> NDArray[np.int16]:
    coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, height // _SOFT + 2, width // _SOFT + 2)))
    soft = functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
    return np.rint(soft + random.normal(0, _GRAIN, soft.shape)).astype(np.int16)
