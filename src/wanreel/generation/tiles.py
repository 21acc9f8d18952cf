"""The VAE on windows of a frame: less memory for slightly other pixels. Knows nothing of models, sizes asked for or files.

Neighbouring windows share pixels. At a window's edge the VAE sees padding instead of its surroundings, so a window's
weight is zero over the outer quarter of what is shared, then rises in a straight line: no seam, and the weights of all
windows add up to one everywhere. Each window keeps the VAE's causal memory over its whole length.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from wanreel.core.placement import Tile


@dataclass(frozen=True, slots=True)
class Span:
    """One window along one side, with what it shares with the window before and after it."""

    start: int
    stop: int
    before: int  #: 0 at the frame's edge
    after: int

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)

    def scaled(self, numerator: int, denominator: int) -> Span:
        """The same in other units: pixels to latents or back."""
        return Span(*(value * numerator // denominator for value in (self.start, self.stop, self.before, self.after)))

    def weights(self) -> Tensor:
        """[stop - start] fp32."""
        weights = torch.ones(self.stop - self.start)
        if self.before:
            weights[: self.before] = _rise(self.before)
        if self.after:
            weights[-self.after :] *= 1.0 - _rise(self.after)
        return weights


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a frame."""

    rows: Span
    columns: Span

    def scaled(self, numerator: int, denominator: int) -> Window:
        return Window(self.rows.scaled(numerator, denominator), self.columns.scaled(numerator, denominator))

    def weights(self) -> Tensor:
        """[rows, columns] fp32; those of all windows of a frame add up to one."""
        return self.rows.weights()[:, None] * self.columns.weights()

    def cut(self, video: Tensor) -> Tensor:
        """The window's part of [..., h, w]."""
        return video[..., self.rows.slice, self.columns.slice]


def windows(tile: Tile, height: int, width: int, multiple: int) -> list[Window]:
    """Windows of at most `tile` that cover height × width pixels; all edges are multiples of `multiple`."""
    rows = spans(tile, height, tile.height, multiple)
    columns = spans(tile, width, tile.width, multiple)
    return [Window(row, column) for row in rows for column in columns]


def spans(tile: Tile, length: int, size: int, multiple: int) -> list[Span]:
    """`length` covered by as few equal spans of at most `size` as there can be, spread evenly, sharing about the overlap."""
    count, size = tile.count(length, size, multiple), tile.window(length, size, multiple) // multiple
    if count == 1:
        return [Span(0, length, 0, 0)]
    starts = [round(index * (length // multiple - size) / (count - 1)) for index in range(count)]
    shared = [first + size - second for first, second in itertools.pairwise(starts)]
    return [
        Span(start, start + size, before, after).scaled(multiple, 1)
        for start, before, after in zip(starts, [0, *shared], [*shared, 0], strict=True)
    ]


def blend(canvas: Tensor, part: Tensor, window: Window) -> None:
    """Add a window's part [..., rows, columns], weighted, to the canvas [..., h, w]."""
    window.cut(canvas).add_((part * window.weights().to(part)).to(canvas))


def _rise(length: int) -> Tensor:
    """0 over the first quarter, 1 over the last, a straight line between; the fall beside it is its complement."""
    place = (torch.arange(length) + 0.5) / length
    return ((place - 0.25) * 2).clamp(0, 1)
