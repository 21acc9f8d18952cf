"""Scenes to clips, a batch at a time on any device. Knows nothing of prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from training.dice import Dice
from training.drawing import SHAPE_NAMES, Tracks, camera_clip, camera_path, draw
from training.scenes import Frame, Scene
from training.textures import Bank


def render(scenes: Sequence[Scene], bank: Bank, frame: Frame, dice: Dice) -> Tensor:
    """-> clips [b, 3, t, h, w] in [-1, 1], float32."""
    picture = _backgrounds(scenes, bank, frame, dice).unsqueeze(2)
    for j in range(max((len(s.shapes) for s in scenes if not s.moving), default=0)):
        picture = draw(picture, _tracks(scenes, j, 1, False, bank.device))
    paths = [camera_path(scene.camera, frame.frames) for scene in scenes]
    shift, scale, angle = (torch.stack([path[i] for path in paths]).to(bank.device) for i in range(3))
    video = camera_clip(picture.squeeze(2), shift, scale, angle)
    for j in range(max((len(s.shapes) for s in scenes if s.moving), default=0)):
        video = draw(video, _tracks(scenes, j, frame.frames, True, bank.device))
    return video.clamp(-1, 1)


def _backgrounds(scenes: Sequence[Scene], bank: Bank, frame: Frame, dice: Dice) -> Tensor:
    flat = torch.tensor([s.background if not isinstance(s.background, str) else (0.0, 0.0, 0.0) for s in scenes])
    base = flat.to(bank.device).view(-1, 3, 1, 1).expand(-1, 3, frame.height, frame.width).clone()
    textured = [i for i, s in enumerate(scenes) if isinstance(s.background, str)]
    if textured:
        cuts = [bank.crop(str(scenes[i].background), frame.height, frame.width, dice) for i in textured]
        base[torch.tensor(textured, device=bank.device)] = torch.stack(cuts).float()
    return base


def _tracks(scenes: Sequence[Scene], j: int, frames: int, moving: bool, device: torch.device) -> Tracks:
    """The j-th shape's numbers for each scene; radius 0 where a scene has none of that kind."""
    t = torch.arange(frames, dtype=torch.float32)
    b = len(scenes)
    numbers = torch.zeros(b, 9)
    kind, rgb = torch.zeros(b, dtype=torch.long), torch.zeros(b, 3)
    for i, scene in enumerate(scenes):
        if scene.moving == moving and j < len(scene.shapes):
            s = scene.shapes[j]
            kind[i], rgb[i] = SHAPE_NAMES.index(s.name), torch.tensor(s.rgb)
            numbers[i] = torch.tensor((s.x, s.y, s.vx, s.vy, s.radius, s.grow, s.angle, s.spin, s.bounce))
    x, y, vx, vy, radius, grow, angle, spin, bounce = (column.unsqueeze(1) for column in numbers.unbind(1))
    hop = bounce * torch.sin(t * math.pi / 8).abs()
    return Tracks(
        kind.to(device), rgb.to(device), x=(x + vx * t).to(device), y=(y + vy * t - hop).to(device),
        radius=(radius * torch.exp(grow * t)).to(device), angle=(angle + spin * t).to(device),
    )  # fmt: skip
