"""Networks that enlarge as users have them: random ones, of no use but to be read and run."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution


def tiny_upscaler(folder: Path, seed: int = 0) -> Path:
    """A random Swin2SR that makes twice of a picture, in `folder`."""
    torch.manual_seed(seed)
    config = Swin2SRConfig(
        embed_dim=8, depths=[2], num_heads=[2], window_size=4, mlp_ratio=2.0, upscale=2, upsampler="pixelshuffledirect"
    )
    Swin2SRForImageSuperResolution(config).save_pretrained(folder)
    return folder
