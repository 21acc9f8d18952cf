"""The planner's arithmetic against the modules themselves: real shapes on the meta device, which hold no memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from models.meter import metered
from wanreel.core.catalog import MODELS, Catalog, ModelSpec
from wanreel.core.components import IMAGE_ENCODER, TEXT_ENCODER, VAES, known, transformer, transformer_block
from wanreel.core.workload import Workload
from wanreel.models.components import full_modules
from wanreel.models.lean import Rows, lean_block
from wanreel.models.quantize import StoredLinear, quantize
from wanreel.models.step.block import keys_of
from wanreel.models.tiny import build_tiny

KNOWN = [spec for spec in MODELS if known(spec)]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("spec", KNOWN, ids=lambda spec: spec.name)
def test_parameters_are_counted_exactly(spec: ModelSpec) -> None:
    with torch.device("meta"):
        parts = full_modules(spec)
    encoder = parts["text_encoder"]
    encoder.encoder.embed_tokens = encoder.shared  # as loading ties them
    assert count(encoder) == TEXT_ENCODER.total
    assert count(parts["vae"]) == VAES[spec.latent_channels].total
    if spec.clip:
        assert count(parts["image_encoder"]) == IMAGE_ENCODER.total
    module: Any = parts["transformer"]
    kept = [it for name, it in module.named_parameters() if set(name.split(".")) & set(module._keep_in_fp32_modules)]
    assert count(module) == transformer(spec).total
    assert sum(it.numel() for it in kept) == transformer(spec).kept
    assert count(module.blocks[0]) == transformer_block(spec).total
    assert all(count(block) == count(module.blocks[0]) for block in module.blocks)


@pytest.mark.parametrize(("name", "frames", "height", "width"), [("t2v-14b", 21, 90, 160), ("t2v-1.3b", 21, 60, 104)])
def test_a_block_takes_what_the_formula_says(name: str, frames: int, height: int, width: int) -> None:
    spec = Catalog().get(name)
    with torch.device("meta"):
        module: Any = full_modules(spec)["transformer"]
        hidden = torch.empty(
            1, frames * height * width // 4, module.config.num_attention_heads * 128, dtype=torch.bfloat16
        )
        context, modulation = hidden[:, :512].clone(), hidden[:, :6].clone()
        rotary = module.rope(torch.empty(1, 16, frames, height, width))
    block = module.blocks[0].to(torch.bfloat16)
    work = Workload(spec, width * 8, height * 8, 4 * frames - 3, 50, 2)
    for rows in (0, 8192):
        with torch.no_grad(), metered() as meter:
            if rows:
                lean_block(block, hidden, context, modulation, rotary, Rows(rows))
            else:
                block(hidden, context, modulation, rotary)
        counted = meter.peak + hidden.nbytes
        assert work.forward_activations(rows, 0) - work.carried() == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("name", ["i2v-14b-480p", "t2v-a14b"])
def test_kept_keys_take_what_the_formula_says(name: str) -> None:
    spec = Catalog().get(name)
    with torch.device("meta"):
        module: Any = full_modules(spec)["transformer"]
        pictures = 257 if spec.clip else 0
        context = torch.empty(1, pictures + spec.prompt_tokens, module.config.num_attention_heads * 128)
    keys = keys_of(module.blocks[0].to(torch.bfloat16), context.bfloat16(), pictures)
    nbytes = sum(it.nbytes for it in keys if it is not None)
    work = Workload(spec, 832, 480, 81, 40, 2, int(spec.clip))
    assert work.kept_keys == nbytes * len(module.blocks) * 2 * spec.experts
    assert replace(work, passes=1).kept_keys * 2 == work.kept_keys


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("rows", [Rows(5), Rows(7, 11)])
def test_rows_change_no_bit(per_token: bool, rows: Rows) -> None:
    transformer: Any = build_tiny(Catalog().get("tiny:ti2v-5b")).experts[0].transformer
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 32, 24, generator=generator)
    context = torch.randn(1, 9, 24, generator=generator)
    modulation = torch.randn((1, 32, 6, 24) if per_token else (1, 6, 24), generator=generator)
    rotary = transformer.rope(torch.empty(1, 48, 2, 8, 8))
    with torch.no_grad():
        whole = transformer.blocks[0](hidden.clone(), context, modulation, rotary)
        lean = lean_block(transformer.blocks[0], hidden.clone(), context, modulation, rotary, rows)
    assert torch.equal(whole, lean)


@pytest.mark.parametrize(("scheme", "bound"), [("fp8", 0.04), ("int8", 0.01), ("int4", 0.12)])
def test_stored_weights_are_near_and_smaller(scheme: Any, bound: float) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(128, 96)
    given = torch.randn(5, 128)
    blocks = nn.ModuleList([nn.Sequential(linear)])
    expected = linear(given)
    quantize(blocks, scheme)
    stored: Any = blocks[0][0]  # type: ignore[index]
    assert isinstance(stored, StoredLinear)
    assert torch.linalg.vector_norm(stored(given) - expected) <= bound * torch.linalg.vector_norm(expected)
    nbytes = stored.packed.nbytes + stored.scale.nbytes + (0 if stored.offset is None else stored.offset.nbytes)
    assert nbytes < {"fp8": 0.3, "int8": 0.3, "int4": 0.2}[scheme] * 4 * 128 * 96
