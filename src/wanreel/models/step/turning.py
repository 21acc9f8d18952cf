"""Queries and keys on their way into attention: normalised, turned by position, and rounded where a kernel wants that.

In one pass by our own kernel where Triton is; else by torch's operators, which is what a compiler without it sees.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wanreel.models.step.eight import FP8, FP8_MAX, ROOM, SAMPLE, Scaled, sampled, whole

_TINY = 1e-12
_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor cosine, Tensor sine, Tensor? mean, Tensor? scale, int step, float eps) -> Tensor"
)


class Turn(NamedTuple):
    """Position as two factors of each pair of columns, fp32 [1, tokens, 1, d]: x · cosine + swapped(x) · sine."""

    cosine: Tensor
    sine: Tensor  #: with the signs of the pairs
    one_pass: Any = None  #: our own kernel, where there is one; it takes the next two
    of_pairs: tuple[Tensor, Tensor] | None = None  #: cosine and sine [tokens, d / 2]


def turn_of(rotary: tuple[Tensor, Tensor]) -> Turn:
    """From Diffusers' tables, which repeat each angle for both columns of a pair."""
    cosine, sine = (table.float() for table in rotary)
    signs = torch.tensor([-1.0, 1.0], device=sine.device).repeat(sine.shape[-1] // 2)
    signed = (sine * signs).contiguous()
    if not cosine.is_cuda or find_spec("triton") is None:
        return Turn(cosine.contiguous(), signed)
    pairs = (cosine[0, :, 0, 0::2].contiguous(), sine[0, :, 0, 1::2].contiguous())
    return Turn(cosine.contiguous(), signed, one_pass(), pairs)


def turned(x: Tensor, norm: Any, heads: int, turn: Turn) -> Tensor:
    """[b, tokens, heads, d] of queries or keys [b, tokens, dim] as their matrix gives them."""
    if _fused(x, norm, turn):
        return _once(turn, x, norm, None, None, 1).unflatten(2, (heads, -1))
    split = norm(x).unflatten(2, (heads, -1)).float()
    # Swapping the columns of each pair is an index to the compiler, so that nothing is copied.
    swapped = split.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (split * turn.cosine + swapped * turn.sine).type_as(x)


def rounded_query(x: Tensor, norm: Any, heads: int, turn: Turn) -> Scaled:
    """The same in e4m3."""
    if not _fused(x, norm, turn):
        found = turned(x, norm, heads, turn)
        return whole(found, sampled(found))
    some = _once(turn, x, norm, None, None, SAMPLE)
    scale = _scale(some)
    out = _once(turn, x, norm, None, scale, 1)
    return Scaled(out.unflatten(2, (heads, -1)), scale.reshape(()))


def rounded_key(x: Tensor, norm: Any, heads: int, turn: Turn) -> Scaled:
    """The same with the mean taken off.

    The same vector off all keys changes a query's logits by one number, which the softmax takes out again: exact, and the
    rounding is of what tells keys apart alone. The mean is of the sample, as any vector would do.
    """
    if not _fused(x, norm, turn):
        return centred(turned(x, norm, heads, turn))
    some = _once(turn, x, norm, None, None, SAMPLE).float()
    mean = some.mean(1)
    scale = _scale(some - mean.unsqueeze(1))
    out = _once(turn, x, norm, mean, scale, 1)
    return Scaled(out.unflatten(2, (heads, -1)), scale.reshape(()))


def centred(key: Tensor) -> Scaled:
    """Keys [b, tokens, heads, d] in e4m3, the mean of the sample taken off."""
    some = sampled(key).float()
    mean = some.mean(1, keepdim=True)
    return whole(key.float() - mean, some - mean)


def _scale(sample: Tensor) -> Tensor:
    return (sample.abs().amax().float().clamp_min(_TINY) * (ROOM / FP8_MAX)).reshape(1)


def _fused(x: Tensor, norm: Any, turn: Turn) -> bool:
    """A norm that wears a LoRA goes the other way."""
    return turn.one_pass is not None and x.dtype == torch.bfloat16 and type(norm) is nn.RMSNorm


def _once(turn: Turn, x: Tensor, norm: Any, mean: Tensor | None, scale: Tensor | None, step: int) -> Tensor:
    assert turn.of_pairs is not None, "comes with the kernel"
    cosine, sine = turn.of_pairs
    return turn.one_pass(x, norm.weight, cosine, sine, mean, scale, step, norm.eps)


@cache
def one_pass() -> Any:
    """The operator wanreel::turn, made once a process."""
    from wanreel.models.step.triton_turn import turn

    operator: Any = torch.library.custom_op("wanreel::turn", turn, mutates_args=(), schema=_SCHEMA)

    def fake(
        x: Tensor, weight: Tensor, cosine: Tensor, sine: Tensor, mean: Any, scale: Any, step: int, eps: float
    ) -> Tensor:
        batch, tokens, dim = x.shape
        rows = (tokens + step - 1) // step
        return torch.empty(batch, rows, dim, dtype=x.dtype if scale is None else FP8, device=x.device)

    operator.register_fake(fake)
    return operator
