"""Our own kernels between fp8 matrices against torch's operators.

On a GPU, or without one by Triton's interpreter: `TRITON_INTERPRET=1 pytest -m gpu tests/models/test_step_passes.py`.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanreel.models.eight import by_rows
from wanreel.models.step.own import own
from wanreel.models.step.turning import turn_of, turned
from wanreel.models.step_bench import error_of

RUNS = torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_spec("triton") is None or not RUNS, reason="needs Triton, and a GPU or its interpreter"),
]
TOKENS, DIM, HEADS = 19, 384, 3
#: The interpreter cuts bf16 off and loses the carry where e4m3 rounds up to a power of two: there scales tell.
KIND = torch.bfloat16 if torch.cuda.is_available() else torch.float32
BOUND = 0.004 if torch.cuda.is_available() else 0.10  #: a bf16 that rounds the other way changes an e4m3 here and there


@pytest.fixture
def passes() -> Any:
    from wanreel.models.step import passes

    return passes


def drawn(*size: int) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size))).to(device)


def unscaled(found: tuple[Tensor, Tensor]) -> Tensor:
    return found[0].float() * found[1]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_norm_modulation_and_rounding(passes: Any, batch: int, gated: bool, centred: bool) -> None:
    x, update = 3 * drawn(batch, TOKENS, DIM).to(KIND) + 1, drawn(batch, TOKENS, DIM + 1)[..., 1:].to(KIND)
    gate = drawn(batch, 1, DIM) if gated else None
    factor, offset = 1 + 0.3 * drawn(batch, 1, DIM), drawn(batch, 3, DIM)[:, :1]
    mean = offset if centred else None
    hidden, *found = passes.add_enter(x, update, gate, factor, offset, mean, 1e-6)
    wanted = (x.float() + update.float() * (1 if gate is None else gate)).to(KIND)
    assert torch.equal(hidden, wanted)
    given = F.layer_norm(wanted.float(), (DIM,), eps=1e-6) * factor + offset
    given = given - (0 if mean is None else mean)
    exact = by_rows(given)
    assert error_of(unscaled((found[0], found[1])), unscaled(exact)) < BOUND
    torch.testing.assert_close(found[1], exact.scale, rtol=0.01, atol=0)
    same = passes.enter(wanted, factor, offset, mean, 1e-6)
    assert torch.equal(same[0].float(), found[0].float()) and torch.equal(same[1], found[1])


@pytest.mark.parametrize("centred", [False, True])
def test_gelu_and_rounding(passes: Any, centred: bool) -> None:
    x = 2 * drawn(2, TOKENS, 640).to(KIND)
    mean = drawn(2, 1, 640) if centred else None
    wanted = by_rows(F.gelu(x.float(), approximate="tanh"), mean)
    found = passes.gelu(x, mean)
    assert error_of(unscaled(found), unscaled(wanted)) < BOUND
    torch.testing.assert_close(found[1], wanted.scale, rtol=0.01, atol=0)


def test_queries_and_keys(passes: Any) -> None:
    width = DIM // HEADS
    x, norm = (
        2 * drawn(2, TOKENS, DIM).to(KIND),
        nn.RMSNorm(DIM, eps=1e-6).to("cuda" if torch.cuda.is_available() else "cpu"),
    )
    norm.weight.data = 1 + 0.2 * drawn(DIM)
    angles = drawn(1, TOKENS, 1, width // 2).repeat_interleave(2, -1)
    turn = turn_of((angles.cos(), angles.sin()))
    pairs = (turn.cosine[0, :, 0, 0::2].contiguous(), turn.sine[0, :, 0, 1::2].contiguous())
    wanted = turned(x.float(), norm, HEADS, turn).flatten(2).detach()
    with torch.no_grad():
        for step in (1, 16):
            found = passes.turn(x, norm.weight, *pairs, None, None, step, 1e-6)
            assert error_of(found.float(), wanted[:, ::step]) < 0.004
        mean, scale = drawn(2, 1, DIM), torch.full((1,), 0.03, device=x.device)
        found = passes.turn(x, norm.weight, *pairs, mean, scale, 1, 1e-6)
    assert found.dtype == torch.float8_e4m3fn
    assert 0.01 < error_of(found.float() * scale, wanted - mean) < max(0.04, BOUND)


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo's own
def test_the_compiler_takes_each_as_one_piece(passes: Any) -> None:
    kernels = own()
    x, row = drawn(1, TOKENS, DIM).to(KIND), drawn(1, 1, DIM)
    angles = drawn(TOKENS, DIM // HEADS // 2)

    def all_of_them(x: Tensor) -> list[Tensor]:
        turning = (torch.ones_like(row[0, 0]), angles.cos(), angles.sin(), row, torch.ones_like(row[0, 0, :1]), 1, 1e-6)
        return [
            *kernels.enter(x, row, row, None, 1e-6),
            *kernels.add_enter(x, x, None, row, row, row, 1e-6),
            *kernels.gelu(x, None),
            kernels.turn(x, *turning),
        ]

    found = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")(x)
    for one, two in zip(found, all_of_them(x), strict=True):
        assert one.shape == two.shape and torch.equal(one.float(), two.float())


def test_heads_that_do_not_fit_are_refused(passes: Any) -> None:
    x = drawn(1, 4, 24)
    with pytest.raises(ValueError, match="do not fit"):
        passes.turn(x, x[0, 0], drawn(4, 5), drawn(4, 5), None, None, 1, 1e-6)
