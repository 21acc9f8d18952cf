"""Self-attention of blocks whose tokens may be in parts. Knows nothing of experts or ranks.

The arithmetic is that of Diffusers' `WanAttnProcessor` (diffusers 0.42.1, models/transformers/transformer_wan.py), with
values first, then keys, then queries: what is made sets out for the other ranks while the next is made.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import Tensor

from wanreel.models.ranks.split import Kernel, Split

Rotary = tuple[Tensor, Tensor]


def attend_whole(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention as Diffusers dispatches it. [b, tokens, heads, d]."""
    return dispatch_attention_fn(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False)


class SplitAttention:
    """The processor of `attn1`, one for all blocks of an expert."""

    # Read by Diffusers, which keeps its own choices there.
    _attention_backend = None
    _parallel_config = None

    def __init__(self, kernel: Kernel = attend_whole) -> None:
        self.split: Split | None = None  #: of the pass that runs now; None: every token is here
        self._kernel = kernel

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Rotary | None = None,
    ) -> Tensor:
        split = self.split
        if split is None:
            query, key, value = self._projected(attn, hidden_states, rotary_emb)
            out = self._kernel(query, key, value)
        else:
            value = split.to_heads(attn.to_v(hidden_states).unflatten(2, (attn.heads, -1)))
            key = split.to_heads(_turned(attn.norm_k(attn.to_k(hidden_states)), attn.heads, rotary_emb))
            queries = split.in_goes(_turned(attn.norm_q(attn.to_q(hidden_states)), attn.heads, rotary_emb))
            out = split.attended(queries, key, value, attn.heads, self._kernel)
        out = out.flatten(2, 3).type_as(hidden_states)
        return attn.to_out[1](attn.to_out[0](out))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention of this rank's queries over every rank's keys: [b, part, heads, d] each."""
        split, heads = self.split, query.shape[2]
        if split is None:
            return self._kernel(query, key, value)
        value, key, queries = split.to_heads(value), split.to_heads(key), split.in_goes(query)
        return split.attended(queries, key, value, heads, self._kernel)

    @staticmethod
    def _projected(attn: Any, hidden: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        query = _turned(attn.norm_q(attn.to_q(hidden)), attn.heads, rotary)
        key = _turned(attn.norm_k(attn.to_k(hidden)), attn.heads, rotary)
        return query, key, attn.to_v(hidden).unflatten(2, (attn.heads, -1))


def _turned(flat: Tensor, heads: int, rotary: Rotary | None) -> Tensor:
    """[b, tokens, heads, d] of queries or keys [b, tokens, dim], turned by position."""
    given = flat.unflatten(2, (heads, -1))
    if rotary is None:
        return given
    first, second = given.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotary[0][..., 0::2], rotary[1][..., 1::2]
    out = torch.empty_like(given)
    out[..., 0::2] = first * cos - second * sin
    out[..., 1::2] = first * sin + second * cos
    return out.type_as(given)
