"""WanModel: the loaded parts of one Wan model. Knows nothing of how they were loaded or of the denoise loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wanreel.core.catalog import ModelSpec
from wanreel.core.lora import ResolvedLora
from wanreel.core.placement import Placement
from wanreel.models.convolution import prefer_onednn
from wanreel.models.expert import Expert
from wanreel.models.lean import Rows
from wanreel.models.parted import Parted
from wanreel.models.prompt_cache import PromptMemory, SightMemory
from wanreel.models.ranks.leading import Leading
from wanreel.models.step.choice import Choices
from wanreel.models.step.path import Compiler
from wanreel.models.visiting import streamed_text_encoder

TRAIN_TIMESTEPS = 1000  #: of every Wan model: a timestep is 1000 times its sigma


@dataclass(frozen=True)
class Later:
    """A part that is loaded when it is first brought in."""

    load: Callable[[], Any]


@dataclass(kw_only=True)
class WanModel(Parted):
    """Everything one generation needs, placed on one device. Not re-entrant: one generation at a time.

    `dtype` is that of the transformers. `scheduler_config` is the folder's own; its flow_shift is not to be trusted (hub
    conversions carry a wrong one). Experts need no `resident`: `Expert.predict` brings its own weights.
    """

    spec: ModelSpec
    tokenizer: Any
    text_encoder: Any  #: or `Later`
    image_encoder: Any | None
    image_processor: Any | None
    vae: Any
    experts: tuple[Expert, ...]  #: high-noise first
    worn: tuple[ResolvedLora, ...] = ()  #: the LoRAs that were put on for the run (models/wear.py)
    prompts: PromptMemory | None = None  #: embeddings of prompts that were encoded before
    sights: SightMemory | None = None  #: the same of pictures
    lead: Leading | None = None  #: where it runs on several ranks: what tells the others (models/parallel)
    kernels: Choices = field(default_factory=Choices)  #: which attention is the fastest here (models/step)
    compiler: Compiler = field(default_factory=Compiler)  #: of its blocks
    preview_weights: Path | None = None  #: of a small decoder for previews (generation/preview_decoder.py)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.text_encoder, Later):
            self._place_text_encoder()
        if self.device.type == "cpu":
            prefer_onednn(self.vae.decoder)  # not the encoder: latents stay Diffusers' to the bit
        if not self.placement.keeps_experts:
            for expert in self.experts:
                expert.share(self._room)

    def _place_text_encoder(self) -> None:
        if self.placement.text_streamed:
            self._guests["text_encoder"] = streamed_text_encoder(self.text_encoder, self.device)

    def _portion(self, placement: Placement) -> None:
        if self.lead is not None:
            self.lead.parallel = placement.parallel
        rows = Rows(placement.rows, placement.feed_forward_rows) if placement.rows else None
        for expert in self.experts:
            expert.rows = rows

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The parts that hold weights, by name; a text encoder that is not loaded yet is left out."""
        parts = {"vae": self.vae, "text_encoder": self.text_encoder, "image_encoder": self.image_encoder}
        parts |= {f"transformer_{number}": expert.transformer for number, expert in enumerate(self.experts, 1)}
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    @property
    def expand_timesteps(self) -> bool:
        """Whether each token has its own timestep (TI2V)."""
        return self.spec.conditioning == "first_frame"

    @property
    def boundary_timestep(self) -> float | None:
        """Timesteps at or above it are the high-noise expert's; None with one expert."""
        return None if self.spec.boundary_ratio is None else self.spec.boundary_ratio * TRAIN_TIMESTEPS

    def expert_index(self, timestep: float, boundary_ratio: float | None = None) -> int:
        """0 (high noise, or the only one) or 1 (low noise), as `t >= boundary` in Diffusers' pipelines.

        `boundary_ratio` takes the place of the model's own, where it has one.
        """
        boundary = self.boundary_timestep
        if boundary is not None and boundary_ratio is not None:
            boundary = boundary_ratio * TRAIN_TIMESTEPS
        return 0 if boundary is None or timestep >= boundary else 1

    def expert_at(self, timestep: float) -> Expert:
        """The expert in charge of `timestep` (0 to 1000)."""
        return self.experts[self.expert_index(timestep)]

    def _module(self, part: str) -> nn.Module:
        if isinstance(self.text_encoder, Later) and part == "text_encoder":
            self.text_encoder = self.text_encoder.load()
            self._place_text_encoder()
        module: nn.Module | None = getattr(self, part)
        if module is None:
            raise ValueError(f"{self.spec.name} has no {part}")
        return module

    def _stays(self, part: str) -> bool:
        return self.placement.keeps_everything or (part == "vae" and self.placement.keeps_experts)

    @property
    def _lingers(self) -> bool:
        return self.placement.swaps

    def unload(self) -> None:
        """Free the memory of every weight. The model can't be used afterwards."""
        self._room.clear()
        self._guests.clear()
        for expert in self.experts:
            expert.unload()
        for module in (self.text_encoder, self.image_encoder, self.vae):
            if isinstance(module, nn.Module):
                module.to("meta")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
