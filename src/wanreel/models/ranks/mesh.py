"""Mesh: who exchanges what with whom, under one parallel plan. Knows nothing of models or processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from wanreel.core.parallel import Parallel
from wanreel.core.settings import prepare_for_ranks

#: Longest wait for another rank within an exchange; the first use of compiled blocks makes ranks late.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Circle:
    """Some ranks that exchange tensors, in order, and the place of this one."""

    ranks: tuple[int, ...]
    place: int  #: of this rank among them
    group: Any = None  #: torch's process group; None where there is nobody to exchange with

    @property
    def size(self) -> int:
        return len(self.ranks)

    @property
    def name(self) -> Any:
        """Of the process group, for exchanges inside of compiled code."""
        return self.group.group_name

    @property
    def following(self) -> int:
        return self.ranks[(self.place + 1) % self.size]

    @property
    def before(self) -> int:
        return self.ranks[self.place - 1]


@dataclass(frozen=True, slots=True)
class Mesh:
    """The circles of this rank."""

    parallel: Parallel
    rank: int
    everybody: Circle
    sequence: Circle  #: those that hold the other tokens of the same pass
    ulysses: Circle
    ring: Circle
    passes: Circle  #: those that hold the same tokens of the other pass

    @property
    def number(self) -> int:
        """Of the pass that is this rank's."""
        return self.rank // self.parallel.sequence


@dataclass
class Meshes:
    """The meshes of one rank of a joined group, made once each. All ranks ask for the same ones in the same order."""

    rank: int
    ranks: int
    _made: dict[Parallel, Mesh] = field(default_factory=dict[Parallel, Mesh])
    _groups: dict[tuple[int, ...], Any] = field(default_factory=dict[tuple[int, ...], Any])

    @property
    def everybody(self) -> Circle:
        """All ranks. Making it asks nothing of the others, so it needs no order."""
        return self._circle([tuple(range(self.ranks))])

    def of(self, parallel: Parallel) -> Mesh:
        """May make groups, for which every rank waits until all others make them too: all must be told of `parallel`."""
        if parallel.ranks != self.ranks:
            raise ValueError(f"{parallel} is not of {self.ranks} ranks")
        if parallel not in self._made:
            self._made[parallel] = self._make(parallel)
        return self._made[parallel]

    def _make(self, parallel: Parallel) -> Mesh:
        cfg, u, r, s = parallel.cfg, parallel.ulysses, parallel.ring, parallel.sequence
        return Mesh(
            parallel,
            self.rank,
            everybody=self.everybody,
            sequence=self._circle(tuple(c * s + i for i in range(s)) for c in range(cfg)),
            ulysses=self._circle(tuple(c * s + j * u + i for i in range(u)) for c in range(cfg) for j in range(r)),
            ring=self._circle(tuple(c * s + j * u + i for j in range(r)) for c in range(cfg) for i in range(u)),
            passes=self._circle(tuple(c * s + i for c in range(cfg)) for i in range(s)),
        )

    def _circle(self, all_of_them: Iterable[tuple[int, ...]]) -> Circle:
        """This rank's of them. Every rank makes every group, as torch wants it."""
        made = list(self._grouped(all_of_them))
        return next(Circle(ranks, ranks.index(self.rank), group) for ranks, group in made if self.rank in ranks)

    def _grouped(self, all_of_them: Iterable[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], Any]]:
        for ranks in all_of_them:
            if len(ranks) == 1:
                yield ranks, None
                continue
            if ranks not in self._groups:
                whole = len(ranks) == self.ranks
                self._groups[ranks] = dist.group.WORLD if whole else dist.new_group(list(ranks), timeout=PATIENCE)
            yield ranks, self._groups[ranks]


def join(device: torch.device, store: Path, rank: int, ranks: int) -> Meshes:
    """Meet the other ranks at the file `store`; returns when all are there. NCCL between GPUs, gloo between CPUs."""
    prepare_for_ranks()
    library: Any = dist  # which names FileStore and exports it not
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=library.FileStore(str(store), ranks),
        rank=rank,
        world_size=ranks,
        timeout=PATIENCE,
        device_id=device if device.type == "cuda" else None,
    )
    return Meshes(rank, ranks)


def part(*, broken: bool = False, patience: float = 5.0) -> None:
    """Leave the group. A `broken` one is not waited for; and who does not come back within `patience` seconds is left behind."""
    if not dist.is_initialized():
        return
    # In a thread, because NCCL may wait for kernels that wait for a rank that is gone.
    library: Any = distributed_c10d  # the only door to an abort
    leave = library._abort_process_group if broken else dist.destroy_process_group
    leaving = threading.Thread(target=leave, name="parting", daemon=True)
    leaving.start()
    leaving.join(patience)


def gather_into(out: torch.Tensor, own: torch.Tensor, group: Any, *, wait: bool = True) -> Any:
    """All ranks' `own`, one after another, into `out`. The name that torch 2.13 gave it, or the one before."""
    library: Any = dist
    gather = library.all_gather_single if hasattr(dist, "all_gather_single") else library.all_gather_into_tensor
    return gather(out.view(-1), own.reshape(-1), group=group, async_op=not wait)
