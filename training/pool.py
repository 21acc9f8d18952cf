"""Batches from a pool of clips that is renewed while training goes on. Knows nothing of what the clips are used for.

Chunk i of a bucket is a function of the seed and i alone, so a resumed run rebuilds the very pool it had.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from training.config import Bucket, DataSettings
from training.dice import Dice
from training.textures import Bank

#: Makes `count` examples of a bucket: tensors whose first dimension is `count`.
Maker = Callable[[Bucket, int, Bank, Dice], tuple[Tensor, ...]]


class Pool:
    """The examples of each bucket. `advance` after every step; `batch` picks a bucket and rows of it."""

    def __init__(self, buckets: tuple[Bucket, ...], settings: DataSettings, seed: int, make: Maker, bank: Bank) -> None:
        self._buckets, self._settings, self._seed, self._make, self._bank = buckets, settings, seed, make, bank
        self._store: list[tuple[Tensor, ...]] = [() for _ in buckets]
        self._made = [0 for _ in buckets]

    def fill(self, step: int) -> None:
        """Make what the pool holds at `step`. Chunks are made in the order of their first making."""
        pace = self._settings.renew_every
        births: list[list[int]] = [[0] * self._slots(bucket) for bucket in self._buckets]
        for at in range(pace, step + 1, pace):
            births[self._renewed_bucket(at)].append(at)
        live = [
            (born, index, chunk)
            for index, bucket in enumerate(self._buckets)
            for chunk, born in enumerate(births[index])
            if chunk >= len(births[index]) - self._slots(bucket)
        ]
        for born, index, chunk in sorted(live):
            self._put(index, chunk, born)

    def advance(self, step: int) -> None:
        """Renew a chunk when `step` is a multiple of the pool's pace."""
        if step % self._settings.renew_every == 0:
            index = self._renewed_bucket(step)
            self._put(index, self._made[index], step)

    def batch(self, step: int) -> tuple[Bucket, tuple[Tensor, ...]]:
        """The batch of `step`: its bucket, and rows drawn evenly from the pool."""
        dice = random.Random(f"{self._seed}:batch:{step}")
        index = dice.choices(range(len(self._buckets)), [b.share for b in self._buckets])[0]
        bucket, columns = self._buckets[index], self._store[index]
        rows = torch.tensor([dice.randrange(len(columns[0])) for _ in range(bucket.batch)])
        rows = rows.to(columns[0].device, non_blocking=True)
        return bucket, tuple(column[rows] for column in columns)

    def _slots(self, bucket: Bucket) -> int:
        return max(1, bucket.pool // self._settings.chunk)

    def _put(self, index: int, chunk: int, step: int) -> None:
        bucket, size = self._buckets[index], self._settings.chunk
        bank = self._bank.at(step // (self._settings.renew_every * self._settings.chunks_per_texture))
        fresh = self._make(bucket, size, bank, Dice(f"{self._seed}:chunk:{index}:{chunk}", bank.device))
        if not self._store[index]:
            rows = self._slots(bucket) * size
            self._store[index] = tuple(x.new_zeros(rows, *x.shape[1:]) for x in fresh)
        at = chunk % self._slots(bucket) * size
        for column, part in zip(self._store[index], fresh, strict=True):
            column[at : at + size] = part
        self._made[index] = chunk + 1

    def _renewed_bucket(self, step: int) -> int:
        dice = random.Random(f"{self._seed}:renew:{step}")
        return dice.choices(range(len(self._buckets)), [b.share for b in self._buckets])[0]
