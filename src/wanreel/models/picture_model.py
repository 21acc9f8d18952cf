"""PictureModel: the loaded parts of one model of Stable Diffusion XL's kind. Knows nothing of how they were loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from wanreel.core.picture_models import PictureSpec
from wanreel.core.placement import Placement
from wanreel.models.parted import Parted

PARTS = ("text_encoder", "text_encoder_2", "vae", "unet")


@dataclass(kw_only=True)
class PictureModel(Parted):
    """Everything one picture needs, placed on one device. Not re-entrant: one picture at a time.

    `dtype` is that of U-Net and text encoders; the VAE is in fp32, as it overflows in fp16.
    """

    spec: PictureSpec
    tokenizer: Any | None  #: of the first text encoder; None where there is only the second
    tokenizer_2: Any
    text_encoder: Any | None  #: CLIP ViT-L
    text_encoder_2: Any  #: OpenCLIP bigG, which gives the pooled embedding
    vae: Any
    unet: Any
    empty_is_zero: bool  #: no negative prompt means zeros in the place of an encoded empty text

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The parts that hold weights, by name."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    @property
    def encoders(self) -> tuple[tuple[str, Any], ...]:
        """(part, tokenizer) of each text encoder, in the order in which their embeddings stand."""
        first = () if self.text_encoder is None else (("text_encoder", self.tokenizer),)
        return (*first, ("text_encoder_2", self.tokenizer_2))

    def _portion(self, placement: Placement) -> None:
        tile = placement.tile
        if tile is None:
            self.vae.disable_tiling()
            return
        self.vae.enable_tiling()
        self.vae.tile_sample_min_size = tile.height
        self.vae.tile_latent_min_size = tile.height // self.spec.spatial_stride
