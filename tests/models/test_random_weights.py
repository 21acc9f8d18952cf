"""Random weights: everything of a module is there, where it belongs, in its dtype, and of a usual size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from wanreel.models.quantize import Scheme, store_in
from wanreel.models.random_weights import fill

CPU = torch.device("cpu")


class Small(ModelMixin):
    """What real models have: a table that two parts share, norms, what stays fp32, buffers with and without numbers."""

    _keep_in_fp32_modules = ["wide"]

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(32, 64)
        self.table = nn.Embedding(32, 64)
        self.table.weight = self.shared.weight
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.norm_q = nn.LayerNorm(64)
        self.wide = nn.Linear(64, 64, bias=False)
        self.register_buffer("position_ids", torch.arange(5).expand((1, -1)), persistent=False)
        self.register_buffer("scale", torch.tensor([3.0]))
        self.rope = nn.Module()
        self.rope.register_buffer("cos", torch.ones(4), persistent=False)


def made(scheme: Scheme | None = None, dtype: torch.dtype = torch.bfloat16) -> Any:
    with torch.device("meta"):
        small = Small()
    small.scale = torch.tensor([3.0])
    stored = store_in(small.blocks, scheme) if scheme else {}
    fill(small, dtype, CPU, CPU, stored.values())
    return small


@pytest.mark.parametrize("scheme", [None, "fp8", "int8", "int4"])
def test_a_module_without_numbers_gets_all_it_needs(scheme: Scheme | None) -> None:
    small, again = made(scheme), made(scheme)
    assert small.table.weight is small.shared.weight
    assert small.shared.weight.dtype == torch.bfloat16 and small.wide.weight.dtype == torch.float32
    assert small.position_ids.tolist() == [[0, 1, 2, 3, 4]] and small.scale.item() == 3.0
    held = dict(small.state_dict())
    assert {name for name, tensor in held.items() if tensor.is_meta} == set() and "position_ids" not in held
    assert small.rope.cos.is_meta, "a table is computed by whoever knows how"
    assert all(torch.equal(tensor.float(), again.state_dict()[name].float()) for name, tensor in held.items())


@pytest.mark.parametrize("scheme", [None, "fp8", "int4"])
def test_activations_are_about_as_large_as_they_come_in(scheme: Scheme | None) -> None:
    small = made(scheme, torch.float32)
    given = torch.randn(200, 64, generator=torch.Generator().manual_seed(1))
    out = given
    for block in small.blocks:
        out = block(out)
    assert 0.7 < float(out.std()) < 1.4
    assert torch.equal(small.norm_q.bias, torch.zeros(64)) and float(small.wide(given).std()) > 0.7
