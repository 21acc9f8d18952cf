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

from wanreel.models.eight import SAMPLE, Mixed, Scaled, by_rows, middle, product, roomy, sampled, spread, wide
from wanreel.models.lora.branch import BranchedLinear
from wanreel.models.quantize import StoredLinear, multiplies_fp8
from wanreel.models.ranks.split import Split
from wanreel.models.step.kernels import Attend, Eighths, torch_attend
from wanreel.models.step.own import Own
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
    own: Own | None = None  #: our own kernels of what stands between fp8 matrices


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
    attn, cross, ffn = block.attn1, block.attn2, block.ffn
    one = _enter(block.norm1, Added(hidden), (1 + scale, shift), way, attn.to_q, attn.to_k, attn.to_v)
    update = _self_attention(attn, one, turn, way)
    plain = way._replace(middles=False)  # the matrices of cross-attention err least (docs/speed.md)
    two = _enter(block.norm2, Added(hidden, update, gate), None, plain, cross.to_q)
    update = _cross_attention(cross, two, keys, plain)
    three = _enter(block.norm3, Added(two.hidden, update), (1 + scale_ff, shift_ff), way, ffn.net[0].proj)
    update = _feed_forward(ffn, three, way)
    return (three.hidden.float() + update.float() * gate_ff).type_as(hidden)


class Added(NamedTuple):
    """hidden + update · gate."""

    hidden: Tensor
    update: Tensor | None = None
    gate: Tensor | None = None

    def sum(self) -> Tensor:
        if self.update is None:
            return self.hidden
        if self.gate is None:
            return self.hidden + self.update
        return (self.hidden.float() + self.update * self.gate).type_as(self.hidden)

    def some(self) -> Added:
        """Of the sample's tokens."""
        gate, update = self.gate, self.update
        each = gate is not None and gate.shape[1] > 1
        return Added(
            sampled(self.hidden),
            None if update is None else sampled(update),
            sampled(gate) if gate is not None and each else gate,
        )


class Entered(NamedTuple):
    """What a group of matrices is given: normed and modulated, in fp8 too where one of them takes that."""

    hidden: Tensor  #: the sum, as it goes on beside them
    given: Tensor  #: where our own kernels rounded, `hidden` stands here for its shape and dtype
    rounded: Rounded | None


Modulated = tuple[Tensor, Tensor]  #: factor and offset after a norm, [b, 1 or tokens, dim]


def _enter(norm: Any, added: Added, modulated: Modulated | None, way: Way, *layers: Any) -> Entered:
    if way.own is not None and _all_own(added.hidden, way, *layers) and _few(norm, modulated):
        return _enter_at_once(way.own, norm, added, modulated, way)
    hidden = added.sum()
    given = _normed(norm, hidden, modulated)
    return Entered(hidden, given, _shared(given, way, *layers))


def _normed(norm: Any, hidden: Tensor, modulated: Modulated | None) -> Tensor:
    given = norm(hidden.float())
    return (given if modulated is None else given * modulated[0] + modulated[1]).type_as(hidden)


def _all_own(like: Tensor, way: Way, *layers: Any) -> bool:
    """Whether all of `layers` take fp8 numbers and nothing else: a LoRA's branch wants the numbers before."""
    return all(_eight(layer, way.eight, like) and not isinstance(layer, BranchedLinear) for layer in layers)


def _few(norm: Any, modulated: Modulated | None) -> bool:
    """Whether one factor and offset serve all tokens."""
    if modulated is not None:
        return modulated[0].shape[1] == 1 and getattr(norm, "weight", None) is None
    return isinstance(norm, nn.LayerNorm) and norm.elementwise_affine


def _enter_at_once(own: Own, norm: Any, added: Added, modulated: Modulated | None, way: Way) -> Entered:
    hidden = added.hidden
    mean = _normed(norm, added.some().sum(), modulated).float().mean(1, keepdim=True) if way.middles else None
    size = (hidden.shape[0], 1, hidden.shape[2])
    factor, offset = (it.float().expand(size) for it in (modulated or (norm.weight, norm.bias)))
    if added.update is None:
        rows = Scaled(*own.enter(hidden, factor, offset, mean, norm.eps))
    else:
        gate = None if added.gate is None else added.gate.expand(size)
        update = added.update.type_as(hidden)
        hidden, *found = own.add_enter(hidden, update, gate, factor, offset, mean, norm.eps)
        rows = Scaled(*found)
    return Entered(hidden, hidden, Rounded(rows, mean))


def _modulation(table: Tensor, given: Tensor) -> tuple[Tensor, ...]:
    """Shift, scale and gate of attention and of the feed-forward: six of [b, 1 or tokens, dim], fp32."""
    if given.ndim == 4:
        return (table.unsqueeze(0) + given.float()).unbind(2)
    return (table + given.float()).chunk(6, dim=1)


def _self_attention(attn: Any, entered: Entered, turn: Turn, way: Way) -> Tensor:
    given, shared = entered.given, entered.rounded
    # In the order in which other ranks, where there are some, can be sent what is made while more is made.
    value = _sent(_linear(attn.to_v, given, shared).unflatten(2, (attn.heads, -1)), way)
    key = _linear(attn.to_k, given, shared)
    if way.own is not None and turn.pairs is not None and isinstance(way.attend, Eighths) and _plain(attn):
        query = _linear(attn.to_q, given, shared)
        keys = _turned_at_once(way.own, key, attn.norm_k, attn.heads, turn.pairs, centre=True)
        queries = _turned_at_once(way.own, query, attn.norm_q, attn.heads, turn.pairs, centre=False)
        return _out(attn, way.attend.rounded(queries, keys, value), given, way)
    sent = _sent(turned(key, attn.norm_k, attn.heads, turn), way)
    asking = turned(_linear(attn.to_q, given, shared), attn.norm_q, attn.heads, turn)
    return _out(attn, _attended(asking, sent, value, attn.heads, way), given, way)


def _plain(attn: Any) -> bool:
    """Whether both norms are torch's own, without a LoRA's branch."""
    return type(attn.norm_q) is nn.RMSNorm and type(attn.norm_k) is nn.RMSNorm


def _turned_at_once(
    own: Own, x: Tensor, norm: Any, heads: int, pairs: tuple[Tensor, Tensor], *, centre: bool
) -> Scaled:
    """`turned` in e4m3, less the mean of the sample if `centre`."""
    some = own.turn(x, norm.weight, *pairs, None, None, SAMPLE, norm.eps).float()
    mean = some.mean(1, keepdim=True) if centre else torch.zeros_like(some[:, :1])
    scale = roomy(some - mean)
    numbers = own.turn(x, norm.weight, *pairs, mean, scale, 1, norm.eps)
    return Scaled(numbers.unflatten(2, (heads, -1)), scale)


def _sent(x: Tensor, way: Way) -> Tensor:
    return x if way.split is None else way.split.to_heads(x)


def _attended(query: Tensor, key: Tensor, value: Tensor, heads: int, way: Way) -> Tensor | Mixed:
    """[b, tokens, heads, d] of a query, and of the key and value that were `_sent`."""
    split = way.split
    if split is None:
        return way.attend(query, key, value)

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # Each rank has scales and a middle of its own, so e4m3 numbers of several can't lie side by side.
        return wide(way.attend(query, key, value), query.dtype)

    return split.attended(split.in_goes(query), key, value, heads, kernel)


def _cross_attention(attn: Any, entered: Entered, keys: Keys, way: Way) -> Tensor:
    query = attn.norm_q(_linear(attn.to_q, entered.given, entered.rounded)).unflatten(2, (attn.heads, -1))
    out = torch_attend(query, keys.key, keys.value)
    if keys.picture_key is not None and keys.picture_value is not None:
        out = out + torch_attend(query, keys.picture_key, keys.picture_value)
    return _out(attn, out, entered.given, way)


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


def _feed_forward(ffn: Any, entered: Entered, way: Way) -> Tensor:
    enter, leave, given = ffn.net[0], ffn.net[2], entered.given
    if type(enter.proj) is nn.Linear and given.is_cuda and given.dtype == torch.bfloat16:
        # One kernel: the activation is applied to the matrix's fp32 sums.
        fused: Any = torch._addmm_activation  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        hidden: Tensor = fused(enter.proj.bias, given.flatten(0, -2), enter.proj.weight.t(), use_gelu=True)
        hidden = hidden.unflatten(0, given.shape[:-1])
        return _linear(leave, hidden, _shared(hidden, way, leave))
    inner = _linear(enter.proj, given, entered.rounded)
    if way.own is not None and _all_own(inner, way, leave):
        mean = F.gelu(sampled(inner).float(), approximate="tanh").mean(1, keepdim=True) if way.middles else None
        return _linear(leave, inner, Rounded(Scaled(*way.own.gelu(inner, mean)), mean))
    hidden = F.gelu(inner, approximate="tanh")
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
