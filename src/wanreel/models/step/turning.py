"""Queries and keys on their way into attention: normalised and turned by position."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Turn(NamedTuple):
    """Position as two factors of each pair of columns, fp32 [1, tokens, 1, d]: x · cosine + swapped(x) · sine."""

    cosine: Tensor
    sine: Tensor  #: with the signs of the pairs
    pairs: tuple[Tensor, Tensor] | None = None  #: cosine and sine [tokens, d / 2] of each pair, for our own kernel


def turn_of(rotary: tuple[Tensor, Tensor]) -> Turn:
    """From Diffusers' tables, which repeat each angle for both columns of a pair."""
    cosine, sine = (table.float() for table in rotary)
    signs = torch.tensor([-1.0, 1.0], device=sine.device).repeat(sine.shape[-1] // 2)
    return Turn(cosine.contiguous(), (sine * signs).contiguous())


def paired(turn: Turn) -> Turn:
    """With what our own kernel takes."""
    return turn._replace(pairs=(turn.cosine[0, :, 0, 0::2].contiguous(), turn.sine[0, :, 0, 1::2].contiguous()))


def turned(x: Tensor, norm: Any, heads: int, turn: Turn) -> Tensor:
    """[b, tokens, heads, d] of queries or keys [b, tokens, dim] as their matrix gives them.

    Swapping the columns of each pair is an index to the compiler, so that nothing is copied.
    """
    split = norm(x).unflatten(2, (heads, -1)).float()
    swapped = split.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return (split * turn.cosine + swapped * turn.sine).type_as(x)
