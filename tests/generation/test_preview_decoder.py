"""The demo model's preview decoder: what it shows is the video, sharper than a linear map could."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from wanreel import demo
from wanreel.core.catalog import Catalog, tiny
from wanreel.core.errors import BrokenWeights
from wanreel.generation.encode import latent_statistics
from wanreel.generation.preview import PreviewMap
from wanreel.generation.preview_decoder import PreviewDecoder, previewer_of
from wanreel.models.open import ModelOpener
from wanreel.models.shelf import Shelf
from wanreel.models.tiny import build_tiny
from wanreel.models.wan_model import WanModel

PHOTO = Path(__file__).parent.parent.parent / "examples" / "cat.jpg"


@torch.no_grad()
def test_the_demo_shows_pictures_better_than_a_linear_map(tmp_path: Path) -> None:
    model = ModelOpener(Shelf(tmp_path), torch.device("cpu")).open(Catalog().get("demo"))
    assert isinstance(model, WanModel)
    with Image.open(PHOTO) as photo:
        pixels = torch.from_numpy(np.asarray(photo.convert("RGB").resize((128, 128)), np.float32)) / 127.5 - 1
    given = pixels.permute(2, 0, 1)[None, :, None]
    latents = model.vae.encode(given).latent_dist.mode()
    mean, inverse_std = latent_statistics(model.vae, latents)
    latents = (latents - mean) * inverse_std
    wanted = functional.interpolate(given[:, :, 0], size=(64, 64), mode="area")[0].permute(1, 2, 0).numpy()

    def error(frames: np.ndarray) -> float:
        shown = torch.from_numpy(frames[0].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        shown = functional.interpolate(shown, size=(64, 64), mode="area")[0].permute(1, 2, 0).numpy()
        return float(((shown - wanted) ** 2).mean())

    previewer = previewer_of(model)
    assert isinstance(previewer, PreviewDecoder)
    frames = previewer.frames(latents)
    assert frames.shape == (1, 64, 64, 3)
    assert error(frames) < 0.6 * error(PreviewMap.of(model).frames(latents))


def test_models_without_one_take_the_linear_map() -> None:
    assert isinstance(previewer_of(build_tiny(tiny(Catalog().get("ti2v-5b")))), PreviewMap)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "preview.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(BrokenWeights, match="preview"):
        PreviewDecoder.load(path)
    with pytest.raises(BrokenWeights, match="format"):
        PreviewDecoder.load(demo.weights_path() / "vae" / "diffusion_pytorch_model.safetensors")
