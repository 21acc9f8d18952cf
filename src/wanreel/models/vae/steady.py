"""Steady: what a causal encoder would compute again to the same bits is not computed again.

After a picture come frames without one, all alike, and a stage that gets the same numbers again while it remembers the
same numbers gives the same numbers again. With Wan's VAE its large early stages come to that after a few chunks, the small last ones
not before 112 frames. That is found out by comparing bits and not by counting, so it holds for every VAE; it takes
kernels that give equal results for equal inputs. Knows nothing of pictures or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify
from torch import Tensor

from wanreel.models.vae.lean import LeanVae

#: What a stage remembers between chunks: tensors, which it replaces and never writes to.
Remembered = dict[Any, Any]
Stage = Callable[[Tensor, Remembered], Tensor]


@dataclass
class Steady:
    """Stages in a row over chunks. The same tensors as from running every stage on every chunk."""

    stages: Sequence[Stage]
    runs: int = 0  #: stages that were run; the others' results were at hand
    _memories: list[Remembered] = field(default_factory=list[Remembered])
    _still: int = 0  # the first stages, which would give the same for the same chunk
    _last: tuple[Tensor, Tensor] | None = None  # the chunk before, and what the still stages made of it

    def __post_init__(self) -> None:
        self._memories = [{} for _ in self.stages]

    def run(self, given: Tensor) -> Tensor:
        """What the last stage gives for the next chunk."""
        if self._last is None or not torch.equal(given, self._last[0]):
            self._still = 0
        value = self._last[1] if self._last is not None and self._still else given
        kept, still = value, True
        for number in range(self._still, len(self.stages)):
            memory = self._memories[number]
            before = dict(memory)
            value = self.stages[number](value, memory)
            self.runs += 1
            # A stage that remembers after this chunk what it did before would give the same for the same chunk.
            still = still and _alike(before, memory)
            if still:
                self._still, kept = number + 1, value
        self._last = given, kept
        return value


def encoder_stages(vae: Any) -> list[Stage]:
    """Diffusers' own encoder as stages (diffusers 0.42.1, autoencoder_kl_wan.py, WanEncoder3d.forward): equal to the bit.

    Each takes a tensor [1, c, t, h, w]; the last gives moments [1, 2 z, f, h', w'] before `quant_conv`.
    """
    encoder = vae.encoder

    def block(module: Any) -> Stage:
        return lambda given, memory: module(given, feat_cache=_Slots(memory), feat_idx=[0])

    def leave(given: Tensor, memory: Remembered) -> Tensor:
        slots, index = _Slots(memory), [0]
        hidden = encoder.mid_block(given, feat_cache=slots, feat_idx=index)
        hidden = encoder.nonlinearity(encoder.norm_out(hidden))
        return _remembering(encoder.conv_out, hidden, slots, index[0])

    def enter(given: Tensor, memory: Remembered) -> Tensor:
        return _remembering(encoder.conv_in, given, _Slots(memory), 0)

    return [enter, *map(block, encoder.down_blocks), leave]


def moments(vae: Any, stages: Steady, pixels: Tensor) -> Tensor:
    """What `vae.encoder` gives for the next chunk of pixels [1, 3, n, h, w]."""
    size = vae.config.patch_size
    return stages.run(pixels if size is None else patchify(pixels, patch_size=size))


def lean_stages(lean: LeanVae) -> list[Stage]:
    """The same in the lean VAE's arithmetic; these apply `quant_conv` too."""
    return list(lean.encoder_stages())


class _Slots:
    """The list that Diffusers' modules keep their memory in, over one stage's own."""

    def __init__(self, memory: Remembered) -> None:
        self._memory = memory

    def __getitem__(self, index: int) -> Any:
        return self._memory.get(index)

    def __setitem__(self, index: int, value: Any) -> None:
        self._memory[index] = value


def _remembering(conv: Any, given: Tensor, slots: _Slots, index: int) -> Tensor:
    """A convolution with the last two frames that it saw before."""
    before, behind = slots[index], given[:, :, -2:].clone()
    if behind.shape[2] < 2 and before is not None:
        behind = torch.cat([before[:, :, -1:], behind], dim=2)
    out = conv(given, before)
    slots[index] = behind
    return out


def _alike(before: Remembered, after: Remembered) -> bool:
    return before.keys() == after.keys() and all(_equal(before[key], after[key]) for key in after)


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return before.shape == after.shape and torch.equal(before, after)
    return before is after
