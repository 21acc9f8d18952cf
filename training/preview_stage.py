"""The preview decoder's stage: latents to small pictures, cheap enough for every step. Knows nothing of prompts."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import Config
from training.dit_stage import prompted_clips
from training.export import save_tensors
from training.networks import Networks, WholeClips, vae_decode
from training.optimizers import rate_factor
from training.pool import Pool
from training.progress import Limits, Progress, log
from training.textures import Bank
from training.vae_stage import half_precision

UPSCALE = 4  #: the preview's pixels along a latent cell's side; the VAE's own are 8
WIDTH = 32


class PreviewDecoder(nn.Module):
    """Normalised latents [n, z, h, w] of single latent frames -> pictures [n, 3, 4h, 4w], about in [-1, 1]."""

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(latent_channels, WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.last = nn.Conv2d(WIDTH, 3 * UPSCALE**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        hidden = F.silu(self.first(latents))
        hidden = F.silu(self.second(hidden)) + hidden
        return F.pixel_shuffle(self.last(hidden), UPSCALE)


def train_preview(
    networks: Networks, config: Config, limits: Limits, seed: int, device: torch.device, out: Path
) -> float:
    """Train the decoder to show the last frame of each latent frame, as the VAE decodes it. -> its PSNR in dB."""
    stage, vae = config.preview, networks.vae.requires_grad_(False).eval()
    bank = Bank(min(512, stage.data.textures), stage.data.texture_size, seed + 2, device, stage.data.texture_chunk)
    pool = Pool(stage.buckets, stage.data, seed + 2, prompted_clips(networks), bank)
    pool.fill(0)
    mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1, 1)
    decoder = PreviewDecoder(int(vae.config.z_dim)).to(device)
    optimizer = torch.optim.AdamW(decoder.parameters(), stage.adam_rate)
    progress, error = Progress(limits), torch.ones(())
    progress.start()
    while progress.done < 1:
        _, (latents, _) = pool.batch(progress.step)
        latents = latents.float()
        with torch.no_grad(), WholeClips(), half_precision(device):
            frames = vae_decode(vae, latents * std + mean)[:, :, ::4].float().clamp(-1, 1)
        wanted = F.avg_pool3d(frames, (1, 2, 2)).transpose(1, 2).flatten(0, 1)
        shown = decoder(latents.transpose(1, 2).flatten(0, 1))
        loss = F.mse_loss(shown, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = stage.adam_rate * rate_factor(progress.step, progress.done, stage.warmup, 0.3)
        optimizer.step()
        error = loss.detach()
        progress.step += 1
    psnr = -10 * torch.log10(error.cpu() / 4).item()
    log.info("preview: %d steps, %.2f dB", progress.step, psnr)
    save_tensors(out, dict(decoder.named_parameters()), preview_notes())
    return psnr


def preview_notes() -> dict[str, str]:
    """What a reader of the file must know to run it."""
    return {
        "format": "wanreel-preview-decoder/1",
        "input": "one normalised latent frame [n, z, h, w]",
        "layers": "h=silu(conv3x3 first); h=silu(conv3x3 second)+h; pixel_shuffle(conv3x3 last, 4)",
        "output": "rgb [n, 3, 4h, 4w] in [-1, 1], the last video frame of the latent frame",
    }
