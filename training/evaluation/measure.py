"""Measures of a clip, a tensor [t, 3, h, w] in [0, 1]. Knows nothing of prompts or pipelines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training import words
from training.drawing import SHAPE_NAMES, Camera, Tracks, camera_move, draw, exact_clip

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_COLOR_NAMES = tuple(words.COLORS)
_PALETTE = torch.tensor(list(words.COLORS.values()), dtype=torch.float32) / 255


def psnr(a: Tensor, b: Tensor) -> float:
    """In dB, of values in [0, 1]."""
    return 10 * math.log10(1 / max(1e-10, (a.double() - b.double()).square().mean().item()))


def frame_change(clip: Tensor) -> float:
    """Mean absolute change from frame to frame, in 255ths."""
    return clip.diff(dim=0).abs().mean().item() * 255


def grain(clip: Tensor) -> float:
    """How much of the picture is finer than 3x3 pixels, mean absolute, in 255ths. Noise has about 50."""
    smooth = F.avg_pool2d(F.pad(clip, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return (clip - smooth).abs().mean().item() * 255


@dataclass(frozen=True)
class Blob:
    """The pixels of a clip that are nearer to one colour than to any other."""

    mask: Tensor  #: [t, h, w] bool
    centre: Tensor  #: [t, 2], x and y in parts of the frame
    area: Tensor  #: [t] in parts of the frame
    background: float  #: the share of the other pixels that have the background's colour, median over frames

    @property
    def there(self) -> bool:
        """Whether something of the colour is seen, and not everywhere."""
        return 0.006 < self.area.median().item() < 0.45


def find_blob(clip: Tensor, color: str, background: str) -> Blob:
    """By the nearest colour of the world's palette."""
    distance = (clip.unsqueeze(1) - _PALETTE.view(1, -1, 3, 1, 1)).square().sum(2)
    nearest = distance.argmin(1)
    mask = nearest == _COLOR_NAMES.index(color)
    _, h, w = mask.shape
    weight = mask.float()
    total = weight.sum((1, 2)).clamp(min=1)
    x = (weight * (torch.arange(w) / w)).sum((1, 2)) / total
    y = (weight * (torch.arange(h).view(-1, 1) / h)).sum((1, 2)) / total
    behind = ((nearest == _COLOR_NAMES.index(background)) & ~mask).float().sum((1, 2))
    share = behind / (~mask).float().sum((1, 2)).clamp(min=1)
    return Blob(mask, torch.stack((x, y), 1), weight.mean((1, 2)), share.median().item())


def moves_as(blob: Blob, motion: str) -> bool:
    """Whether the blob does what `motion` says. Distances in parts of the frame."""
    dx, dy = (blob.centre[-2:].mean(0) - blob.centre[:2].mean(0)).tolist()
    ratio = (blob.area[-2:].mean() / blob.area[:2].mean().clamp(min=1e-6)).item()
    at = min(7, len(blob.mask) - 1)
    turned = ((blob.mask[0] ^ blob.mask[at]).float().mean() / blob.area[0].clamp(min=1e-6)).item()
    span_x, span_y = (blob.centre.amax(0) - blob.centre.amin(0)).tolist()
    away = max(abs(dx), abs(dy))
    match motion:
        case "grow":
            return ratio > 1.3
        case "shrink":
            return ratio < 0.77
        case "spin":
            return away < 0.06 and turned > 0.1
        case "bounce":
            return span_y > 0.07 and span_x < 0.06
        case "still":
            return away < 0.04 and 0.75 < ratio < 1.33 and turned < 0.25
        case _:
            ways = [words.DIRECTIONS[way] for way in motion.split("-")]
            wanted = sum(way[0] for way in ways), sum(way[1] for way in ways)
            return all(d * want > 0.06 if want else abs(d) < 0.06 for d, want in zip((dx, dy), wanted))


def _templates(size: int, angles: int) -> Tensor:
    """Masks of every shape at every angle, equal in area. -> [shapes * angles, size, size]"""
    kind = torch.arange(len(SHAPE_NAMES)).repeat_interleave(angles)
    n = len(kind)
    turn = (torch.arange(angles) / angles * 2 * math.pi).repeat(len(SHAPE_NAMES))

    def paint(radius: Tensor) -> Tensor:
        middle = torch.full((n, 1), size / 2)
        tracks = Tracks(kind, torch.ones(n, 3), middle, middle, radius.view(n, 1), turn.view(n, 1))
        return draw(torch.zeros(n, 3, 1, size, size), tracks)[:, 0, 0]

    radius = torch.full((n,), size / 4)
    for _ in range(3):
        radius = radius * (size * size * 0.2 / paint(radius).sum((1, 2))).sqrt()
    return paint(radius)


_TEMPLATE_SIZE, _TEMPLATE_ANGLES = 40, 24
TEMPLATES = _templates(_TEMPLATE_SIZE, _TEMPLATE_ANGLES)


def recognise(blob: Blob) -> str:
    """The world's shape whose outline, at any angle, overlaps best with the blob over a few frames."""
    scores = torch.zeros(len(SHAPE_NAMES))
    for frame in range(0, len(blob.mask), 4):
        mask, area = blob.mask[frame].float(), blob.area[frame].item()
        if area < 0.003:
            continue
        h, w = mask.shape
        side = math.sqrt(area * h * w / 0.2)  # of the window in which the blob fills the templates' share
        step = (torch.arange(_TEMPLATE_SIZE) + 0.5) / _TEMPLATE_SIZE - 0.5
        cx, cy = (blob.centre[frame] * 2 - 1).tolist()
        gx, gy = cx + 1 / w + step * 2 * side / w, cy + 1 / h + step * 2 * side / h
        grid = torch.stack(torch.meshgrid(gx, gy, indexing="xy"), -1)[None]
        window = F.grid_sample(mask[None, None], grid, align_corners=False)[0, 0]
        overlap = torch.minimum(window, TEMPLATES).sum((1, 2)) / torch.maximum(window, TEMPLATES).sum((1, 2))
        scores += overlap.view(len(SHAPE_NAMES), -1).amax(1)
    return SHAPE_NAMES[int(scores.argmax())]


def expected(picture: Tensor, move: str | Camera, frames: int) -> Tensor:
    """The one right answer for a picture [3, h, w] in [0, 1] under a camera move -> [t, 3, h, w]."""
    camera = camera_move(move) if isinstance(move, str) else move
    return exact_clip(picture, camera, frames).transpose(0, 1).clamp(0, 1)


def looks_like(clip: Tensor, picture: Tensor, moves: tuple[str, ...]) -> str:
    """The move whose exact clip is nearest."""
    scores = {move: psnr(clip, expected(picture, move, len(clip))) for move in moves}
    return max(scores, key=lambda move: scores[move])


def pans_the_right_way(clip: Tensor, picture: Tensor, move: str) -> bool:
    """Whether the clip is nearer to the exact pan than to the opposite one and to no pan at all."""
    wanted, opposite, still = (psnr(clip, expected(picture, m, len(clip))) for m in (move, OPPOSITE[move], "still"))
    return wanted > opposite and wanted > still


def pan_speed(clip: Tensor, picture: Tensor, across: bool) -> float:
    """The pan's speed in pixels a frame, positive to the right or down, by the exact clip that fits best."""
    speeds = [step / 2 for step in range(-10, 11)]
    cameras = {v: Camera(vx=v) if across else Camera(vy=v) for v in speeds}
    scores = {v: psnr(clip, expected(picture, camera, len(clip))) for v, camera in cameras.items()}
    return max(scores, key=lambda v: scores[v])
