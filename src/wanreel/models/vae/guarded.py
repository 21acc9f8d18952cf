"""Decoding in fp16 that can't go wrong: where a number gets too large for fp16, that chunk is decoded again in fp32.

fp16 and the TF32 that a GPU's fp32 convolutions use by default have mantissas of the same 10 bits, bf16 has 7; what fp16 lacks is
range. The device is kept a chunk ahead of whoever takes the frames. Knows nothing of tiles, latents' statistics or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wanreel.models.ranks.bands import Bands
from wanreel.models.vae.lean import LeanVae, Memory

#: Turns pixels [1, 3, n, h, w] into what is taken to the host, on the device.
Finish = Callable[[Tensor], Tensor]


@dataclass
class GuardedDecoder:
    """Decodes latents [1, c, f, h, w], not normalised, `step` latent frames at a time after the first."""

    vae: Any  #: AutoencoderKLWan, on the device, fp32
    finish: Finish
    step: int = 1
    dtype: torch.dtype = torch.float16
    overflowed: int | None = None  #: the latent frame from which on it had to be fp32
    bands: Bands | None = None  #: set: the latents are this rank's rows of them, and all ranks decode together
    go: Callable[[], None] | None = None  #: called before each chunk is begun; may raise

    def chunks(self, latents: Tensor) -> Iterator[Tensor]:
        """What `finish` makes of each chunk, on the host."""
        coder, memory = LeanVae(self.vae, self.dtype, self.bands), Memory()
        start, total = 0, latents.shape[2]
        waiting: _Made | None = None
        while start < total or waiting is not None:
            made = None
            if start < total:
                made = self._made(coder, latents, memory, start)
                start = made.stop
            if waiting is not None and not waiting.sound():
                self.overflowed = start = waiting.start
                coder = LeanVae(self.vae, torch.float32, self.bands)
                memory = {conv: seen.float() for conv, seen in waiting.before.items()}
                waiting = None
                continue
            if waiting is not None:
                yield waiting.data
            waiting = made

    def _made(self, coder: LeanVae, latents: Tensor, memory: Memory, start: int) -> _Made:
        """Sets the device to work on the chunk that begins at `start`; does not wait for it."""
        if self.go is not None:
            self.go()
        stop = min(latents.shape[2], start + self.step) if start else 1
        before = dict(memory)
        pixels = coder.decode(latents[:, :, start:stop], memory, first=start == 0)
        checked = coder.dtype == torch.float16
        sound = torch.isfinite(pixels.sum(dtype=torch.float32)) if checked else None
        if sound is not None and self.bands is not None:
            sound = self.bands.agreed(sound)
        data, flag = (_to_host(it) for it in (self.finish(pixels), sound))
        assert data is not None
        event = None
        if pixels.device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(pixels.device))
        return _Made(start, stop, before, data, flag, event)


@dataclass(frozen=True, slots=True)
class _Made:
    """A chunk that the device may still be at work on."""

    start: int
    stop: int
    before: Memory
    data: Tensor
    flag: Tensor | None
    event: Any | None

    def sound(self) -> bool:
        """Waits for the chunk. False where numbers got too large."""
        if self.event is not None:
            self.event.synchronize()
        return self.flag is None or bool(self.flag)


def _to_host(tensor: Tensor | None) -> Tensor | None:
    """A copy in page-locked memory, which is whole once the device has come to it."""
    if tensor is None or tensor.device.type != "cuda":
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
