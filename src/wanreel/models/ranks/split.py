"""Split: a transformer's tokens in parts, one on each rank of a pass. Knows nothing of blocks or guidance.

Everything in a block but self-attention works on each token by itself. Around self-attention, ranks of a Ulysses circle
exchange tokens for heads (arXiv 2309.14509): each has all tokens of the circle for some heads, and attends as one GPU
would. Circles of a ring hand their keys and values on (see ring.py). Numbers of tokens and heads that do not divide are
filled up: filled-up tokens are last, and no key of theirs is ever attended to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed._functional_collectives as exchanges
from torch import Tensor

from wanreel.models.ranks.mesh import Mesh, gather_into
from wanreel.models.ranks.ring import attend_around

#: In how many goes a rank's heads are attended to. More than one hide queries and results that travel behind attention, and
#: cost an exchange each more; whether that pays on NVLink is to be measured (scripts/measure_ranks.py), so it is one.
GOES = 1

#: Attention of queries over keys and values, [b, tokens, heads, d] each.
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Split:
    """How `tokens` tokens are shared out among the ranks of one pass."""

    mesh: Mesh
    tokens: int

    @property
    def part(self) -> int:
        """Tokens that each rank has, the last ones perhaps filled up."""
        return -(-self.tokens // self.mesh.sequence.size)

    @property
    def padding(self) -> int:
        """Tokens that fill up the last parts."""
        return self.part * self.mesh.sequence.size - self.tokens

    def own(self, whole: Tensor) -> Tensor:
        """This rank's part of [b, tokens, ...]; what is missing at the end repeats the last token."""
        start = self.mesh.sequence.place * self.part
        mine = whole[:, start : start + self.part]
        missing = self.part - mine.shape[1]
        if missing == 0:
            return mine.contiguous()
        return torch.cat([mine, whole[:, -1:].expand(-1, missing, *whole.shape[2:])], dim=1)

    def whole(self, own: Tensor) -> Tensor:
        """[b, tokens, ...] of every rank's part [b, part, ...]."""
        if self.mesh.sequence.group is None:
            return own
        batch, size = own.shape[0], self.mesh.sequence.size
        parts = own.new_empty(size, *own.shape)
        gather_into(parts, own.contiguous(), self.mesh.sequence.group)
        joined = parts.transpose(0, 1).reshape(batch, size * self.part, *own.shape[2:])
        return joined[:, : self.tokens]

    def to_heads(self, own: Tensor) -> Tensor:
        """[b, part, heads, d] of all heads to [b, part · ulysses, heads / ulysses, d] of some. Begun, not awaited."""
        if self.mesh.ulysses.group is None:
            return own
        return self._sent(self._by_rank(own))

    def in_goes(self, own: Tensor) -> tuple[Tensor, ...]:
        """The same for queries, in as many exchanges as there are goes: attention begins when the first has arrived."""
        if self.mesh.ulysses.group is None:
            return (own,)
        whole = self._by_rank(own)
        return tuple(self._sent(whole[:, :, :, go]) for go in self._goes(whole.shape[3]))

    def attended(self, queries: tuple[Tensor, ...], key: Tensor, value: Tensor, heads: int, kernel: Kernel) -> Tensor:
        """[b, part, heads, d] of what `in_goes` and `to_heads` sent. What a go has attended to is on its way back while
        the next one attends."""
        circle = self.mesh.ulysses
        key, value = self.arrived(key), self.arrived(value)
        if circle.group is None:
            return self.attend(queries[0], key, value, kernel)
        back: list[Tensor] = []
        for query, go in zip(queries, self._goes(key.shape[2]), strict=True):
            out = self.attend(self.arrived(query), key[:, :, go], value[:, :, go], kernel)
            batch, tokens, some, width = out.shape
            sent = out.view(batch, circle.size, tokens // circle.size, some, width).transpose(0, 1).contiguous()
            back.append(exchanges.all_to_all_single(sent, None, None, circle.name))
        joined = [exchanges.wait_tensor(part).permute(1, 2, 0, 3, 4) for part in back]
        whole = joined[0] if len(joined) == 1 else torch.cat(joined, dim=3)
        return whole.flatten(2, 3)[:, :, :heads]

    def arrived(self, exchanged: Tensor) -> Tensor:
        """What `to_heads` began, here and in order."""
        if self.mesh.ulysses.group is None:
            return exchanged
        here = exchanges.wait_tensor(exchanged)
        size, batch, part, some, width = here.shape
        return here.transpose(0, 1).reshape(batch, size * part, some, width)

    def _by_rank(self, own: Tensor) -> Tensor:
        """[b, part, ulysses, heads / ulysses, d], filled up with heads of zeros."""
        batch, part, heads, width = own.shape
        size = self.mesh.ulysses.size
        some = -(-heads // size)
        if some * size != heads:
            own = torch.cat([own, own.new_zeros(batch, part, some * size - heads, width)], dim=2)
        return own.view(batch, part, size, some, width)

    def _sent(self, by_rank: Tensor) -> Tensor:
        return exchanges.all_to_all_single(
            by_rank.permute(2, 0, 1, 3, 4).contiguous(), None, None, self.mesh.ulysses.name
        )

    def _goes(self, heads: int) -> list[slice]:
        """Which of a rank's heads each go has. A ring hides its own exchanges, so there it is one."""
        goes = min(GOES, heads) if self.mesh.ring.group is None else 1
        each = -(-heads // goes)
        return [slice(start, min(start + each, heads)) for start in range(0, heads, each)]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel) -> Tensor:
        """Attention of the circle's queries over all keys, after `arrived`."""
        if self.mesh.ring.group is not None:
            return attend_around(query, key, value, self.mesh.ring.name, self.padding)
        if self.padding:  # not the number of tokens, which compiled code takes for a symbol
            key, value = key[:, : -self.padding], value[:, : -self.padding]
        return kernel(query, key, value)


def split_of(mesh: Mesh | None, tokens: int) -> Split | None:
    """How a mesh shares out `tokens` tokens; None where each rank has all of them."""
    return None if mesh is None or mesh.parallel.sequence == 1 else Split(mesh, tokens)
