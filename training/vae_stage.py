"""The autoencoder's stage: pictures and clips through `AutoencoderKLWan`. Knows nothing of prompts."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Bucket, Config
from training.dice import Dice
from training.networks import Networks, WholeClips, vae_decode, vae_encode
from training.optimizers import GradientStep, Optimizers, rate_factor
from training.pool import Pool
from training.progress import Limits, Progress, load_state, log, save_state
from training.scenes import sample_free_scene, sample_scene
from training.textures import Bank
from training.world import render

KL_WEIGHT = 3e-5


def half_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 where the kernels want it; casts are not cached, so that the work can be captured as a graph."""
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


def vae_loss(vae: Any, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Clips uint8 [b, 3, t, h, w] -> (loss, mean squared error in units of [-1, 1]).

    Absolute and squared error, of pixels, of edges, of 8x8 averages and of the change from frame to frame; the first
    frame counts twice, because image-to-video must keep it.
    """
    x = clips.float() / 127.5 - 1
    mean, logvar = (part.float() for part in vae_encode(vae, x))
    logvar = logvar.clamp(-12, 4)
    y = vae_decode(vae, mean + torch.randn_like(mean) * (0.5 * logvar).exp()).float()
    weight = torch.ones(1, 1, x.shape[2], 1, 1, device=x.device)
    weight[:, :, 0] = 2.0
    error = y - x
    weighted = error * weight / weight.mean()
    edges = weighted.diff(dim=-1).abs().mean() + weighted.diff(dim=-2).abs().mean()
    coarse = F.avg_pool3d(weighted, (1, 8, 8)).abs().mean()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    squared = (error * weighted).mean()
    loss = weighted.abs().mean() + 2 * squared + 0.5 * edges + 0.5 * coarse + KL_WEIGHT * kl
    if x.shape[2] > 1:
        loss = loss + 0.5 * error.diff(dim=2).abs().mean()
    return loss, (error**2).mean()


def make_free_clips(bucket: Bucket, count: int, bank: Bank, dice: Dice) -> tuple[Tensor, ...]:
    """Clips of any motion for the autoencoder, uint8."""
    scenes = [sample_free_scene(bucket.frame, dice.pick) for _ in range(count)]
    return (((render(scenes, bank, bucket.frame, dice) + 1) * 127.5).round().byte(),)


def train_vae(networks: Networks, config: Config, limits: Limits, seed: int, device: torch.device, state: Path) -> bool:
    """Train `networks.vae`; then set the latents' statistics in its config. -> whether the stage is finished."""
    vae, stage = networks.vae, config.vae
    bank = Bank(stage.data.textures, stage.data.texture_size, seed, device, stage.data.texture_chunk)
    pool = Pool(stage.buckets, stage.data, seed, make_free_clips, bank)
    optimizers = Optimizers([vae], stage.muon_rate, stage.adam_rate)
    progress = Progress(limits)
    if state.exists():
        saved = load_state(state, device)
        vae.load_state_dict(saved["vae"])
        optimizers.load_state_dict(saved["optimizers"])
        progress.step, progress.spent = saved["step"], saved["spent"]
    pool.fill(progress.step)
    log.info("vae: pool ready, step %d", progress.step)
    with WholeClips():
        if device.type == "cuda":
            _choose_layout(vae, pool, device)
        step = GradientStep(_loss_of(vae, device), optimizers.parameters, False, capture=device.type == "cuda")
        progress.start()
        while progress.done < 1 and not progress.paused:
            _, (clips,) = pool.batch(progress.step)
            _, error = step(clips)
            norm = optimizers.step(rate_factor(progress.step, progress.done, stage.warmup, stage.level))
            progress.step += 1
            pool.advance(progress.step)
            if progress.step % 200 == 0:
                psnr = -10 * torch.log10(error / 4).item()
                log.info("vae %d psnr %.2f |g| %.2f %.0f s", progress.step, psnr, norm.item(), progress.elapsed)
        save_state(state, {
            "vae": vae.state_dict(), "optimizers": optimizers.state_dict(), "step": progress.step,
            "spent": progress.elapsed,
        })  # fmt: skip
        measure_latents(vae, config, bank, seed, device)
    return progress.done >= 1


def _loss_of(vae: Any, device: torch.device) -> Any:
    def loss(clips: Tensor) -> tuple[Tensor, Tensor]:
        with half_precision(device):
            return vae_loss(vae, clips)

    return loss


def _choose_layout(vae: Any, pool: Pool, device: torch.device) -> None:
    """Keep the faster memory order of the 3D convolutions' weights; it differs much between releases."""
    timed: list[tuple[float, str, torch.memory_format]] = []
    for layout in (torch.channels_last_3d, torch.contiguous_format):
        _set_layout(vae, layout)
        step = GradientStep(_loss_of(vae, device), list(vae.parameters()), False, capture=True)
        _, (clips,) = pool.batch(0)
        step(clips)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(5):
            step(clips)
        torch.cuda.synchronize()
        timed.append(((time.perf_counter() - start) / 5, str(layout), layout))
        log.info("vae step of %s, %s: %.1f ms", tuple(clips.shape), layout, timed[-1][0] * 1000)
    vae.zero_grad(set_to_none=True)
    _set_layout(vae, min(timed)[2])


def _set_layout(vae: Any, layout: torch.memory_format) -> None:
    for p in vae.parameters():
        p.grad = None
        if p.dim() == 5:
            p.data = p.data.contiguous(memory_format=layout)


@torch.no_grad()
def measure_latents(vae: Any, config: Config, bank: Bank, seed: int, device: torch.device) -> None:
    """Each latent channel's mean and deviation over the world, into the VAE's config, where the pipelines read them."""
    dice, frame = Dice(f"{seed}:statistics", device), config.dit.buckets[0].frame
    parts: list[Tensor] = []
    for _ in range(config.statistics_batches):
        clips = render([sample_scene(frame, dice.pick)[1] for _ in range(16)], bank, frame, dice)
        with half_precision(device):
            parts.append(vae_encode(vae, clips)[0].float().transpose(0, 1).flatten(1))
    latents = torch.cat(parts, 1)
    vae.register_to_config(latents_mean=latents.mean(1).tolist(), latents_std=latents.std(1).tolist())
    log.info("latents' deviation %s", [round(v, 2) for v in vae.config.latents_std])
