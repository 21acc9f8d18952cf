"""Heads in several goes: to the bit what they are in one, whatever divides. Ranks are threads, exchanges a table."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed._functional_collectives as exchanges
from torch import Tensor

from wanreel.core.parallel import Parallel
from wanreel.models.ranks import split as splitting
from wanreel.models.ranks.attention import attend_whole
from wanreel.models.ranks.mesh import Circle, Mesh
from wanreel.models.ranks.split import Split


@dataclass
class Table:
    """Exchanges among threads: each lays down its tensor, and takes its row of everybody's."""

    size: int
    laid: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    place: threading.local = field(default_factory=threading.local)
    count: int = 0

    def __post_init__(self) -> None:
        self.full = threading.Barrier(self.size)

    def exchange(self, sent: Tensor, out: Any, given: Any, group: str) -> Tensor:
        assert sent.is_contiguous() and sent.shape[0] == self.size
        me: int = self.place.number
        self.laid[me] = sent
        self.full.wait(30)
        mine = torch.stack([self.laid[other][me] for other in range(self.size)])
        self.full.wait(30)
        self.count += me == 0
        return mine


class Group:
    group_name = "table"


def attended(whole: tuple[Tensor, Tensor, Tensor], ranks: int) -> tuple[Tensor, int]:
    """Attention of [b, tokens, heads, d] by so many ranks, and how often they exchanged."""
    table, parts, tokens, heads = Table(ranks), dict[int, Tensor](), whole[0].shape[1], whole[0].shape[2]

    def work(place: int) -> None:
        table.place.number = place
        everybody, alone = Circle(tuple(range(ranks)), place, Group()), Circle((place,), 0)
        mesh = Mesh(Parallel(ulysses=ranks), place, everybody, everybody, everybody, alone, alone)
        split = Split(mesh, tokens)
        query, key, value = (split.own(it) for it in whole)
        sent = split.to_heads(value), split.to_heads(key), split.in_goes(query)
        parts[place] = split.attended(sent[2], sent[1], sent[0], heads, attend_whole)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchanges, "all_to_all_single", table.exchange)
        patch.setattr(exchanges, "wait_tensor", lambda tensor: tensor)
        threads = [threading.Thread(target=work, args=(place,)) for place in range(ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return torch.cat([parts[place] for place in range(ranks)], dim=1)[:, :tokens], table.count


@pytest.mark.parametrize(("heads", "ranks", "goes", "counted"), [
    (8, 2, 2, 6), (8, 2, 3, 6), (8, 2, 4, 10), (10, 2, 2, 6), (6, 4, 2, 6), (5, 4, 9, 6), (4, 4, 2, 4),
])  # fmt: skip
@pytest.mark.parametrize("tokens", [24, 21])
def test_goes_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, heads: int, ranks: int, goes: int, counted: int, tokens: int
) -> None:
    generator = torch.Generator().manual_seed(heads)
    query, key, value = (torch.randn(2, tokens, heads, 16, generator=generator) for _ in range(3))
    alone = attend_whole(query, key, value)
    one, exchanged = attended((query, key, value), ranks)
    assert exchanged == 4 and torch.equal(one, alone)
    monkeypatch.setattr(splitting, "GOES", goes)
    several, exchanged = attended((query, key, value), ranks)
    assert torch.equal(several, alone)
    assert exchanged == counted, "values, keys, and queries and results of each go"
