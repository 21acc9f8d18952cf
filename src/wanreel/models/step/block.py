"""One transformer block as a function of tensors, made to be compiled as a whole. Knows no kernels and no requests.

The mathematics is that of Diffusers' `WanTransformerBlock` and `WanAttnProcessor` (diffusers 0.42.1,
models/transformers/transformer_wan.py) over the same layers. Rounding differs: what stands between two matrices becomes
one kernel that rounds once. Keys and values of text and picture come ready, as they are the same in every step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wanreel.models.eight import Mixed, Scaled, by_rows, middle, product, spread, wide
from wanreel.models.lora.branch import BranchedLinear
from wanreel.models.quantize import StoredLinear, multiplies_fp8
from wanreel.models.ranks.split import Split
from wanreel.models.step.kernels import Attend, torch_attend
from wanreel.models.step.turning import Turn, turned


class Keys(NamedTuple):
    """Keys and values of one block's cross-attention, [b, n, heads, d]."""

    key: Tensor
    value: Tensor
    picture_key: Tensor | None = None
    picture_value: Tensor | None = None


class Way(NamedTuple):
    """How a block computes."""

    attend: Attend
    eight: bool  #: matrices stored in fp8 are multiplied in fp8
    middles: bool = False  #: what all tokens have in common enters the matrices in fp32
    split: Split | None = None  #: where other ranks have the other tokens


def keys_of(block: Any, context: Tensor, picture_tokens: int) -> Keys:
    """Of text and picture as the condition embedder gives them: [b, picture_tokens + text, dim]."""
    attn = block.attn2
    picture, text = context[:, :picture_tokens], context[:, picture_tokens:]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(2, (attn.heads, -1)).contiguous()

    key, value = heads(attn.norm_k(attn.to_k(text))), heads(attn.to_v(text))
    if attn.add_k_proj is None:
        return Keys(key, value)
    return Keys(key, value, heads(attn.norm_added_k(attn.add_k_proj(picture))), heads(attn.add_v_proj(picture)))


def step_block(block: Any, hidden: Tensor, keys: Keys, modulation: Tensor, turn: Turn, way: Way) -> Tensor:
    """What `block` makes of `hidden` [b, tokens, dim].

    modulation: [b, 6, dim], or [b, tokens or 1, 6, dim].
    """
    shift, scale, gate, shift_ff, scale_ff, gate_ff = _modulation(block.scale_shift_table, modulation)
    given = (block.norm1(hidden.float()) * (1 + scale) + shift).type_as(hidden)
    hidden = (hidden.float() + _self_attention(block.attn1, given, turn, way) * gate).type_as(hidden)
    given = block.norm2(hidden.float()).type_as(hidden)
    hidden = hidden + _cross_attention(block.attn2, given, keys, way)
    given = (block.norm3(hidden.float()) * (1 + scale_ff) + shift_ff).type_as(hidden)
    update = _feed_forward(block.ffn, given, way)
    return (hidden.float() + update.float() * gate_ff).type_as(hidden)


def _modulation(table: Tensor, given: Tensor) -> tuple[Tensor, ...]:
    """Shift, scale and gate of attention and of the feed-forward: six of [b, 1 or tokens, dim], fp32."""
    if given.ndim == 4:
        return (table.unsqueeze(0) + given.float()).unbind(2)
    return (table + given.float()).chunk(6, dim=1)


def _self_attention(attn: Any, given: Tensor, turn: Turn, way: Way) -> Tensor:
    shared = _shared(given, way, attn.to_q, attn.to_k, attn.to_v)
    # In the order in which other ranks, where there are some, can be sent what is made while more is made.
    value = _sent(_linear(attn.to_v, given, shared).unflatten(2, (attn.heads, -1)), way)
    key = _sent(turned(_linear(attn.to_k, given, shared), attn.norm_k, attn.heads, turn), way)
    query = _sent(turned(_linear(attn.to_q, given, shared), attn.norm_q, attn.heads, turn), way)
    return _out(attn, _attended(query, key, value, attn.heads, way), given, way)


def _sent(x: Tensor, way: Way) -> Tensor:
    return x if way.split is None else way.split.to_heads(x)


def _attended(query: Tensor, key: Tensor, value: Tensor, heads: int, way: Way) -> Tensor | Mixed:
    """[b, tokens, heads, d] of what was `_sent`."""
    split = way.split
    if split is None:
        return way.attend(query, key, value)

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # Each rank has scales and a middle of its own, so e4m3 numbers of several can't lie side by side.
        return wide(way.attend(query, key, value), query.dtype)

    return split.to_tokens(split.attend(split.arrived(query), split.arrived(key), split.arrived(value), kernel), heads)


def _cross_attention(attn: Any, given: Tensor, keys: Keys, way: Way) -> Tensor:
    way = way._replace(middles=False)  # these two matrices err least (docs/speed.md)
    query = attn.norm_q(_linear(attn.to_q, given, _shared(given, way, attn.to_q))).unflatten(2, (attn.heads, -1))
    out = torch_attend(query, keys.key, keys.value)
    if keys.picture_key is not None and keys.picture_value is not None:
        out = out + torch_attend(query, keys.picture_key, keys.picture_value)
    return _out(attn, out, given, way)


def _out(attn: Any, found: Tensor | Mixed, like: Tensor, way: Way) -> Tensor:
    """The output matrix over what attention found [b, tokens, heads, d]."""
    layer, flat = attn.to_out[0], wide(found, like.dtype).flatten(2)
    if isinstance(found, Mixed) and _eight(layer, way.eight, like):
        rest = found.rest
        rows = (
            Scaled(rest.numbers.flatten(0, 1).flatten(1), rest.scale)
            if isinstance(rest, Scaled)
            else by_rows(rest.flatten(2))
        )
        return _linear(layer, flat, Rounded(rows, found.middle.flatten(2)))
    return _linear(layer, flat, _shared(flat, way, layer))


def _feed_forward(ffn: Any, given: Tensor, way: Way) -> Tensor:
    enter, leave = ffn.net[0], ffn.net[2]
    if type(enter.proj) is nn.Linear and given.is_cuda and given.dtype == torch.bfloat16:
        # One kernel: the activation is applied to the matrix's fp32 sums.
        fused: Any = torch._addmm_activation  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        hidden: Tensor = fused(enter.proj.bias, given.flatten(0, -2), enter.proj.weight.t(), use_gelu=True)
        hidden = hidden.unflatten(0, given.shape[:-1])
    else:
        hidden = F.gelu(_linear(enter.proj, given, _shared(given, way, enter.proj)), approximate="tanh")
    return _linear(leave, hidden, _shared(hidden, way, leave))


class Rounded(NamedTuple):
    """A matrix's input in fp8, and the middle that was taken off before."""

    rows: Scaled
    middle: Tensor | None  #: fp32 [b, 1, in]


def _base(layer: Any) -> Any:
    return layer.base if isinstance(layer, BranchedLinear) else layer


def _eight(layer: Any, eight: bool, given: Tensor) -> bool:
    """Whether `layer` is multiplied in fp8."""
    base = _base(layer)
    if not eight or not isinstance(base, StoredLinear) or base.scheme != "fp8":
        return False
    return not given.is_cuda or multiplies_fp8(given.device)


def _shared(given: Tensor, way: Way, *layers: Any) -> Rounded | None:
    """`given` in fp8, once for all the layers that take it so."""
    if not any(_eight(layer, way.eight, given) for layer in layers):
        return None
    mean = middle(given) if way.middles else None
    return Rounded(by_rows(given, mean), mean)


def _linear(layer: Any, given: Tensor, rounded: Rounded | None) -> Tensor:
    """`layer`(`given`), by way of its fp8 numbers where there are some. A LoRA's branch takes `given` itself."""
    if rounded is None or not _eight(layer, True, given):
        return layer(given)
    out = _product(_base(layer), rounded, given)
    return layer.beside(given, out) if isinstance(layer, BranchedLinear) else out


def _product(base: StoredLinear, rounded: Rounded, given: Tensor) -> Tensor:
    if rounded.middle is None:
        return product(rounded.rows, base.packed, base.scale, base.bias, given.dtype).unflatten(0, given.shape[:-1])
    row, bias = spread(rounded.middle, base.packed, base.scale), base.bias
    if row.shape[0] == 1:  # as a bias it costs no pass
        bias = row[0, 0] if bias is None else row[0, 0] + bias.float()
        return product(rounded.rows, base.packed, base.scale, bias, given.dtype).unflatten(0, given.shape[:-1])
    out = product(rounded.rows, base.packed, base.scale, bias, given.dtype).unflatten(0, given.shape[:-1])
    return (out.float() + row).to(given.dtype)
