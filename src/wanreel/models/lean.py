"""A transformer block in less memory: elementwise passes go over some rows (tokens) at a time and write in place.

The arithmetic is that of Diffusers' `WanTransformerBlock` and `WanAttnProcessor` (diffusers 0.42.1,
models/transformers/transformer_wan.py), in the same order and dtypes, so results are equal to the bit: every row is
computed as it is in the whole. Only matrices that are cut by rows (`feed_forward_rows`) may round differently, because
a matrix product picks its kernel by its shape. Knows nothing of where weights live.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

from wanreel.models.ranks.attention import SplitAttention

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Rows:
    """How many tokens are worked on at a time."""

    elementwise: int
    feed_forward: int = 0  #: 0: the feed-forward's matrices take all of them

    def cuts(self, tokens: int) -> Iterator[slice]:
        yield from _cuts(tokens, self.elementwise)


def lean_block(block: Any, hidden: Tensor, context: Tensor, modulation: Tensor, rotary: Rotary, rows: Rows) -> Tensor:
    """What `block(hidden, context, modulation, rotary)` gives. Overwrites `hidden` [b, tokens, dim] and returns it.

    modulation: [b, 6, dim], or [b, tokens or 1, 6, dim] where tokens have their own. Highest use of memory, in units of
    `hidden`: five, with queries, keys, values and the attention's output.
    """
    table = _Modulation(block.scale_shift_table, modulation)
    _add_gated(hidden, _self_attention(block, hidden, table, rotary, rows), table, 2, rows)
    normed = torch.empty_like(hidden)
    for cut in rows.cuts(hidden.shape[1]):
        normed[:, cut] = block.norm2(hidden[:, cut].float()).type_as(hidden)
    hidden += block.attn2(normed, context, None, None)
    del normed
    _feed_forward(block, hidden, table, rows)
    return hidden


@dataclass(frozen=True, slots=True)
class _Modulation:
    """Shift, scale and gate of attention (0, 1, 2) and of the feed-forward (3, 4, 5), fp32."""

    table: Tensor  #: [1, 6, dim], learnt
    given: Tensor  #: [b, 6, dim] or [b, tokens or 1, 6, dim], from the timestep

    def part(self, number: int, cut: slice) -> Tensor:
        """[b, 1 or rows, dim] of the tokens in `cut`."""
        if self.given.ndim == 3:
            return self.table[:, number : number + 1] + self.given[:, number : number + 1].float()
        given = self.given if self.given.shape[1] == 1 else self.given[:, cut]
        return self.table[:, number].unsqueeze(0) + given[:, :, number].float()


def _modulated(norm: Any, hidden: Tensor, table: _Modulation, first: int, cut: slice) -> Tensor:
    shift, scale = table.part(first, cut), table.part(first + 1, cut)
    return (norm(hidden[:, cut].float()) * (1 + scale) + shift).type_as(hidden)


def _add_gated(hidden: Tensor, update: Tensor, table: _Modulation, gate: int, rows: Rows) -> None:
    """hidden += gate · update, in fp32 and rounded once."""
    for cut in rows.cuts(hidden.shape[1]):
        part = hidden[:, cut].float() + update[:, cut] * table.part(gate, cut)
        hidden[:, cut] = part.type_as(hidden)


def _self_attention(block: Any, hidden: Tensor, table: _Modulation, rotary: Rotary, rows: Rows) -> Tensor:
    attn = block.attn1
    normed = torch.empty_like(hidden)
    for cut in rows.cuts(hidden.shape[1]):
        normed[:, cut] = _modulated(block.norm1, hidden, table, 0, cut)
    query = _turned(attn.to_q(normed), attn.norm_q, attn.heads, rotary, rows)
    key = _turned(attn.to_k(normed), attn.norm_k, attn.heads, rotary, rows)
    value = attn.to_v(normed).unflatten(2, (attn.heads, -1))
    del normed
    processor = attn.processor
    if isinstance(processor, SplitAttention):
        out = processor.attend(query, key, value)
    else:
        out = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=None,
            dropout_p=0.0,
            is_causal=False,
            backend=processor._attention_backend,
            parallel_config=processor._parallel_config,
        )
    out = out.flatten(2, 3).type_as(query)
    del query, key, value
    return attn.to_out[1](attn.to_out[0](out))


def _turned(heads: Tensor, norm: Any, count: int, rotary: Rotary, rows: Rows) -> Tensor:
    """[b, tokens, heads, d] of queries or keys [b, tokens, dim], normalised and turned by position, in place."""
    out = heads.unflatten(2, (count, -1))
    for cut in rows.cuts(heads.shape[1]):
        part = norm(heads[:, cut]).unflatten(2, (count, -1))
        first, second = part.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = rotary[0][:, cut, :, 0::2], rotary[1][:, cut, :, 1::2]
        out[:, cut, :, 0::2] = first * cos - second * sin
        out[:, cut, :, 1::2] = first * sin + second * cos
    return out


def _feed_forward(block: Any, hidden: Tensor, table: _Modulation, rows: Rows) -> None:
    enter, leave = block.ffn.net[0], block.ffn.net[2]
    for part in _cuts(hidden.shape[1], rows.feed_forward or hidden.shape[1]):
        span = hidden[:, part]
        normed = torch.empty_like(span)
        for cut in rows.cuts(span.shape[1]):
            here = slice(part.start + cut.start, part.start + cut.stop)
            normed[:, cut] = _modulated(block.norm3, hidden, table, 3, here)
        wide = enter.proj(normed)
        del normed
        for cut in rows.cuts(span.shape[1]):
            wide[:, cut] = F.gelu(wide[:, cut], approximate=enter.approximate)
        update = leave(wide)
        del wide
        for cut in rows.cuts(span.shape[1]):
            here = slice(part.start + cut.start, part.start + cut.stop)
            gated = span[:, cut].float() + update[:, cut].float() * table.part(5, here)
            span[:, cut] = gated.type_as(hidden)
        del update


def _cuts(tokens: int, rows: int) -> Iterator[slice]:
    for start in range(0, tokens, rows):
        yield slice(start, min(start + rows, tokens))
