"""Pixels: painting shapes over a clip, and moving a camera over a picture. Knows nothing of prompts or chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.words import SHAPES

SHAPE_NAMES = tuple(SHAPES)
_ANGLES = 512


def _outlines() -> Tensor:
    """Radius of each shape's outline by angle; all are star-shaped about their centre. -> [shapes, angles]"""
    angle = torch.arange(_ANGLES) / _ANGLES * 2 * math.pi
    c, s = angle.cos().abs().clamp(min=1e-4), angle.sin().abs().clamp(min=1e-4)
    third = math.cos(math.pi / 3) / (((angle + math.pi / 2) % (2 * math.pi / 3)) - math.pi / 3).cos()
    arm = 0.34
    plus = torch.maximum(torch.minimum(1 / c, arm / s), torch.minimum(arm / c, 1 / s)) * 1.05
    rows = {
        "circle": torch.ones_like(angle),
        "square": 0.9 / torch.maximum(c, s),
        "triangle": 1.2 * third,
        "star": _star(angle),
        "ring": torch.ones_like(angle),
        "diamond": 1 / (1.35 * c + 0.85 * s),
        "cross": plus,
    }
    return torch.stack([rows[name] for name in SHAPE_NAMES])


def _star(angle: Tensor) -> Tensor:
    """Five points, by the straight edge from a tip to the inner corner beside it."""
    from_tip = math.pi / 5 - (((angle + math.pi / 2) % (2 * math.pi / 5)) - math.pi / 5).abs()
    tip, inner_radius = 1.15, 0.48
    dx = inner_radius * math.cos(math.pi / 5) - tip
    dy = inner_radius * math.sin(math.pi / 5)
    return (tip * dy) / (from_tip.cos() * dy - from_tip.sin() * dx)


OUTLINES = _outlines()


@dataclass(frozen=True)
class Tracks:
    """One shape for each clip of a batch: `kind` [b], `rgb` [b, 3] or [b, 3, t, h, w], the rest [b, t] in pixels.

    A radius of 0 paints nothing. `aspect` [b] squeezes the shape across its own axis.
    """

    kind: Tensor
    rgb: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor
    aspect: Tensor | None = None


def draw(video: Tensor, tracks: Tracks) -> Tensor:
    """Paint one shape a clip over `video` [b, 3, t, h, w] in [-1, 1], with edges one pixel soft."""
    b, _, t, h, w = video.shape
    device = video.device
    py = torch.arange(h, device=device).view(1, 1, h, 1) + 0.5 - tracks.y.view(b, t, 1, 1)
    px = torch.arange(w, device=device).view(1, 1, 1, w) + 0.5 - tracks.x.view(b, t, 1, 1)
    c, s = tracks.angle.cos().view(b, t, 1, 1), tracks.angle.sin().view(b, t, 1, 1)
    u, v = px * c + py * s, py * c - px * s
    if tracks.aspect is not None:
        v = v * tracks.aspect.view(b, 1, 1, 1)
    radius = tracks.radius.view(b, t, 1, 1)
    distance = (u * u + v * v).sqrt()
    index = ((torch.atan2(v, u) / (2 * math.pi)) % 1.0 * _ANGLES).long().clamp(max=_ANGLES - 1)
    edge = OUTLINES.to(device)[tracks.kind].view(b, _ANGLES).gather(1, index.view(b, -1)).view_as(distance)
    alpha = (edge * radius - distance + 0.5).clamp(0, 1)
    hole = (distance - 0.58 * radius + 0.5).clamp(0, 1)
    is_ring = (tracks.kind == SHAPE_NAMES.index("ring")).view(b, 1, 1, 1)
    alpha = torch.where(is_ring, torch.minimum(alpha, hole), alpha)
    alpha = (alpha * (radius > 0)).unsqueeze(1)
    color = tracks.rgb.view(b, 3, 1, 1, 1) if tracks.rgb.dim() == 2 else tracks.rgb
    return video * (1 - alpha) + color * alpha


@dataclass(frozen=True)
class Camera:
    """A camera move, as what it does to the content. Speeds are a frame: pixels, log scale, radians."""

    vx: float = 0.0
    vy: float = 0.0
    zoom: float = 0.0
    rotation: float = 0.0
    sway: float = 0.0  #: pixels
    shake: float = 0.0  #: pixels


def camera_move(name: str, speed: float = 1.0) -> Camera:
    """The move that a prompt names. 'Left' is the camera's way, so the content goes right.

    2 pixels a frame are exactly one 8-pixel latent cell a latent frame, which makes a pan a shift of cells.
    """
    match name:
        case "left" | "right":
            return Camera(vx=2 * speed if name == "left" else -2 * speed)
        case "up" | "down":
            return Camera(vy=2 * speed if name == "up" else -2 * speed)
        case "in" | "out":
            return Camera(zoom=0.016 * speed if name == "in" else -0.016 * speed)
        case "cw" | "ccw":
            return Camera(rotation=math.radians(1.5 * speed if name == "cw" else -1.5 * speed))
        case "shake":
            return Camera(shake=3.0)
        case "sway":
            return Camera(sway=4.0, zoom=0.004)
        case "still":
            return Camera()
        case _:
            raise ValueError(f"no camera move is called {name!r}")


def camera_path(camera: Camera, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """-> shift [t, 2] in pixels, scale [t], angle [t] in radians."""
    t = torch.arange(frames, dtype=torch.float32)
    x = camera.vx * t + camera.sway * torch.sin(t * math.pi / 8) + camera.shake * torch.sin(t * 1.9)
    y = camera.vy * t + camera.shake * 0.7 * torch.sin(t * 1.3)
    return torch.stack((x, y), -1), torch.exp(camera.zoom * t), camera.rotation * t


def camera_clip(image: Tensor, shift: Tensor, scale: Tensor, angle: Tensor) -> Tensor:
    """`image` [b, 3, h, w] under a move [b, t, …] -> [b, 3, t, h, w]. Outside of the picture its mirror shows.

    So the clip is a fixed function of its first frame and its prompt, and a test can compute the one right answer.
    """
    b, _, h, w = image.shape
    t = scale.shape[1]
    device = image.device
    py = (torch.arange(h, device=device) + 0.5 - h / 2).view(1, 1, h, 1) - shift[..., 1].view(b, t, 1, 1)
    px = (torch.arange(w, device=device) + 0.5 - w / 2).view(1, 1, 1, w) - shift[..., 0].view(b, t, 1, 1)
    c, s = (angle.cos() / scale).view(b, t, 1, 1), (angle.sin() / scale).view(b, t, 1, 1)
    u, v = px * c + py * s, py * c - px * s
    grid = torch.stack((u * 2 / w, v * 2 / h), -1).view(b, t * h, w, 2)
    out = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return out.view(b, 3, t, h, w)


def exact_clip(image: Tensor, camera: Camera, frames: int) -> Tensor:
    """One picture [3, h, w] under one move -> [3, t, h, w]: what a perfect model would answer."""
    shift, scale, angle = (part[None] for part in camera_path(camera, frames))
    return camera_clip(image[None], shift, scale, angle)[0]
