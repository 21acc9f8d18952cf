"""The decoder's own stage: calmer clips from the same latents. Encoder, transformer and LoRA are left as they are.

What the autoencoder's stage leaves over is a change from frame to frame that no motion explains: the first frame is
sharper than those after it, and busy pictures that stand still shimmer. Knows nothing of prompts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import Bucket, Config
from training.dice import Dice
from training.dit_stage import encode_clips
from training.drawing import Camera
from training.networks import Networks, WholeClips, vae_decode
from training.optimizers import Average, GradientStep, Optimizers, rate_factor
from training.pool import Maker, Pool
from training.progress import Limits, Progress, load_state, log, save_state
from training.scenes import Scene, sample_free_scene
from training.textures import Bank
from training.vae_stage import half_precision
from training.world import render

STILL_SHARE = 0.4  #: of clips: a picture that stands still
ROUGHNESS = 0.12  #: latents get up to this much noise, in units of their deviation, as the transformer's have


def decoder_loss(vae: Any, latents: Tensor, clips: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised latents and their clips uint8 [b, 3, t, h, w] -> (loss, mean squared error in units of [-1, 1]).

    The autoencoder's loss, with three times the weight on the change from frame to frame. `mean` and `std` undo the
    normalisation, [1, z, 1, 1, 1].
    """
    amount = ROUGHNESS * torch.rand(len(latents), 1, 1, 1, 1, device=latents.device)
    rough = latents.float() + amount * torch.randn_like(latents, dtype=torch.float32)
    error = vae_decode(vae, rough * std + mean).float() - (clips.float() / 127.5 - 1)
    weight = torch.ones(1, 1, error.shape[2], 1, 1, device=error.device)
    weight[:, :, 0] = 2.0
    weighted = error * weight / weight.mean()
    edges = weighted.diff(dim=-1).abs().mean() + weighted.diff(dim=-2).abs().mean()
    coarse = F.avg_pool3d(weighted, (1, 8, 8)).abs().mean()
    squared = (error * weighted).mean()
    loss = weighted.abs().mean() + 2 * squared + 0.5 * edges + 0.5 * coarse + 1.5 * error.diff(dim=2).abs().mean()
    return loss, (error**2).mean()


def encoded_clips(networks: Networks) -> Maker:
    """Makes (latents, clips uint8) of any motion, many of none."""

    def make(bucket: Bucket, count: int, bank: Bank, dice: Dice) -> tuple[Tensor, ...]:
        scenes = [_scene(bucket, dice) for _ in range(count)]
        clips = render(scenes, bank, bucket.frame, dice)
        return encode_clips(networks.vae, clips), ((clips + 1) * 127.5).round().byte()

    return make


def _scene(bucket: Bucket, dice: Dice) -> Scene:
    scene = sample_free_scene(bucket.frame, dice.pick)
    if dice.pick.random() >= STILL_SHARE:
        return scene
    return replace(scene, camera=Camera(), moving=False)  # shapes become part of the picture


def train_decoder(
    networks: Networks, config: Config, limits: Limits, seed: int, device: torch.device, state: Path
) -> bool:
    """Train the decoder in place, on latents of the encoder as it is. -> whether the stage is finished."""
    stage, vae = config.decoder, networks.vae
    vae.requires_grad_(False)
    trained = (vae.post_quant_conv, vae.decoder)
    for part in trained:
        part.requires_grad_(True)
    average = Average(trained, stage.average)
    optimizers = Optimizers(trained, stage.muon_rate, stage.adam_rate)
    progress = Progress(limits)
    if state.exists():
        saved = load_state(state, device)
        for part, own in zip(trained, saved["trained"], strict=True):
            part.load_state_dict(own)
        for part, own in zip(average.modules, saved["average"], strict=True):
            part.load_state_dict(own)
        optimizers.load_state_dict(saved["optimizers"])
        progress.step, progress.spent = saved["step"], saved["spent"]
    bank = Bank(stage.data.textures, stage.data.texture_size, seed + 4, device, stage.data.texture_chunk)
    pool = Pool(stage.buckets, stage.data, seed + 4, encoded_clips(networks), bank)
    pool.fill(progress.step)
    mean = torch.tensor(vae.config.latents_mean, device=device).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std, device=device).view(1, -1, 1, 1, 1)

    def loss(latents: Tensor, clips: Tensor) -> tuple[Tensor, Tensor]:
        with half_precision(device):
            return decoder_loss(vae, latents, clips, mean, std)

    with WholeClips():
        gradients = GradientStep(loss, optimizers.parameters, False, capture=device.type == "cuda")
        progress.start()
        while progress.done < 1 and not progress.paused:
            _, (latents, clips) = pool.batch(progress.step)
            _, error = gradients(latents, clips)
            optimizers.step(rate_factor(progress.step, progress.done, stage.warmup, stage.level))
            average.update(progress.step + 1)
            progress.step += 1
            pool.advance(progress.step)
            if progress.step % 200 == 0:
                psnr = -10 * torch.log10(error / 4).item()
                log.info("decoder %d psnr %.2f %.0f s", progress.step, psnr, progress.elapsed)
    save_state(state, {
        "trained": [part.state_dict() for part in trained], "average": [part.state_dict() for part in average.modules],
        "optimizers": optimizers.state_dict(), "step": progress.step, "spent": progress.elapsed,
    })  # fmt: skip
    for part, averaged in zip(trained, average.modules, strict=True):
        part.load_state_dict(averaged.state_dict())
    return progress.done >= 1
