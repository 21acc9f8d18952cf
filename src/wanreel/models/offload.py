"""Modules whose weights live in host memory and visit the device. Knows nothing of what the modules compute.

Nothing is ever copied back: weights are constant, so leaving means pointing at the host tensors again. Results are
equal to the bit, because only addresses change.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_ALIGNMENT = 256  # bytes; CUDA's own allocations start at such addresses, and kernels choose by alignment


class Guest(Protocol):
    """Something that can be brought to the device and sent away again."""

    def enter(self) -> None: ...

    def leave(self) -> None: ...


class Blocks(Guest, Protocol):
    """Blocks that come together one by one, from wherever their weights are."""

    @property
    def blocks(self) -> tuple[nn.Module, ...]: ...

    def walk(self) -> Iterator[nn.Module]:
        """Each block in order, ready to be called."""
        ...

    def renew(self) -> None:
        """Blocks have got or lost tensors."""
        ...

    def close(self) -> None: ...


class ModuleGuest:
    """A whole module, except the tensors of the submodules in `skip`."""

    def __init__(self, module: nn.Module, device: torch.device, skip: Sequence[nn.Module] = ()) -> None:
        skipped = {id(tensor) for part in skip for tensor in tensors_of(part)}
        self._device = device
        self._home = [(tensor, tensor.data) for tensor in tensors_of(module) if id(tensor) not in skipped]

    def enter(self) -> None:
        with torch.inference_mode(False):
            for tensor, home in self._home:
                tensor.data = home.to(self._device, copy=True)

    def leave(self) -> None:
        for tensor, home in self._home:
            tensor.data = home


class Together:
    """Several guests that come and go as one."""

    def __init__(self, *guests: Guest) -> None:
        self._guests = guests

    def enter(self) -> None:
        for guest in self._guests:
            guest.enter()

    def leave(self) -> None:
        for guest in reversed(self._guests):
            guest.leave()


class GuestRoom:
    """Room on the device for one guest at a time; who comes in sends the other one out."""

    def __init__(self) -> None:
        self._guest: Guest | None = None

    def admit(self, guest: Guest) -> None:
        """Bring `guest` to the device unless it is there already."""
        if self._guest is guest:
            return
        self.clear()
        try:
            guest.enter()
        except BaseException:
            guest.leave()
            raise
        self._guest = guest

    def clear(self) -> None:
        """Send the guest away, if there is one."""
        if self._guest is not None:
            self._guest.leave()
            self._guest = None


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, each once."""
    return chain(module.parameters(), module.buffers())


@dataclass(frozen=True, slots=True)
class _Piece:
    """One tensor of a block: where it is at home, and its place in a slot."""

    tensor: Tensor
    home: Tensor
    offset: int  #: bytes into the slot

    def view(self, slot: Tensor, begin: int = 0) -> Tensor:
        """Its bytes in memory that holds the block from byte `begin` on."""
        start = self.offset - begin
        return slot[start : start + self.home.nbytes].view(self.home.dtype).view(self.home.shape)


class _Slot:
    """Device memory for one block, with the two events that order copies and kernels."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self.memory = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.holds: int | None = None
        cuda = device.type == "cuda"
        self.filled: torch.cuda.Event | None = torch.cuda.Event() if cuda else None
        self.used: torch.cuda.Event | None = torch.cuda.Event() if cuda else None


class BlockStream:
    """Runs a list of blocks through two device slots: while one block computes, the next one is copied in.

    The copies run on a stream of their own; the order is kept by events, so the host never waits for a copy from pinned
    memory. On a CPU "device" the same code copies synchronously.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], device: torch.device, *, pinned: bool = False, pin_limit: int | None = None
    ) -> None:
        """`pin_limit`: bytes that may be page-locked; blocks beyond it stay pageable."""
        self._blocks = tuple(blocks)
        self._device = device
        self._pin_limit = pin_limit
        self._registered: list[Tensor] = []
        # Memory must be unlocked before it is freed: CUDA would take whatever lies there next for locked.
        weakref.finalize(self, _unlock, self._registered)
        self._pinned = pinned and device.type == "cuda"
        self._pieces: list[list[_Piece]] = [[] for _ in self.blocks]
        self._nbytes = 0
        self._take_in()
        self._slots: tuple[_Slot, _Slot] | None = None
        self._copies: torch.cuda.Stream | None = None

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """In order."""
        return self._blocks

    @property
    def device_bytes(self) -> int:
        """Device memory in use while the blocks visit."""
        return 2 * self._nbytes

    @property
    def pinned_bytes(self) -> int:
        """Host memory that is page-locked."""
        return sum(memory.nbytes for memory in self._registered)

    def enter(self) -> None:
        """Take the two slots."""
        with torch.inference_mode(False):
            self._slots = (
                _Slot(self._nbytes, self._device),
                _Slot(self._nbytes, self._device),
            )
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)
            self._copies.wait_stream(torch.cuda.current_stream(self._device))

    def leave(self) -> None:
        """Give the slots back; the blocks point at host memory again."""
        if self._copies is not None:
            self._copies.synchronize()
            torch.cuda.current_stream(self._device).synchronize()
        for pieces in self._pieces:
            for piece in pieces:
                piece.tensor.data = piece.home
        self._slots, self._copies = None, None

    def renew(self) -> None:
        """Take in tensors that the blocks have got since, and forget those that they lost; the others stay in place."""
        self.leave()
        for index, block in enumerate(self.blocks):
            present = {id(tensor) for tensor in tensors_of(block)}
            self._pieces[index] = [piece for piece in self._pieces[index] if id(piece.tensor) in present]
        self._take_in()
        homes = {piece.home.untyped_storage().data_ptr() for pieces in self._pieces for piece in pieces}
        _unlock(self._registered, keep=homes)

    def walk(self) -> Iterator[nn.Module]:
        """Each block in order, ready to be called. May be abandoned anywhere and walked again."""
        if self._slots is None:
            raise RuntimeError("The blocks are not on the device; enter first.")
        slot, other = self._slots
        if other.holds == 0:  # the last walk brought the first block back in
            slot, other = other, slot
        self._fill(slot, 0)
        for index, block in enumerate(self.blocks):
            self._await(slot)
            try:
                yield block
            finally:
                if slot.used is not None:
                    slot.used.record(torch.cuda.current_stream(self._device))
            # After the launch, not before: a copy from pageable memory holds the host until its turn comes.
            self._fill(other, (index + 1) % len(self.blocks))
            slot, other = other, slot

    def close(self) -> None:
        """Unlock pinned memory. The blocks keep their weights."""
        self.leave()
        _unlock(self._registered)

    def _take_in(self) -> None:
        """Give every tensor that has none a place."""
        pin = self._pin if self._pinned else None
        for block, pieces in zip(self.blocks, self._pieces):
            placed = {id(piece.tensor) for piece in pieces}
            pieces += _pieces_of([tensor for tensor in tensors_of(block) if id(tensor) not in placed], pieces, pin)
        self._nbytes = max((_end(pieces) for pieces in self._pieces), default=0)

    def _fill(self, slot: _Slot, index: int) -> None:
        if slot.holds == index:
            return
        if slot.holds is not None:
            for piece in self._pieces[slot.holds]:
                piece.tensor.data = piece.home
        slot.holds = index
        with torch.inference_mode(False), torch.cuda.stream(self._copies):
            if self._copies is not None and slot.used is not None:
                self._copies.wait_event(slot.used)
            for piece in self._pieces[index]:
                view = piece.view(slot.memory)
                view.copy_(piece.home, non_blocking=True)
                piece.tensor.data = view
            if slot.filled is not None:
                slot.filled.record(self._copies)

    def _await(self, slot: _Slot) -> None:
        if slot.filled is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.filled)

    def _pin(self, memory: Tensor) -> None:
        """Page-lock `memory` in place. torch's own pinned allocator rounds sizes up to powers of two, a third too much.

        Memory that can't be locked, or may not, stays pageable: slower, never wrong.
        """
        if self._pin_limit is not None and self.pinned_bytes + memory.nbytes > self._pin_limit:
            return
        if _cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, 0) == 0:
            self._registered.append(memory)


def _pieces_of(
    tensors: Sequence[Tensor], before: Sequence[_Piece], pin: Callable[[Tensor], None] | None
) -> list[_Piece]:
    """Tensors of a block, laid out one after another behind `before`; with `pin`, moved into one locked stretch of host
    memory."""
    begin = _aligned(_end(before))
    pieces: list[_Piece] = []
    for tensor in tensors:
        pieces.append(_Piece(tensor, tensor.data, _aligned(_end(pieces) if pieces else begin)))
    if pin is None or not pieces:
        return pieces
    memory = torch.empty(_end(pieces) - begin, dtype=torch.uint8)
    moved = [_Piece(piece.tensor, piece.view(memory, begin).copy_(piece.home), piece.offset) for piece in pieces]
    for piece in moved:
        piece.tensor.data = piece.home
    pin(memory)
    return moved


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _unlock(registered: list[Tensor], keep: Collection[int] = ()) -> None:
    """Unlock all memory but that at the addresses in `keep`."""
    if all(memory.data_ptr() in keep for memory in registered):
        return
    torch.cuda.synchronize()  # no copy may be under way
    kept = [memory for memory in registered if memory.data_ptr() in keep]
    while registered:
        memory = registered.pop()
        if memory.data_ptr() not in keep:
            _cudart().cudaHostUnregister(memory.data_ptr())
    registered.extend(kept)


def _cudart() -> Any:
    return torch.cuda.cudart()


def _end(pieces: Sequence[_Piece]) -> int:
    """Bytes up to the end of the last piece."""
    return pieces[-1].offset + pieces[-1].home.nbytes if pieces else 0


class Pace:
    """Keeps the host at most `ahead` launches ahead of the device, so that a cancel takes effect within that many."""

    def __init__(self, device: torch.device, ahead: int = 2) -> None:
        self._device, self._ahead = device, ahead
        self._events: list[Any] = []

    def launched(self) -> None:
        """Call after each launch; waits when the host is too far ahead. Free on a CPU."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event(blocking=True)  # sleeps instead of spinning
        event.record(torch.cuda.current_stream(self._device))
        self._events.append(event)
        if len(self._events) > self._ahead:
            self._events.pop(0).synchronize()
