"""Diffusers' own pipelines over the modules of an EditModel: the other side of the parity tests.

Nothing is copied, so both sides compute with the same tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import QwenImageEditPipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import QwenImageEditPlusPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from wanreel.models.edit_model import EditModel
from wanreel.models.edit_processor import IMAGE


class _Placed(nn.Module):
    """The text encoder, told which tokens are a picture's, as the pipeline fails to do with transformers 5."""

    def __init__(self, encoder: Any, place: int) -> None:
        super().__init__()
        self._encoder = encoder
        self._place = place
        self.config, self.dtype, self.device = encoder.config, encoder.dtype, encoder.device

    def forward(self, input_ids: torch.Tensor, **more: Any) -> Any:
        kinds = (input_ids == self._place).to(torch.int32)
        return self._encoder(input_ids=input_ids, mm_token_type_ids=kinds, **more)


def diffusers_edits(model: EditModel) -> Any:
    """QwenImageEditPlusPipeline, or QwenImageEditPipeline for the first of these models.

    The modules must be on the device, so the model's placement must be "resident".
    """
    kind: Any = QwenImageEditPlusPipeline if model.spec.numbered else QwenImageEditPipeline
    tokenizer = model.processor.tokenizer
    return kind(
        vae=model.vae,
        text_encoder=_Placed(model.text_encoder, tokenizer.convert_tokens_to_ids(IMAGE)),
        tokenizer=tokenizer,
        processor=model.processor,
        transformer=model.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(dict(model.scheduler_config)),
    )
