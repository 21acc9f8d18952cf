"""Blocks whose weights are shared out among ranks: each holds a part of every block, and blocks come together one by one.

What fully sharded data parallelism does for parameters, done for every tensor of a block, whatever its dtype: weights
stored in fewer bits are buffers, which torch's own `fully_shard` leaves whole. The bytes of a block lie one after
another, cut into equal parts; while one block computes, the next is gathered into the other of two slots. Results are
equal to the bit, because only addresses change. Knows nothing of what blocks compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wanreel.models.offload import tensors_of
from wanreel.models.ranks.mesh import PATIENCE, Circle, gather_into

_ALIGNMENT = 256  # bytes; CUDA's own allocations start at such addresses, and kernels choose by alignment


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one tensor lies in its block's bytes."""

    tensor: Tensor
    dtype: torch.dtype
    shape: torch.Size
    offset: int
    nbytes: int

    def within(self, block: Tensor) -> Tensor:
        return block[self.offset : self.offset + self.nbytes].view(self.dtype).view(self.shape)


@dataclass
class _Slot:
    """Memory for one block, the gathering into it that is under way, and when it was last computed with."""

    memory: Tensor
    holds: int | None = None
    coming: Any = None
    used: Any = None


class SharedBlocks:
    """Blocks of all ranks of `circle`, which walk through them at the same time."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, circle: Circle) -> None:
        """Takes the blocks' weights, wherever they are, and keeps this rank's part of them on `device`."""
        self._blocks = tuple(blocks)
        self._device = device
        # A group of its own, so that gathering waits for no other exchange, and none waits for it.
        self._group = dist.new_group(list(circle.ranks), timeout=PATIENCE)
        self._nothing: dict[torch.dtype, Tensor] = {}
        self._places = [list(_laid_out(tensors_of(block))) for block in self.blocks]
        unit = circle.size * _ALIGNMENT
        self._nbytes = max((-(-_end(places) // unit) * unit for places in self._places), default=unit)
        part = self._nbytes // circle.size
        own = slice(circle.place * part, (circle.place + 1) * part)
        with torch.inference_mode(False):
            self._parts = [self._part(places, own) for places in self._places]
            self._slots = (_Slot(self._memory(self._nbytes)), _Slot(self._memory(self._nbytes)))
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """In order."""
        return self._blocks

    @property
    def device_bytes(self) -> int:
        """Memory of this rank's parts and of the two slots."""
        return sum(part.nbytes for part in self._parts) + 2 * self._nbytes

    def enter(self) -> None:
        """Blocks are always at hand."""

    def leave(self) -> None:
        """They stay."""

    def renew(self) -> None:
        """What a block got since lies whole on every rank: LoRAs' branches, which are small."""

    def close(self) -> None:
        self._parts.clear()

    def walk(self) -> Iterator[nn.Module]:
        """Each block in order, ready to be called. All ranks walk, and abandon a walk at the same block."""
        slot, other = self._slots
        if other.holds == 0:  # the last walk brought the first block back in
            slot, other = other, slot
        self._fill(slot, 0)
        for index, block in enumerate(self.blocks):
            self._await(slot)
            self._fill(other, (index + 1) % len(self.blocks))
            try:
                yield block
            finally:
                if self._side is not None:
                    slot.used = torch.cuda.current_stream(self._device).record_event()
            slot, other = other, slot

    def _fill(self, slot: _Slot, index: int) -> None:
        """Begin to gather a block, behind whatever computes with what the slot held."""
        if slot.holds == index:
            return
        self._await(slot)
        if slot.holds is not None:
            self._put_away(slot.holds)
        slot.holds = index
        slot.coming = self._gather(slot, index)
        with torch.inference_mode(False):
            for place in self._places[index]:
                place.tensor.data = place.within(slot.memory)

    def _gather(self, slot: _Slot, index: int) -> Any:
        if self._side is None:
            return gather_into(slot.memory, self._parts[index], self._group, wait=False)
        with torch.cuda.stream(self._side):
            if slot.used is not None:
                self._side.wait_event(slot.used)
            return gather_into(slot.memory, self._parts[index], self._group, wait=False)

    @staticmethod
    def _await(slot: _Slot) -> None:
        if slot.coming is not None:
            slot.coming.wait()
            slot.coming = None

    def _part(self, places: Sequence[_Place], own: slice) -> Tensor:
        """This rank's bytes of a block; its tensors hold nothing afterwards."""
        whole = self._memory(self._nbytes)
        for place in places:
            place.within(whole).copy_(place.tensor.data)
        part = whole[own].clone()
        for place in places:
            place.tensor.data = self._empty(place)
        return part

    def _put_away(self, index: int) -> None:
        for place in self._places[index]:
            place.tensor.data = self._empty(place)

    def _empty(self, place: _Place) -> Tensor:
        """A tensor of the same shape that takes no memory."""
        if place.dtype not in self._nothing:
            self._nothing[place.dtype] = torch.zeros(1, dtype=torch.uint8, device=self._device).to(place.dtype)
        return self._nothing[place.dtype].expand(place.shape)

    def _memory(self, nbytes: int) -> Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, device=self._device)


def _laid_out(tensors: Iterable[Tensor]) -> Iterator[_Place]:
    offset = 0
    for tensor in tensors:
        nbytes = tensor.numel() * tensor.element_size()
        yield _Place(tensor, tensor.dtype, tensor.shape, offset, nbytes)
        offset += -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _end(places: Sequence[_Place]) -> int:
    return places[-1].offset + places[-1].nbytes if places else 0
