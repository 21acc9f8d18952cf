"""EditProcessor: a picture and an instruction as what Qwen2.5-VL reads. Knows nothing of how pictures are painted.

It does what transformers' Qwen2VLProcessor does for one picture, without that class's need of torchvision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature

IMAGE = "<|image_pad|>"  #: stands for one of the picture's tokens


@dataclass(frozen=True, slots=True)
class EditProcessor:
    """Callable as Diffusers' pipelines call their processor."""

    tokenizer: Any
    image_processor: Any  #: transformers' Qwen2VLImageProcessorPil

    def __call__(
        self, text: Sequence[str], images: Any, padding: bool = True, return_tensors: str = "pt"
    ) -> BatchFeature:
        """`text` with one IMAGE for each picture; tokens, patches, and which token is of a picture.

        `mm_token_type_ids` gives the encoder the places of the patches in two dimensions. transformers 5 no longer
        finds them by itself, and Diffusers 0.42 does not pass them.
        """
        pictures: Any = self.image_processor(images=images, return_tensors=return_tensors)
        merged = self.image_processor.merge_size**2
        counts = iter(int(grid.prod()) // merged for grid in pictures["image_grid_thw"])
        filled = [_filled(one, counts) for one in text]
        read = self.tokenizer(filled, padding=padding, return_tensors=return_tensors, return_token_type_ids=False)
        place = self.tokenizer.convert_tokens_to_ids(IMAGE)
        kinds = (read["input_ids"] == place).to(torch.int32)
        return BatchFeature({**read, **pictures, "mm_token_type_ids": kinds})


def _filled(text: str, counts: Any) -> str:
    """Each IMAGE as many times as its picture has tokens."""
    first, *rest = text.split(IMAGE)
    return first + "".join(IMAGE * next(counts) + part for part in rest)
