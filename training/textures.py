"""Procedural pictures that stand in for photographs: dead leaves, clouds, gradients, stripes, checkers and mixtures.

Nobody's pictures are in the weights. Knows nothing of prompts beyond the names of the kinds.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.dice import Dice
from training.drawing import Tracks, draw
from training.words import TEXTURES

KINDS = tuple(TEXTURES)
_SHARES = [0.3, 0.08, 0.06, 0.05, 0.05, 0.46]
_LEAF_SHAPES = [0, 0, 0, 1, 1, 2, 5]  # circles, squares, triangles, diamonds


def _fractal_noise(count: int, size: int, slope: Tensor, dice: Dice) -> Tensor:
    """Noise with a 1/f^slope spectrum, each map of unit deviation. -> [count, size, size]"""
    spectrum = torch.fft.rfft2(dice.normal(count, size, size))
    fy = torch.fft.fftfreq(size, device=dice.device)[:, None]
    fx = torch.fft.rfftfreq(size, device=dice.device)[None]
    power = (fx * fx + fy * fy).clamp(min=0.25 / size**2)
    maps = torch.fft.irfft2(spectrum * power ** (-slope.view(count, 1, 1) / 2), s=(size, size))
    maps = maps - maps.mean((1, 2), keepdim=True)
    return maps / maps.std((1, 2), keepdim=True).clamp(min=1e-6)


def _palettes(count: int, dice: Dice) -> Tensor:
    """Six colours a picture, mostly muted and related, as in photographs. -> [count, 6, 3] in [-1, 1]"""
    base = dice.uniform(count, 1, 3) * 2 - 1
    saturation = dice.uniform(count, 1, 1) ** 1.2
    color = base * 0.4 + (dice.uniform(count, 6, 3) * 2 - 1) * (0.25 + 0.75 * saturation)
    grey = color.mean(-1, keepdim=True)
    return (grey + (color - grey) * (0.25 + saturation)).clamp(-1, 1) * 0.95


def _leaves(
    base: Tensor, palette: Tensor, noises: tuple[Tensor, Tensor], sparse: Tensor, dice: Dice, leaves: int
) -> Tensor:
    """Drop `leaves` shaded shapes of power-law radius on each picture [n, 3, size, size]."""
    n, _, size, _ = base.shape
    axis = torch.linspace(-1, 1, size, device=dice.device)
    yy, xx = torch.meshgrid(axis, axis, indexing="ij")
    video = base.unsqueeze(2)
    amount = 0.35 * dice.uniform(n, 1, 1, 1, 1) ** 2
    smallest = 1.5 + 6 * dice.uniform(n)
    coarse, fine = (noise.view(n, 1, 1, size, size) for noise in noises)
    shapes = torch.tensor(_LEAF_SHAPES, device=dice.device)
    for _ in range(leaves):
        radius = (smallest * dice.uniform(n).clamp(min=0.004) ** -0.6).clamp(max=size / 3)
        radius = torch.where(sparse & (dice.uniform(n) < 0.6), torch.zeros_like(radius), radius)
        chosen = dice.integers(6, n).view(n, 1, 1).expand(n, 1, 3)
        color = palette.gather(1, chosen).squeeze(1) + 0.12 * dice.normal(n, 3) + 0.18 * dice.normal(n, 1)
        tilt = dice.normal(n, 2, 1, 1, 1) * 0.35
        grain = torch.where(dice.uniform(n, 1, 1, 1, 1) < 0.5, coarse, fine)
        shade = (xx * tilt[:, 0] + yy * tilt[:, 1]).unsqueeze(1) + amount * grain
        rgb = (color.view(n, 3, 1, 1, 1) + shade).clamp(-1, 1).expand(n, 3, 1, size, size)
        place = dice.uniform(2, n, 1) * size
        kind = shapes[dice.integers(len(_LEAF_SHAPES), n)]
        aspect = torch.exp(2.2 * dice.uniform(n) ** 2)
        turn = dice.uniform(n, 1) * 2 * math.pi
        video = draw(video, Tracks(kind, rgb, place[0], place[1], radius.view(n, 1), turn, aspect))
    return video.squeeze(2)


def make_textures(count: int, size: int, dice: Dice, leaves: int = 90) -> tuple[Tensor, Tensor]:
    """-> pictures [count, 3, size, size] in [-1, 1], and each one's index into `KINDS`."""
    kind = dice.weighted(_SHARES, count)
    palette = _palettes(count, dice)
    axis = torch.linspace(-1, 1, size, device=dice.device)
    yy, xx = torch.meshgrid(axis, axis, indexing="ij")
    turn = dice.uniform(count, 1, 1) * 2 * math.pi
    u, v = xx * turn.cos() + yy * turn.sin(), yy * turn.cos() - xx * turn.sin()
    coarse = _fractal_noise(count, size, 1.2 + 1.2 * dice.uniform(count), dice)
    fine = _fractal_noise(count, size, 0.4 + dice.uniform(count), dice)

    def mix(weight: Tensor) -> Tensor:
        first, second = palette[:, 0, :, None, None], palette[:, 1, :, None, None]
        return first * (1 - weight[:, None]) + second * weight[:, None]

    rate = 2 + 8 * dice.uniform(count, 1, 1)
    gradient, clouds = mix((u * 0.7 + 0.5).clamp(0, 1)), mix(torch.sigmoid(coarse * 1.5))
    stripes = mix(torch.sigmoid(torch.sin(u * rate * math.pi) * 8))
    checkers = mix(torch.sigmoid(torch.sin(u * rate * 2.2) * torch.sin(v * rate * 2.2) * 20))
    scene = torch.where(dice.uniform(count, 1, 1, 1) < 0.5, clouds, gradient)
    image = gradient
    for index, option in ((1, clouds), (3, stripes), (4, checkers), (5, scene)):
        image = torch.where((kind == index).view(count, 1, 1, 1), option, image)
    leafy = ((kind == 0) | (kind == 5)).nonzero()[:, 0]
    if len(leafy):
        sparse = (kind[leafy] == 5) & (dice.uniform(len(leafy)) < 0.6)  # many scenes keep some of their base
        noises = (coarse[leafy], fine[leafy])
        image = image.clone()
        image[leafy] = _leaves(image[leafy], palette[leafy], noises, sparse, dice, leaves)
    return _light_and_focus(image, u, coarse, fine, dice), kind


def _light_and_focus(image: Tensor, u: Tensor, coarse: Tensor, fine: Tensor, dice: Dice) -> Tensor:
    """Uneven light, some grain, and a focus between sharp and a pixel soft."""
    n = len(image)
    light = 1 + 0.35 * dice.uniform(n, 1, 1, 1) * (u + 0.5 * coarse).unsqueeze(1).clamp(-1, 1)
    image = ((image + 1) * light - 1 + 0.06 * dice.uniform(n, 1, 1, 1) * fine.unsqueeze(1)).clamp(-1, 1)
    soft = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), 3, 1)
    weight = dice.uniform(n, 1, 1, 1)
    return (image * (1 - weight) + soft * weight).clamp(-1, 1)


class Bank:
    """A stock of textures that clips are cut from. Its content is a function of the seed and `generation` alone.

    Generation g replaces one chunk by fresh pictures; a bank that is asked for a later generation catches up.
    """

    def __init__(self, count: int, size: int, seed: int, device: torch.device, chunk: int = 256) -> None:
        self.size, self.device = size, device
        self._seed, self._chunk = seed, min(chunk, count)
        self._slots = max(1, count // self._chunk)
        self._pictures: list[Tensor] = []
        self._kinds: list[list[int]] = []
        self.generation = -1
        self.at(0)

    def at(self, generation: int) -> Bank:
        """The bank as it was at `generation`, in place."""
        if generation == self.generation:
            return self
        wanted = range(generation, generation + self._slots)  # generation 0 holds chunks 0 .. slots-1
        fresh = self.generation < 0 or generation < self.generation
        kept = set[int]() if fresh else set(range(self.generation, self.generation + self._slots))
        if fresh:
            self._pictures, self._kinds = [torch.empty(0)] * self._slots, [[]] * self._slots
        for index in wanted:
            if index not in kept:
                image, kind = make_textures(self._chunk, self.size, Dice(f"{self._seed}:texture:{index}", self.device))
                self._pictures[index % self._slots] = image.half()
                self._kinds[index % self._slots] = kind.tolist()
        self.generation = generation
        return self

    def crop(self, kind: str, height: int, width: int, dice: Dice) -> Tensor:
        """A random cut [3, height, width], flipped at random; `kind` is one of `KINDS` or "any"."""
        slot, index = self._pick(kind, dice)
        y, x = dice.pick.randint(0, self.size - height), dice.pick.randint(0, self.size - width)
        cut = self._pictures[slot][index, :, y : y + height, x : x + width]
        axes = [axis for axis in (1, 2) if dice.pick.random() < 0.5]
        return cut.flip(axes) if axes else cut

    def _pick(self, kind: str, dice: Dice) -> tuple[int, int]:
        slot = dice.pick.randrange(self._slots)
        if kind == "any":
            return slot, dice.pick.randrange(self._chunk)
        wanted = KINDS.index(kind)
        options = [index for index, have in enumerate(self._kinds[slot]) if have == wanted]
        return slot, dice.pick.choice(options or [0])
